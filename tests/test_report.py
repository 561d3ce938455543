"""The report of a run: numbers compared with scikit-learn, names that are no markup, and every shape of a run."""

import html
import json
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from hf_swin.card import model_card
from hf_swin.pictures import confusion_matrix, data_uri, svg_of
from hf_swin.report import Answers, EpochTable, Prediction, class_scores, summary, write_report

from tiny import model_of


NASTY = ["<b>&\"'", "$5 and {{ 7 * 7 }}"]
FILE = 'val/<script>alert(1)</script>&".png'
HISTORY = [
    {"loss": 0.9, "learning_rate": 1e-3, "epoch": 1.0},
    {"eval_loss": 0.8, "eval_accuracy": 0.5, "eval_macro_f1": 0.4, "epoch": 1.0},
    {"loss": 0.5, "learning_rate": 5e-4, "epoch": 2.0},
    {"eval_loss": 0.6, "eval_accuracy": 0.75, "eval_macro_f1": 0.7, "epoch": 2.0},
    {"train_loss": 0.7, "train_runtime": 3.0, "epoch": 2.0},
]


def record_of(labels, speed="full", multi_label=False, **changes):
    scores = {"mean_average_precision": 0.75} if multi_label else {"expected_calibration_error": 0.1, "accuracy": 0.75}
    images = {
        "images": {"train": 8, "validation": 0, "test": 4},
        "classes": {label: {"train": 4, "validation": 0, "test": 2} for label in labels},
        "sizes": {"smallest": [6, 9], "median": [6, 9], "largest": [60, 90]},
        "modes": {"RGB": 12}, "skipped": [], "leaks": [],
    }  # fmt: skip
    return {
        "data": "digits", "family": "swin", "init": None, "image_size": 32, "seed": 3, "speed": speed, "seconds": 3671,
        "scores": {**scores, "loss": 0.123456}, "labels": labels, "multi_label": multi_label, "images": images,
        "recipe": {"epochs": 2, "learning_rate": 1e-5, "mixup": None}, "parameters": 1234567,
        "timing": {"steps": 70, "seconds_per_step": 0.11, "waiting_for_data": 0.034}, "versions": {"torch": "2.14.1"},
        "notes": [], **changes,
    }  # fmt: skip


def answers_of(probabilities, truth, side=6, name=FILE):
    pictures = [Image.new("RGB", (side, side), (40 * row % 256, 90, 10)) for row in range(len(truth))]
    rows = {"image": pictures, "name": [f"{name} {row}" for row in range(len(truth))]}
    images = Dataset.from_dict(rows).cast_column("image", ImageFeature())
    return Answers(images, np.asarray(probabilities, dtype=float), np.asarray(truth))


def two_classes():
    return answers_of([[0.9, 0.1], [0.2, 0.8], [0.05, 0.95], [0.4, 0.6]], [0, 1, 0, 0])


def page_of(folder, answers, labels, history=HISTORY, **changes):
    record = record_of(labels, multi_label=answers.multi_label, **changes)
    shown = [Prediction(answers.images[0]["image"], labels[0], labels[1], 0.9)]
    write_report(folder, record, history, answers, shown)
    return (folder / "report.html").read_text(encoding="utf-8")


def cells(page, section):
    """The rows of the first table of a part of the page, each a list of what its cells say."""
    part = page.split(f'id="{section}"')[1].split("</table>")[0].split("<tbody>")[1]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in part.split("</tr>")[:-1]]
    return [[html.unescape(re.sub("<.*?>", "", cell)).strip() for cell in row] for row in rows]


def test_scores_of_classes_are_those_of_scikit_learn_and_the_worst_comes_first():
    generator = np.random.default_rng(0)
    truth, labels = generator.integers(0, 4, 200), list("abcde")  # no image of the last
    answers = answers_of(generator.dirichlet(np.ones(5), 200) + np.eye(5)[truth] * [1, 0.5, 0.3, 0.2, 0], truth)
    rows = class_scores(answers, labels)
    for score, of in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        expected = of(truth, answers.probabilities.argmax(1), average=None, labels=range(5), zero_division=0)
        assert {row["label"]: row[score] for row in rows[:-1]} == pytest.approx(
            dict(zip("abcd", expected, strict=False))
        )
    assert [row["f1"] for row in rows[:-1]] == sorted(row["f1"] for row in rows[:-1])
    assert (rows[-1]["label"], rows[-1]["support"], rows[-1]["f1"]) == ("e", 0, None)
    assert {row["label"]: row["support"] for row in rows} == dict(
        zip("abcde", np.bincount(truth, minlength=5), strict=True)
    )


def test_scores_of_label_sets_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 2, (60, 3)) * [1, 1, 0]
    answers = answers_of(0.6 * truth + 0.4 * generator.random((60, 3)), truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = {row["label"]: row for row in class_scores(answers, list("abc"))}
    for number, label in enumerate("ab"):
        given = answers.probabilities[:, number]
        assert rows[label]["average_precision"] == pytest.approx(average_precision_score(truth[:, number], given))
        assert rows[label]["recall"] == pytest.approx(recall_score(truth[:, number], given > 0.5))
    assert rows["c"]["average_precision"] is None and list(rows)[-1] == "c"


def test_names_are_text_and_never_markup(tmp_path):
    images = {**record_of(NASTY)["images"], "skipped": [FILE], "leaks": [[FILE, "<i>"]], "modes": {"<u>": 1}}
    versions = {"<i>torch": "<i>2"}
    page = page_of(
        tmp_path, two_classes(), NASTY, images=images, notes=["<i>"], data="<i>", init="<i>", versions=versions
    )
    for markup in ("<b>&", "<script", "<i>", "<u>"):
        assert markup not in page, markup
    assert sorted(row[0] for row in cells(page, "classes")) == sorted(NASTY)
    assert html.unescape(re.findall(r'class="name">(.*?)<', page)[0]) == f"{FILE} 2"


def test_the_page_asks_nobody_for_anything(tmp_path):
    page = page_of(tmp_path, two_classes(), ["cat", "dog"])
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "url(http" not in page and "@import" not in page and "<script" not in page
    assert "default-src 'none'" in page


def test_what_the_page_says(tmp_path):
    page = page_of(tmp_path, two_classes(), ["cat", "dog"], notes=["a note"])
    text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page.split("</head>")[1])))
    # 2 of 4 right: the Wilson interval of a half of 4 images is 0.5 ± 1.96 / (2 * sqrt(4 + 1.96²)).
    for words in (
        "75.00 % Accuracy on 4 unseen images", "2 of 4 unseen images have the right answer", "15.0 % and 85.0 %",
        "right for 75.0 %", "a note", "Expected calibration error 10.00 %", "Loss 0.1235",
        "8 training images and 4 test", "smallest 9 \N{MULTIPLICATION SIGN} 6", "1 h 1 min",
        "70, 0.11 s each", "3.4 % of a step", "1,234,567", "learning rate 1e-05",
    ):  # fmt: skip
        assert words in text, words
    assert cells(page, "confusion") == [["cat", "dog", "2 of 3"]]
    assert sorted(cells(page, "classes")) == [
        ["cat", "3", "100.0 %", "33.3 %", "50.0 %", ""],
        ["dog", "1", "33.3 %", "100.0 %", "50.0 %", ""],
    ]
    mistakes = page.split('id="mistakes"')[1].split("</section>")[0]
    assert re.findall(r"✗ dog ([\d.]+ %)", mistakes) == ["95.0 %", "60.0 %"] and mistakes.count("<img") == 2


def test_a_probe_has_no_curve_and_a_run_has_every_picture(tmp_path):
    for name, history in (("probe", []), ("full", HISTORY)):
        (tmp_path / name).mkdir()
        page = page_of(tmp_path / name, two_classes(), ["cat", "dog"], history, speed=name, timing={})
        assert ('id="training"' in page) == (name == "full")
    pictures = {"confusion_matrix.png", "calibration.png", "predictions.png"}
    assert {path.name for path in (tmp_path / "probe").iterdir()} == {*pictures, "report.html"}
    assert {path.name for path in (tmp_path / "full").iterdir()} == {*pictures, "training_curve.png", "report.html"}


def test_label_sets(tmp_path):
    truth = [[1, 0, 1], [0, 0, 0], [1, 1, 0]]
    answers = answers_of([[0.9, 0.1, 0.2], [0.3, 0.99, 0.0], [0.8, 0.7, 0.4]], truth)
    history = [{"eval_loss": 0.5, "eval_mean_average_precision": 0.5, "epoch": 1.0}]
    page = page_of(tmp_path, answers, ["sky", "sea", "sand"], history)
    assert answers.right.tolist() == [False, False, True] and "Mean average precision" in page
    mistakes = page.split('id="mistakes"')[1].split("</section>")[0]
    assert re.findall(r"✗ (.*?)<", mistakes) == ["wrongly: sea 99.0 %", "missed: sand 20.0 %"]
    assert "answer: sky<" in mistakes and "truth: sky, sand<" in mistakes and "truth: none<" in mistakes
    assert {path.name for path in tmp_path.iterdir()} == {"training_curve.png", "predictions.png", "report.html"}


def test_a_thousand_classes_and_no_mistake(tmp_path):
    labels = [f"class {number}" for number in range(1000)]
    truth = np.arange(1000).repeat(2)
    page = page_of(tmp_path, answers_of(0.9 * np.eye(1000)[truth], truth), labels)
    assert len(cells(page, "classes")) == 1000 and "There is none among 2000 unseen images" in page
    assert page.count("<text") < 200 and len(page) < 2_000_000


def test_numbers_are_in_the_matrix_and_text_in_svg_takes_the_colours_of_the_page():
    drawing = svg_of(confusion_matrix(np.array([[7, 2], [0, 123]]), NASTY), "a title")
    found = re.findall(r">([^<>]+)</text>", drawing)
    assert {"7", "2", "123"} <= set(found) and "0" not in found
    assert "var(--ink)" in drawing and "#1b1b1a" not in drawing and not re.search(r' id="\w+_\d+"', drawing)
    assert drawing == svg_of(confusion_matrix(np.array([[7, 2], [0, 123]]), NASTY), "a title")


@pytest.mark.parametrize(("size", "kind"), [((28, 28), "png"), ((129, 30), "jpeg"), ((3000, 2000), "jpeg")])
def test_small_pictures_are_exact_and_large_ones_are_reduced(size, kind):
    uri = data_uri(Image.effect_noise(size, 50))
    assert uri.startswith(f"data:image/{kind};base64,") and len(uri) < 150_000


def test_the_table_of_epochs_has_the_columns_there_are(capsys):
    table, state = EpochTable("validation"), SimpleNamespace(global_step=0, max_steps=2, is_world_process_zero=True)
    table.on_train_begin(None, state, None)
    for entry in HISTORY[:4]:
        table.on_log(None, state, None, logs=dict(entry))
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert re.split(r"\s{2,}", lines[0]) == [
        "epoch", "train loss", "validation loss", "accuracy", "macro-F1", "learning rate", "seconds",
    ]  # fmt: skip
    assert [line.split() for line in lines[1:]] == [
        ["1", "0.9000", "0.8000", "50.00%", "0.4000", "1.0e-03", "0"],
        ["2", "0.5000", "0.6000", "75.00%", "0.7000", "5.0e-04", "0"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_another_process_than_the_first_prints_no_table(capsys):
    table, state = EpochTable(), SimpleNamespace(global_step=0, max_steps=2, is_world_process_zero=False)
    table.on_train_begin(None, state, None)
    table.on_log(None, state, None, logs=dict(HISTORY[1]))
    assert capsys.readouterr().out == ""


def test_the_summary_names_the_files_there_are(tmp_path, capsys):
    (tmp_path / "report.html").touch()
    summary(tmp_path, [Prediction(None, "cat", "dog", 0.6)], record_of(["cat", "dog"]))
    printed = capsys.readouterr().out
    assert "accuracy 75.00 %" in printed and "wrong, it is cat" in printed and "1 h 1 min" in printed
    assert str(tmp_path / "report.html") in printed and "training_curve.png" not in printed


@pytest.mark.parametrize(("speed", "words"), [("probe", "Trained by a probe"), ("lora", "by LoRA"), ("full", "AdamW")])
def test_the_card_says_how_it_was_trained_and_where_the_report_is(speed, words, tmp_path):
    model_of("hf_swin").save_pretrained(tmp_path)
    scores = {"accuracy": 0.9, "top_5_accuracy": 0.99, "macro_f1": 0.8, "expected_calibration_error": 0.02, "loss": 0.3}
    record = record_of(["cat", "dog"], speed, scores=scores, notes=["a note"])
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    assert "report.html" not in model_card(tmp_path, "user/model").text
    (tmp_path / "report.html").touch()
    card = model_card(tmp_path, "user/model")
    assert words in card.text and ("AdamW" in card.text) == (speed != "probe") and "- a note" in card.text
    assert "[report.html](report.html)" in card.text and "| Top-5 accuracy | digits, test | 0.9900 |" in card.text
    assert "8 training images and 4 test images in 2 classes: `cat`, `dog`." in card.text
    assert {result.metric_name for result in card.data.eval_results} == {
        "Accuracy", "Top-5 accuracy", "Macro F1", "Expected calibration error",
    }  # fmt: skip
