"""`hf-swin predict` and `hf-swin evaluate`: the numbers of the pipeline and of scikit-learn, and whole files."""

import csv
import json
import math

import numpy as np
import pytest
import torch
import transformers
import typer
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image
from sklearn import metrics as sk
from transformers import ConvNextConfig, ConvNextForImageClassification, ConvNextImageProcessor, ViTImageProcessor
from typer.testing import CliRunner

from hf_swin.data import ImageData
from hf_swin.errors import UserError
from hf_swin.inference import classify, open_classifier, protocol, resize_to
from hf_swin.predict import answers, find_pictures, predict
from hf_swin.scoring import evaluate, match_labels, score

from tiny import STOCK, model_of


LABELS = ["ant", "bee", "cat", "dog", "eel"]
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: number for number, name in enumerate(LABELS)}}
app = typer.Typer()
app.command()(predict)
app.command()(evaluate)
PROCESSORS = {
    "square": ViTImageProcessor(size={"height": 32, "width": 32}),
    "crop": ViTImageProcessor(size={"shortest_edge": 40}, do_center_crop=True, crop_size={"height": 32, "width": 32}),
    "any shape": ViTImageProcessor(size={"shortest_edge": 32}),
}


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def saved(folder, processor="square", **overrides):
    model = model_of("hf_vit", **{**NAMES, **overrides})
    model.save_pretrained(folder)
    PROCESSORS[processor].save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("model"))


def noise(seed, height, width, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """One picture of every mode and shape, and a photograph that lies on its side."""
    folder = tmp_path_factory.mktemp("pictures")
    rgb = Image.fromarray(noise(0, 50, 70))
    for number, mode in enumerate(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"]):
        base = rgb.resize((30 + 9 * number, 60 - 5 * number))
        suffix = {"CMYK": "tif", "YCbCr": "tif", "PA": "tif", "I;16": "tif"}.get(mode, "png")
        picture = Image.fromarray(noise(1, 40, 30)[..., 0].astype(np.uint16)) if mode == "I;16" else base.convert(mode)
        picture.save(folder / f"{number}-{mode.replace(';', '')}.{suffix}")
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=exif)
    Image.fromarray(noise(2, 1, 300)).save(folder / "line.png")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_numbers_of_the_pipeline_for_every_mode_and_shape(processor, workers, pictures, tmp_path):
    saved(tmp_path, processor)
    files, others = find_pictures([pictures])
    assert len(files) == 12 and not others
    if processor == "any shape":
        files = [file for file in files if "line" not in file]  # 9600 pixels wide
    found = list(answers(*open_classifier(tmp_path), files, top_k=9, batch_size=5, workers=workers))
    pipe = transformers.pipeline("image-classification", model=str(tmp_path))
    assert [file for file, _ in found] == files
    for (file, ours), theirs in zip(found, pipe(files), strict=True):
        assert [answer["label"] for answer in ours] == [answer["label"] for answer in theirs], file
        scores = [[answer["score"] for answer in one] for one in (ours, theirs)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-5, err_msg=file)


def test_label_sets_are_all_above_one_half_or_the_top_k(pictures, tmp_path):
    saved(tmp_path, problem_type="multi_label_classification")
    files = find_pictures([pictures])[0]
    opened = open_classifier(tmp_path)
    pipe = transformers.pipeline("image-classification", model=str(tmp_path), top_k=5)
    found = [row for _, row in answers(*opened, files)]
    assert len({len(row) for row in found}) > 1, "a test that needs sets of several sizes"
    for ours, best, theirs in zip(found, answers(*opened, files, top_k=3), pipe(files), strict=True):
        likely = [answer for answer in theirs if answer["score"] > 0.5]
        assert [answer["label"] for answer in ours] == [answer["label"] for answer in likely]
        assert [answer["score"] for answer in ours] == pytest.approx([answer["score"] for answer in likely], abs=1e-5)
        assert [answer["label"] for answer in best[1]] == [answer["label"] for answer in theirs[:3]]


class Counted(list):
    """Pictures that count how many were opened."""

    opened = 0

    def __getitem__(self, number):
        self.opened += 1
        return super().__getitem__(number)


def test_no_more_than_a_batch_is_read_ahead_of_its_answers():
    images = Counted([Image.fromarray(noise(number, 20, 30)) for number in range(20)])
    batches = classify(model_of("hf_vit"), PROCESSORS["square"], images, batch_size=4)
    numbers, probabilities, unreadable = next(batches)
    assert images.opened == 4
    assert numbers == [0, 1, 2, 3] and probabilities.shape == (4, 5) and not unreadable
    assert sum(len(numbers) for numbers, _, _ in batches) == 16


def test_what_is_not_readable_is_told_and_the_rest_answered(tmp_path):
    good = Image.fromarray(noise(0, 20, 30))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    batches = classify(model_of("hf_vit"), PROCESSORS["square"], [good, tmp_path / "bad.png", good, tmp_path / "gone"])
    ((numbers, probabilities, unreadable),) = batches
    assert numbers == [0, 2] and unreadable == [1, 3]
    assert torch.equal(probabilities[0], probabilities[1])


@pytest.mark.parametrize("stock", [stock for stock in STOCK if "Classification" in stock.name], ids=str)
def test_stock_models_open_in_our_classes(stock, tmp_path):
    stock.build().save_pretrained(tmp_path)
    PROCESSORS["square"].save_pretrained(tmp_path)
    assert type(open_classifier(tmp_path)[0]).__name__ == stock.ours


def test_other_models_open_in_their_own_class_and_say_what_their_processor_does(tmp_path):
    config = ConvNextConfig(num_stages=2, depths=[1, 1], hidden_sizes=[8, 16], num_labels=3)
    ConvNextForImageClassification(config).save_pretrained(tmp_path)
    ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875).save_pretrained(tmp_path)
    model, processor = open_classifier(tmp_path, device_map="auto")
    steps = protocol(model, processor)
    assert isinstance(model, ConvNextForImageClassification)
    assert (steps["resize"], steps["crop_pct"], steps["device"]) == ("shortest edge 224", 0.875, str(model.device))


def test_a_device_map_and_a_precision_change_no_answer(model_folder, pictures):
    files = find_pictures([pictures])[0][:4]
    plain = next(classify(*open_classifier(model_folder), files))[1]
    mapped, processor = open_classifier(model_folder, device_map="auto")
    assert torch.allclose(next(classify(mapped, processor, files))[1], plain, atol=1e-6)
    half, processor = open_classifier(model_folder, dtype="bfloat16")
    assert protocol(half, processor)["dtype"] == "bfloat16"
    probabilities = next(classify(half, processor, files))[1]
    assert probabilities.dtype == torch.float32 and torch.allclose(probabilities, plain, atol=0.05)


@pytest.mark.parametrize(
    ("name", "resize", "crop", "shape"),
    [
        ("square", "64x64 (height x width)", None, (64, 64)),
        ("crop", "shortest edge 80", "centre 64x64 (height x width)", (64, 64)),
        ("any shape", "shortest edge 64", None, (64, 96)),
    ],
)
def test_another_image_size_scales_what_the_processor_does(name, resize, crop, shape):
    processor = type(PROCESSORS[name])(**PROCESSORS[name].to_dict())
    resize_to(processor, 64)
    steps = protocol(model_of("hf_vit"), processor)
    assert (steps["resize"], steps["crop"], steps["interpolation"]) == (resize, crop, "bilinear")
    assert steps["rescale"] == 1 / 255 and steps["mean"] == steps["std"] == [0.5] * 3
    pixels = processor(Image.new("RGB", (30, 20)), return_tensors="pt")["pixel_values"]
    assert pixels.shape[-2:] == shape


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        open_classifier(tmp_path)
    model_of("hf_vit", "Model").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not say how to prepare a picture"):
        open_classifier(tmp_path)
    PROCESSORS["square"].save_pretrained(tmp_path)
    with pytest.raises(UserError, match="lacks classifier"):
        open_classifier(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="does not open as an image classifier"):
        open_classifier(tmp_path)
    with pytest.raises(UserError, match="no labels"):
        open_classifier(saved(tmp_path, problem_type="regression"))


def rows_of(path):
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [(row["file"], row["label"], float(row["score"])) for row in csv.DictReader(file)]
    text = path.read_text()
    rows = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
    return [(row["file"], answer["label"], answer["score"]) for row in rows for answer in row["answers"]]


def test_predict_writes_the_same_answers_in_every_format(model_folder, pictures, tmp_path):
    found = []
    for suffix in (".csv", ".json", ".jsonl"):
        out = tmp_path / "new" / f"answers{suffix}"
        result = run("predict", model_folder, pictures, "--out", out, "--top-k", 2, "--workers", 0)
        assert result.exit_code == 0, result.output
        assert f"12 pictures answered in {out}" in result.output.replace("\n", "")
        found.append(rows_of(out))
    assert len(found[0]) == 24 and found[0] == found[1] == found[2]
    expected = answers(*open_classifier(model_folder), find_pictures([pictures])[0], top_k=2)
    assert found[0] == [(file, one["label"], pytest.approx(one["score"])) for file, row in expected for one in row]
    assert sorted(path.name for path in out.parent.iterdir()) == ["answers.csv", "answers.json", "answers.jsonl"]


@pytest.fixture
def mixed(tmp_path):
    """Two good pictures, one of them deep down, two broken ones, a text and what is hidden."""
    for path in ("a.png", "b/c/[d].JPG", ".hidden/e.png", ".f.png"):
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(0, 20, 30)).save(tmp_path / "in" / path)
    (tmp_path / "in" / "b" / "bad.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:300])
    (tmp_path / "in" / "empty.jpg").touch()
    (tmp_path / "in" / "notes.txt").touch()
    return tmp_path / "in"


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--skip-bad"], 0)])
def test_predict_names_unreadable_files_once_and_answers_the_others(options, code, model_folder, mixed, tmp_path):
    out = tmp_path / "answers.csv"
    result = run("predict", model_folder, mixed, "--out", out, "--workers", 0, *options)
    assert result.exit_code == code
    assert "not readable as pictures, 2 of 4:" in result.stderr
    assert result.output.count("bad.png") == result.output.count("empty.jpg") == 1
    assert "not those of pictures: 1" in result.output
    assert "[d].JPG" in result.stdout
    assert [row[0] for row in rows_of(out)] == [str(mixed / "a.png"), str(mixed / "b" / "c" / "[d].JPG")]


def test_predict_refuses_in_a_sentence(model_folder, mixed, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty").mkdir()
    for arguments, words in {
        (mixed, "--out", tmp_path / "answers.xls"): "end it in .csv or .json or .jsonl",
        (mixed, "--out", tmp_path / "folder.csv"): "is a folder",
        (mixed, "--out", mixed / "a.png" / "answers.csv"): "cannot be written",
        (tmp_path / "empty",): "no picture in",
        (tmp_path / "gone",): "is not there",
    }.items():
        result = run("predict", model_folder, *arguments, "--workers", 0)
        assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1, result.output
    result = run("predict", tmp_path / "nowhere", mixed)
    assert result.exit_code == 2 and "holds no model" in result.stderr


def test_predict_that_breaks_off_leaves_the_old_answers(model_folder, pictures, tmp_path, monkeypatch):
    out = tmp_path / "answers.csv"
    out.write_text("old")

    def broken(*arguments):
        yield [0], torch.rand(1, 5), []
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_swin.inference.classify", broken)
    result = run("predict", model_folder, pictures, "--out", out, "--workers", 0)
    assert result.exit_code == 130 and "interrupted; nothing was written" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"] and out.read_text() == "old"


def images_of(labels, names, multi_label=False):
    kind = List(Value("int64")) if multi_label else ClassLabel(names=names)
    features = Features({"image": ImageFeature(), "label": kind, "name": Value("string")})
    columns = {"image": [Image.fromarray(noise(row, 20 + row, 30)) for row in range(len(labels))], "label": labels}
    columns["name"] = [f"row {row}" for row in range(len(labels))]
    rows = Dataset.from_dict(columns, features=features)
    return ImageData("made up", rows, None, rows, names, multi_label, (20, 30), 32, {"skipped": []})


def test_scores_are_scikit_learn_whatever_the_order_of_the_labels(model_folder):
    names = ["dog", "cat", "bee", "ant"]  # the model has an eel, too, and another order
    truth = [row % 3 for row in range(24)]
    opened = open_classifier(model_folder)
    images = images_of(truth, names)
    result = score(*opened, images, batch_size=7)
    probabilities = torch.cat([batch[1] for batch in classify(*opened, images.test["image"])]).numpy()
    guess = [LABELS[number] for number in probabilities.argmax(1)]
    named = [names[number] for number in truth]
    assert result["scores"]["accuracy"] == sk.accuracy_score(named, guess) > 0
    assert result["scores"]["macro_f1"] == pytest.approx(sk.f1_score(named, guess, average="macro"))
    recall = sk.recall_score(named, guess, labels=names[:3], average=None)
    assert list(result["per_class_recall"].values()) == [*map(pytest.approx, recall), None]
    assert result["protocol"] | {"device": "cpu"} == {
        "split": "test",
        "images": 24,
        "labels": "by name, 4 of the model's 5",
        "skipped": 0,
        "resize": "32x32 (height x width)",
        "interpolation": "bilinear",
        "crop": None,
        "rescale": 1 / 255,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "device": "cpu",
        "dtype": "float32",
    }


@pytest.mark.parametrize("multi_label", [True, False])
def test_scores_of_label_sets(multi_label, tmp_path):
    opened = open_classifier(saved(tmp_path, problem_type="multi_label_classification"))
    names = LABELS[::-1]
    labels = [[row % 5, (row + 2) % 5][: 1 + row % 2] if multi_label else row % 5 for row in range(20)]
    images = images_of(labels, names, multi_label)
    truth = np.zeros((20, 5), int)
    for row, numbers in enumerate(labels):
        truth[row, [4 - number for number in np.atleast_1d(numbers)]] = 1
    probabilities = torch.cat([batch[1] for batch in classify(*opened, images.test["image"])]).numpy()
    result = score(*opened, images)
    assert result["scores"] == {
        "macro_f1": pytest.approx(sk.f1_score(truth, probabilities > 0.5, average="macro", zero_division=0)),
        "micro_f1": pytest.approx(sk.f1_score(truth, probabilities > 0.5, average="micro")),
        "mean_average_precision": pytest.approx(sk.average_precision_score(truth, probabilities)),
        "exact_match": pytest.approx(sk.accuracy_score(truth, probabilities > 0.5)),
    }
    assert "per_class_recall" not in result


def test_labels_are_matched_by_name_or_by_order_or_not_at_all(model_folder):
    named = model_of("hf_vit", **NAMES).config
    assert match_labels(LABELS, named) == ([0, 1, 2, 3, 4], "by name")
    assert match_labels(["eel", "bee"], named) == ([4, 1], "by name, 2 of the model's 5")
    with pytest.raises(UserError, match="no label 'cow', only ant, bee"):
        match_labels(["ant", "cow"], named)
    nameless = model_of("hf_vit").config
    assert match_labels(LABELS, nameless) == ([0, 1, 2, 3, 4], "by order, because the model does not name them")
    with pytest.raises(UserError, match="5 labels without names, the data 2"):
        match_labels(["ant", "bee"], nameless)
    twice = model_of("hf_vit", id2label={0: "crane", 1: "crane", 2: "a", 3: "b", 4: "c"}).config
    with pytest.raises(UserError, match="several labels 'crane'"):
        match_labels(["a", "crane"], twice)
    with pytest.raises(UserError, match="no split 'validation': choose one of train, test, all"):
        score(*open_classifier(model_folder), images_of([0, 1], ["ant", "bee"]), "validation")
    with pytest.raises(UserError, match="several labels an image, but the model chooses one"):
        score(*open_classifier(model_folder), images_of([[0], [1]], ["ant", "bee"], multi_label=True))


def test_evaluate_prints_the_protocol_and_writes_what_it_prints(model_folder, tmp_path):
    for number in range(20):
        path = tmp_path / "data" / LABELS[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number, 20, 30)).save(path)
    command = ["evaluate", model_folder, "--data", tmp_path / "data", "--workers", 0, "--image-size", 48]
    result = run(*command, "--out", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["protocol"]["images"] == 4 and written["protocol"]["resize"].startswith("48x48")
    for words in ("48x48 (height x width)", "bilinear", "0.5, 0.5, 0.5", "by name, 2 of the model's 5", "Macro F1"):
        assert words in result.output
    assert f"{written['scores']['accuracy']:.4f}" in result.output
    result = run(*command, "--split", "all", "--out", tmp_path / "scores.csv")
    assert result.exit_code == 0, result.output
    with (tmp_path / "scores.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["images"], line["split"], line["mean"]) == ("20", "all", "0.5 0.5 0.5")
    assert 0 <= float(line["accuracy"]) <= 1 and not math.isnan(float(line["expected_calibration_error"]))
    result = run(*command, "--split", "validation")
    assert result.exit_code == 2 and "no split 'validation'" in result.stderr
    result = run(*command, "--out", tmp_path / "scores.txt")
    assert result.exit_code == 2 and "end it in .json or .csv" in result.stderr
