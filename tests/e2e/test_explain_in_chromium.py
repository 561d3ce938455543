"""The page of `hf-swin explain` as a browser shows it: alone, by mouse and keyboard, with the model's own weights."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_swin.explain import attention_maps, class_map, rollout
from hf_swin.explain_page import page as page_of

from tiny import model_of


pytestmark = pytest.mark.slow
SIZES = {"hf_swin": (64, 64), "hf_swin_v2": (60, 100), "hf_vit": (32, 48)}
MAP = "Array.from(document.getElementById('view').map.map)"


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """For each family the page, the attention of its blocks, and the maps that it offers beside them."""
    folder, found = tmp_path_factory.mktemp("pages"), {}
    for family, size in SIZES.items():
        torch.manual_seed(0)
        model, pixels = model_of(family), torch.randn(1, 3, *size)
        maps, evidence = attention_maps(model, pixels), class_map(model, pixels)
        levels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
        path = folder / f"{family}.html"
        path.write_text(page_of("photo.png", Image.fromarray(levels), maps, evidence, "a cat, 12 %"))
        views = {"class map": evidence} | ({"rollout": rollout(maps)} if family == "hf_vit" else {})
        found[family] = path, maps, views
    return found


@pytest.fixture
def open_page(chromium, explained):
    """Opens a page and fails for a request, a word on the console, or an error."""
    contexts, heard = [], []

    def open_(family, width=1280, scheme="light"):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        address = explained[family][0].as_uri()
        page.on("request", lambda request: request.url.startswith(("data:", address)) or heard.append(request.url))
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#blocks button")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert heard == []


def click(page, attention, token, size):
    """Click the middle of a token of the grid, or as near to it as the picture reaches."""
    row, column = divmod(token, attention.grid[1])
    y = min((row + 0.5) * attention.stride[0], size[0] - 0.5) / size[0]
    x = min((column + 0.5) * attention.stride[1], size[1] - 0.5) / size[1]
    box = page.locator("#view").bounding_box()
    page.locator("#view").click(position={"x": x * box["width"], "y": y * box["height"]})


def assert_shown(page, attention, token, head=-1):
    """The page's map is what a token attends to, by the mean of the heads or by one, to 0.5 % of its largest weight."""
    expected = attention.attended(token)
    wanted = (expected.mean(0) if head < 0 else expected[head]).ravel()
    window, query = np.argwhere(attention.tokens == token)[0]
    assert np.allclose(page.evaluate(MAP), wanted, atol=0.005 * attention.weights[window, :, query].max())


@pytest.mark.parametrize("family", SIZES)
def test_a_click_shows_what_a_patch_attends_to_in_each_block_and_head(family, open_page, explained):
    page, (_, maps, _) = open_page(family), explained[family]
    for number, attention in enumerate(maps):
        page.locator("#blocks button").nth(number).click()
        for token in (0, attention.grid[0] * attention.grid[1] - 1, attention.grid[1] + 1):
            click(page, attention, token, SIZES[family])
            for head in (-1, 0, attention.weights.shape[1] - 1):
                page.locator("#heads button").nth(head + 1).click()
                assert_shown(page, attention, token, head)
        assert attention.name in page.inner_text("#said")


def test_the_same_place_is_asked_in_every_block(open_page, explained):
    page, (_, maps, _) = open_page("hf_swin"), explained["hf_swin"]
    page.locator("#blocks button").nth(0).click()
    click(page, maps[0], 5 * 16 + 10, (64, 64))
    page.locator("#blocks button").nth(2).click()
    assert_shown(page, maps[2], 2 * 8 + 5)


def test_keys_move_the_patch_and_stop_at_the_edge(open_page, explained):
    page, (_, maps, _) = open_page("hf_swin"), explained["hf_swin"]
    page.locator("#blocks button").nth(0).click()
    click(page, maps[0], 0, (64, 64))
    page.locator("#view").focus()
    for key in ("ArrowUp", "ArrowLeft", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert "Patch 2, 3 of 16" in page.inner_text("#said")
    assert_shown(page, maps[0], 16 + 2)


@pytest.mark.parametrize("family", SIZES)
def test_class_map_and_rollout_are_shown_on_request(family, open_page, explained):
    page, (_, _, views) = open_page(family), explained[family]
    assert page.locator("#shows input").evaluate_all("all => all.map(radio => radio.value)") == ["attention", *views]
    for name, heat in views.items():
        page.get_by_label(name).check()
        assert np.allclose(page.evaluate(MAP), heat.ravel(), atol=0.005 * heat.max())
    page.locator("#view").click()
    assert page.get_by_role("radio", name="attention").is_checked()


def test_the_class_token_can_ask(open_page, explained):
    page, (_, maps, _) = open_page("hf_vit"), explained["hf_vit"]
    page.get_by_label("the class token asks").check()
    assert_shown(page, maps[-1], maps[-1].grid[0] * maps[-1].grid[1])
    assert "The class token" in page.inner_text("#said")
    assert open_page("hf_swin").get_by_label("the class token asks").is_hidden()


@pytest.mark.parametrize("family", ["hf_swin", "hf_swin_v2"])
def test_windows_and_regions_are_drawn_where_there_are_any(family, open_page, explained):
    page = open_page(family)
    image = "document.getElementById('view').toDataURL()"
    for block, shifted in ((0, False), (1, True)):
        page.locator("#blocks button").nth(block).click()
        plain = page.evaluate(image)
        page.get_by_label("window grid").check()
        with_windows = page.evaluate(image)
        page.get_by_label("shifted regions").check()
        assert with_windows != plain and (page.evaluate(image) != with_windows) == shifted
        assert ("Nothing is shifted" in page.inner_text("#said")) != shifted
        page.get_by_label("window grid").uncheck()
        page.get_by_label("shifted regions").uncheck()
        assert page.evaluate(image) == plain


def test_the_weight_under_the_pointer_is_said(open_page, explained):
    page, (_, maps, _) = open_page("hf_vit"), explained["hf_vit"]
    click(page, maps[-1], 0, SIZES["hf_vit"])
    box = page.locator("#view").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + box["height"] * 0.99)
    said = page.inner_text("#said")
    value = 100 * maps[-1].attended(0).mean(0)[-1, -1]
    assert "At row 4, column 6: " in said
    assert float(said.split(": ")[-1].split(" %")[0]) == pytest.approx(value, abs=0.06)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen_in_light_and_dark(width, scheme, open_page):
    page = open_page("hf_swin_v2", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, paper[4:-1].split(","))) < 60) == (scheme == "dark")
    assert page.locator("#view").bounding_box()["width"] > 300
