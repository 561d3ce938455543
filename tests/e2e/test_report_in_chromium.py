"""The report as a browser shows it: alone, readable in light and dark, on a phone, without scripts."""

import re

import numpy as np
import pytest
from test_report import HISTORY, NASTY, answers_of, page_of


pytestmark = pytest.mark.slow
CLASSES = ["T-shirt/top", *NASTY, "a" * 90, *"efghij"]
# Every element with text of its own, that is seen: the contrast with what is behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
    const rgb = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
    const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const over = (c, below) => c.slice(0, 3).map((v, i) => v * (c[3] ?? 1) + below[i] * (1 - (c[3] ?? 1)));
    const behind = e => e ? over(rgb(getComputedStyle(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255];
    return [...document.querySelectorAll("body *")].filter(e => e.getClientRects().length
        && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
            const style = getComputedStyle(e), svg = e.namespaceURI.endsWith("svg");
            const [a, b] = [light(rgb(svg ? style.fill : style.color)), light(behind(e))].sort((x, y) => y - x);
            return [(a + .05) / (b + .05), e.textContent.trim().slice(0, 40)];
        });
}"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Pages of a run with ten classes, of label sets, of a probe with two classes, and of a thousand classes."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 10, 80)
    ten = answers_of(generator.dirichlet(np.ones(10), 80) * 0.8 + 0.2 * np.eye(10)[truth], truth, side=8)
    sets = generator.integers(0, 2, (30, 10))
    many = np.arange(1000)
    runs = {
        "ten": (ten, CLASSES, HISTORY),
        "sets": (answers_of(0.4 * sets + 0.6 * generator.random((30, 10)), sets, side=200), CLASSES, HISTORY),
        "two": (answers_of([[0.9, 0.1], [0.8, 0.2]], [0, 1]), NASTY, []),
        "many": (answers_of(generator.dirichlet(np.ones(1000), 1000), many), [f"class {n}" for n in many], HISTORY),
    }
    folders = {name: tmp_path_factory.mktemp(name) for name in runs}
    for name, run in runs.items():
        page_of(folders[name], *run, notes=["a note " + "long" * 60])
    return folders


@pytest.fixture
def open_page(chromium, reports):
    """Opens a page and fails for a request, a word on the console, or an error."""
    contexts, heard = [], []

    def open_(name, width=1280, scheme="light", script=True):
        view = {"width": width, "height": 900}
        contexts.append(chromium.new_context(viewport=view, color_scheme=scheme, java_script_enabled=script))
        page = contexts[-1].new_page()
        address = (reports[name] / "report.html").as_uri()
        page.on("request", lambda request: request.url.startswith(("data:", address)) or heard.append(request.url))
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("name", ["ten", "sets", "two", "many"])
def test_everything_is_there_and_decoded(name, open_page):
    page, classes = open_page(name), {"two": 2, "many": 1000}.get(name, 10)
    assert page.locator(".score b").inner_text() == "75.00 %"
    assert page.locator("#classes tbody tr").count() == page.locator("#counts tbody tr").count() == classes
    assert page.locator("#training svg").count() == (0 if name == "two" else 3)
    assert page.locator("#confusion svg").count() == page.locator("#calibration svg").count() == (name != "sets")
    pictures = page.locator("img").evaluate_all("all => all.map(image => image.complete && image.naturalWidth)")
    assert len(pictures) == (1 if name == "two" else 16) and all(pictures)
    names = page.locator("#classes tbody th").all_inner_texts()
    assert name == "many" or set(names) == set(CLASSES if name != "two" else NASTY)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["ten", "sets", "two", "many"])
def test_nothing_is_wider_than_the_screen(name, width, open_page):
    page = open_page(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".scroll").first.evaluate("box => box.clientHeight") <= 560  # a thousand rows scroll


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["ten", "sets"])
def test_text_is_readable(name, scheme, open_page):
    page = open_page(name, scheme=scheme)
    paper = [int(part) for part in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))]
    assert max(paper) < 60 if scheme == "dark" else min(paper) > 240
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert not [found for found in contrasts if found[0] < 4.5]


def test_small_pictures_keep_their_pixels(open_page):
    look = "all => all.map(image => [image.naturalWidth, getComputedStyle(image).imageRendering])"
    assert open_page("ten").locator("img").evaluate_all(look) == [[8, "pixelated"]] * 16
    assert open_page("sets").locator("img").evaluate_all(look) == [[200, "auto"]] * 16


def test_without_scripts_it_is_the_same_page(open_page):
    with_script, without = open_page("ten"), open_page("ten", script=False)
    assert with_script.locator("body").inner_text() == without.locator("body").inner_text()
    assert with_script.screenshot(full_page=True) == without.screenshot(full_page=True)


def test_it_can_be_printed(open_page):
    page = open_page("ten")
    page.emulate_media(media="print")
    assert page.locator(".scroll").first.evaluate("box => box.scrollHeight <= box.clientHeight")
    assert page.pdf().startswith(b"%PDF")
