# Copyright 2026 The hf_swin authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Every kind of source becomes the same columns and splits, and every mistake one sentence."""

from zlib import crc32

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hf_swin.data import check_patch, load_images, with_validation
from hf_swin.errors import UserError
from hf_swin.transforms import to_rgb


MODES = {"grey": "L", "rgb": "RGB", "rgba": "RGBA", "palette": "P"}


def picture(mode="RGB", size=(40, 36), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    pixels[..., 3] = 255
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Two classes with a PNG of every mode and a JPEG, twice, all of different pixels."""
    for start, name in enumerate(("zebra", "ant")):
        (tmp_path / name).mkdir()
        for copy in range(2):
            for number, (kind, mode) in enumerate(MODES.items()):
                picture(mode, seed=100 * start + 10 * copy + number).save(tmp_path / name / f"{kind}{copy}.png")
            picture(seed=100 * start + 10 * copy).save(tmp_path / name / f"photo{copy}.jpg")
    (tmp_path / "ant" / ".DS_Store").write_text("not seen")
    return tmp_path


def rows(count, label=lambda index: index % 2):
    return {"image": [picture(seed=index) for index in range(count)], "label": [label(index) for index in range(count)]}


def test_digits_are_scikit_learns_in_a_fixed_stratified_split():
    images = load_images("digits")
    again = load_images("digits")
    assert (len(images.train), len(images.test)) == (1437, 360)
    assert images.test["label"][:] == again.test["label"][:]
    assert images.labels == list("0123456789")
    together = np.bincount(images.train["label"][:]) + np.bincount(images.test["label"][:])
    np.testing.assert_array_equal(together, np.bincount(load_digits().target))
    assert np.ptp(np.bincount(images.test["label"][:])) <= 2
    assert images.train[0]["image"].size == (32, 32)
    assert (images.name, images.image_size, images.smallest) == ("digits", 32, (32, 32))
    numbers = [int(name.removeprefix("digit ")) for name in images.test["name"]]
    assert images.test["label"][:] == load_digits().target[numbers].tolist()
    assert images.summary["leaks"] == []


def test_a_folder_of_every_mode_gives_pictures_and_sorted_labels(folder):
    images = load_images(folder)
    assert (images.labels, images.multi_label, images.validation) == (["ant", "zebra"], False, None)
    assert (len(images.train), len(images.test)) == (16, 4)
    assert sorted(images.test["label"][:]) == [0, 0, 1, 1]
    assert (images.smallest, images.image_size, images.name) == ((36, 40), 32, folder.name)
    assert set(images.train.column_names) == {"image", "label", "name", "hash"}
    for row in images.train:
        assert row["name"] == row["image"].filename
        assert images.labels[row["label"]] in row["name"]
        assert to_rgb(row["image"]).size == (40, 36)


def test_the_same_folder_gives_the_same_split(folder):
    first, second = load_images(folder), load_images(str(folder))
    names = [[row["image"].filename for row in images.test] for images in (first, second)]
    assert names[0] == names[1]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_that_is_not_an_image_is_named_or_skipped(folder, suffix):
    bad = folder / "ant" / f"broken.{suffix}"
    bad.write_text("hello")
    with pytest.raises(UserError, match=rf"broken\.{suffix} is not a readable image.*--skip-bad"):
        load_images(folder)
    images = load_images(folder, skip_bad=True)
    assert images.summary["skipped"] == [str(bad)]
    assert len(images.train) + len(images.test) == 20


def test_a_truncated_image_is_bad_too(folder):
    whole = (folder / "ant" / "photo0.jpg").read_bytes()
    (folder / "ant" / "photo0.jpg").write_bytes(whole[: len(whole) // 2])
    assert load_images(folder, skip_bad=True).summary["skipped"] == [str(folder / "ant" / "photo0.jpg")]


def test_a_class_of_bad_files_alone_cannot_be_learnt(folder):
    (folder / "bee").mkdir()
    (folder / "bee" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="class 'bee' has 0 readable"):
        load_images(folder, skip_bad=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere", "nowhere is not a folder"),
        (lambda path: path, "no sub-folder"),
        (lambda path: (path / "only").mkdir() or path, "only the sub-folder 'only'"),
        (lambda path: [(path / name).mkdir() for name in "ab"] and path, "a holds no image"),
        (lambda path: (path / "file").write_text("") or path / "file", "file is not a folder"),
        (lambda path: path / "no.csv", r"no\.csv cannot be opened \(No such file"),
    ],
)
def test_a_wrong_folder_is_named(tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        load_images(make(tmp_path))


def test_a_name_that_no_hub_knows_is_named():
    with pytest.raises(UserError, match="'no-such-owner/no-such-set' is neither a folder"):
        load_images("no-such-owner/no-such-set")


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_missing_column_is_named_with_the_columns_there_are(tmp_path, column):
    datasets.Dataset.from_dict(rows(10)).rename_column(column, "other").save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match=rf"no column '{column}' but .*other.*--{column}-column"):
        load_images(tmp_path / "set")
    assert len(load_images(tmp_path / "set", **{f"{column}_column": "other"}).train) == 8


def test_a_column_without_images_is_named(tmp_path):
    datasets.Dataset.from_dict({**rows(10), "number": list(range(10))}).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match=r"'number' holds .*not images"):
        load_images(tmp_path / "set", image_column="number")


def test_a_saved_dataset_with_string_labels_is_split_and_sorted(tmp_path):
    saved = datasets.Dataset.from_dict(rows(20, lambda index: "ba"[index % 2]))
    saved.save_to_disk(tmp_path / "set")
    images = load_images(tmp_path / "set")
    assert images.labels == ["a", "b"]
    assert (len(images.train), len(images.test)) == (16, 4)


def test_integer_labels_sort_as_numbers(tmp_path):
    datasets.Dataset.from_dict(rows(24, lambda index: (9, 10)[index % 2])).save_to_disk(tmp_path / "set")
    assert load_images(tmp_path / "set").labels == ["9", "10"]


def test_the_splits_and_label_order_of_a_saved_dictionary_are_kept(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["z", "a"])})
    train, validation = (datasets.Dataset.from_dict(rows(count), features) for count in (8, 6))
    datasets.DatasetDict(train=train, validation=validation).save_to_disk(tmp_path / "set")
    images = load_images(tmp_path / "set")
    assert images.labels == ["z", "a"]
    assert (len(images.train), len(images.test)) == (8, 6)


def test_a_parquet_folder_opens_as_on_the_hub(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict(rows(10), features).to_parquet(tmp_path / "train.parquet")
    assert len(load_images(tmp_path).train) == 8


def test_a_class_of_the_test_split_alone_is_named(tmp_path):
    train = datasets.Dataset.from_dict(rows(8, lambda index: "ab"[index % 2]))
    test = datasets.Dataset.from_dict(rows(4, lambda index: "ac"[index % 2]))
    datasets.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match="'c' is in the test split only"):
        load_images(tmp_path / "set")


def test_an_image_smaller_than_a_patch_is_named(folder):
    picture(size=(3, 50)).save(folder / "ant" / "thin.png")
    images = load_images(folder)
    check_patch(images, (4, 3))
    with pytest.raises(UserError, match="3x50 pixels, smaller than a patch of 4x4"):
        check_patch(images, 4)


def write(path, *files):
    """Write pictures that all differ, `train/ant/0.png` for example, under `path`."""
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed=crc32(name.encode())).save(path / name)
    return path


def members(split, classes=("ant", "bee"), copies=2, suffix="png"):
    return [f"{split}/{name}/{copy}.{suffix}" for name in classes for copy in range(copies)]


def counts(images):
    return {name: len(split) if (split := getattr(images, name)) else None for name in ("train", "validation", "test")}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val", "test"), {"train": 6, "validation": 4, "test": 2}),
        (("Train", "valid", "test"), {"train": 6, "validation": 4, "test": 2}),
        (("training", "validation"), {"train": 6, "validation": None, "test": 4}),
        (("train", "dev"), {"train": 6, "validation": None, "test": 4}),
        (("train", "testing"), {"train": 6, "validation": None, "test": 4}),
        (("train",), {"train": 4, "validation": None, "test": 2}),
    ],
)
def test_folders_of_splits_are_told_by_their_names(tmp_path, folders, expected):
    for folder, copies in zip(folders, (3, 2, 1), strict=False):
        write(tmp_path, *members(folder, copies=copies))
    images = load_images(tmp_path)
    assert counts(images) == expected
    assert images.labels == ["ant", "bee"]
    if len(folders) > 1:
        held_out = images.test if images.validation is None else images.validation
        names = {name.removeprefix(f"{tmp_path}/") for name in held_out["name"]}
        assert names == set(members(folders[1]))


def test_a_held_out_split_may_lack_classes_and_numbers_them_as_train_does(tmp_path):
    write(tmp_path, *members("train", ("ant", "bee", "cow")), *members("test", ("cow",)))
    images = load_images(tmp_path)
    assert (images.labels, images.test["label"][:]) == (["ant", "bee", "cow"], [2, 2])
    assert images.summary["classes"]["ant"] == {"train": 2, "validation": 0, "test": 0}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([*members("train"), *members("val", ("ant", "cow"))], "'cow' is in the validation split only"),
        ([*members("train"), *members("val"), *members("valid")], "two splits for validation, one of them 'valid'"),
        (
            [*members("train"), *members("holdout")],
            "the folder 'holdout' beside its splits: .* train, validation, test",
        ),
        ([*members("train", ("ant",)), *members("test")], "train holds only the sub-folder 'ant'"),
        (["train/0.png", "test/0.png"], "no sub-folder"),
    ],
)
def test_wrong_folders_of_splits_are_named(tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        load_images(write(tmp_path, *files))


def test_train_and_bus_are_classes(tmp_path):
    write(tmp_path, "train/0.png", "train/1.png", "bus/0.png", "bus/1.png")
    assert load_images(tmp_path).labels == ["bus", "train"]


def table(tmp_path, text, encoding="utf-8", copies=12):
    """A CSV file beside pictures called 0.png, 1.png and so on."""
    write(tmp_path, *(f"{copy}.png" for copy in range(copies)))
    (tmp_path / "list.csv").write_text(text, encoding=encoding)
    return tmp_path / "list.csv"


def lines(*rows, head="path,label"):
    return "\n".join([head, *rows]) + "\n"


@pytest.mark.parametrize("head", ["image,label", "path,label", "file,labels", " path , label ", "label_id,path,label"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_file_is_read_whatever_its_columns_are_called_and_windows_adds(tmp_path, head, encoding):
    before = "7," if head.startswith("label_id") else ""
    rows = [f"{before}{copy}.png,{'ba'[copy % 2]}" for copy in range(10)]
    images = load_images(table(tmp_path, lines(*rows, "", head=head), encoding))
    assert (images.labels, images.name) == (["a", "b"], "list")
    assert counts(images) == {"train": 8, "validation": None, "test": 2}
    for split in (images.train, images.test):
        for row in split:
            assert row["name"] == row["image"].filename
            assert row["label"] == (int(row["name"].split("/")[-1][0]) + 1) % 2


def test_other_columns_of_a_csv_file_are_named_by_options(tmp_path):
    file = table(tmp_path, lines(*(f"{copy}.png,x,{copy % 2}" for copy in range(10)), head="picture,label,kind"))
    with pytest.raises(UserError, match=r"no column 'image' but picture, label, kind: .*--image-column"):
        load_images(file)
    with pytest.raises(UserError, match=r"no column 'sort' but picture, label, kind: .*--label-column"):
        load_images(file, "picture", "sort")
    assert load_images(file, "picture", "kind").labels == ["0", "1"]


def test_paths_of_a_csv_file_may_hold_spaces_commas_umlauts_and_folders_or_be_absolute(tmp_path, monkeypatch):
    odd = ["my pictures/ä ö.png", "a,b.png", "sub/日本.png", "../else/c.png"]
    home = tmp_path / "home"
    write(home, *odd, "here.png")
    rows = [f'"{name}",{label}' for name, label in zip(odd, "xxyy", strict=True)]
    (home / "list.csv").write_text(lines(*rows, f"{home / 'here.png'}, y "), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    images = load_images("home/list.csv")
    assert (images.labels, len(images.train) + len(images.test)) == (["x", "y"], 5)


def test_integers_of_a_csv_file_sort_as_numbers_and_codes_stay_as_they_are(tmp_path):
    rows = [f"{copy}.png,{(9, 10)[copy % 2]}" for copy in range(8)]
    assert load_images(table(tmp_path, lines(*rows))).labels == ["9", "10"]
    rows = [f"{copy}.png,{('007', '10')[copy % 2]}" for copy in range(8)]
    assert load_images(table(tmp_path, lines(*rows))).labels == ["007", "10"]
    rows = [f"{copy}.png,{('NA', 'None')[copy % 2]}" for copy in range(8)]
    assert load_images(table(tmp_path, lines(*rows))).labels == ["NA", "None"]


def test_a_split_column_says_where_a_row_belongs(tmp_path):
    words = ["train"] * 6 + ["val", "Validation", "test", "test"]
    rows = [f"{copy}.png,{'ab'[copy % 2]},{word}" for copy, word in enumerate(words)]
    images = load_images(table(tmp_path, lines(*rows, head="path,label,split")))
    assert counts(images) == {"train": 6, "validation": 2, "test": 2}
    assert [name[-5] for name in images.test["name"]] == ["8", "9"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.csv lists no image"),
        ("path,label\n", "list.csv lists no image"),
        (lines("0.png,a"), "only class is a"),
        (lines("0.png,a", "1.png"), r"1 cell\(s\) in row 2, not 2: quote"),
        (lines("0.png,a", "1.png,b", "2.png,"), r"2\.png has no label"),
        (
            lines("0.png,a,train", "1.png,b,trian", head="path,label,split"),
            "'trian' in the column 'split': .* train, val",
        ),
        (lines("0.png,a,val", "1.png,b,test", head="path,label,split"), "splits validation, test: .* 'train'"),
        (lines("0.png;a", head="path;label"), "no column 'image' but path;label"),
        (lines("0.png,a", "1.png,a", "2.png,b"), "class 'b' has 1 readable .* two or more"),
    ],
)
def test_mistakes_in_a_csv_file_are_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_images(table(tmp_path, text))


def test_a_csv_file_in_another_encoding_is_named(tmp_path):
    with pytest.raises(UserError, match=r"list\.csv is not a CSV file in UTF-8"):
        load_images(table(tmp_path, lines("0.png,ä"), encoding="latin-1"))


def test_a_file_that_a_csv_file_lists_and_nobody_has_is_an_unreadable_image(tmp_path):
    rows = [f"{copy}.png,{'ab'[copy % 2]}" for copy in range(10)]
    file = table(tmp_path, lines(*rows, "gone.png,a", ",b"))
    with pytest.raises(UserError, match=r"gone\.png \(and 1 more\) is not a readable image"):
        load_images(file)
    images = load_images(file, skip_bad=True)
    assert images.summary["skipped"] == [str(tmp_path / "gone.png"), "row 11 of 'train'"]
    assert counts(images) == {"train": 8, "validation": None, "test": 2}


def test_rows_of_several_labels_make_a_csv_file_multi_label(tmp_path):
    cells = ["cat|dog", "dog", " cat | dog ", "", "bird", "bird|cat", "dog", "cat", "", "bird"]
    words = ["train"] * 6 + ["test"] * 4
    rows = [f"{copy}.png,{cell},{word}" for copy, (cell, word) in enumerate(zip(cells, words, strict=True))]
    images = load_images(table(tmp_path, lines(*rows, head="path,label,split")))
    assert (images.labels, images.multi_label) == (["bird", "cat", "dog"], True)
    assert images.train["label"][:] == [[1, 2], [2], [1, 2], [], [0], [0, 1]]
    assert images.test["label"][:] == [[2], [1], [], [0]]
    assert images.summary["classes"]["cat"] == {"train": 3, "validation": 0, "test": 1}
    assert images.train.features["label"].feature.names == images.labels


@pytest.mark.parametrize(
    ("kind", "rows", "labels", "numbers"),
    [
        (datasets.Value("int64"), [[9, 10], [10], []], ["9", "10"], [[0, 1], [1], []]),
        (datasets.Value("string"), [["b", "a"], ["b"], []], ["a", "b"], [[1, 0], [1], []]),
        (datasets.ClassLabel(names=["z", "a"]), [[0, 1], [1], []], ["z", "a"], [[0, 1], [1], []]),
    ],
    ids=["integers", "strings", "ClassLabel"],
)
def test_a_saved_dataset_of_lists_is_multi_label(tmp_path, kind, rows, labels, numbers):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.List(kind)})
    columns = {"image": [picture(seed=seed) for seed in range(3)], "label": rows}
    held_out = {"image": [picture(seed=seed) for seed in range(3, 6)], "label": [[], [], []]}
    splits = {"train": columns, "test": held_out}
    saved = {name: datasets.Dataset.from_dict(split, features) for name, split in splits.items()}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "set")
    images = load_images(tmp_path / "set")
    assert (images.labels, images.multi_label) == (labels, True)
    assert images.train["label"][:] == numbers
    assert images.test["label"][:] == [[], [], []]


def saved_lists(path, train, names=None):
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("string")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.List(kind)})
    columns = {"image": [picture(seed=seed) for seed in range(len(train))], "label": train}
    datasets.Dataset.from_dict(columns, features).save_to_disk(path / "set")
    return path / "set"


def test_a_label_that_no_image_to_train_on_has_is_named(tmp_path):
    path = saved_lists(tmp_path, [[0], [0, 1], [1], [0]], ["a", "b", "c"])
    with pytest.raises(UserError, match=r"'c' has 0 readable .* one or more"):
        load_images(path)


def test_zeros_and_ones_are_not_taken_for_a_list_of_classes(tmp_path):
    path = saved_lists(tmp_path, [["0", "1", "0"], ["1", "0", "0"]])
    with pytest.raises(UserError, match="row 0 of 'train' has the label '0' twice"):
        load_images(path)


def test_a_test_split_with_secret_labels_is_no_test_split(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    splits = {"train": rows(8), "validation": rows(4), "test": rows(4, lambda index: -1)}
    saved = {name: datasets.Dataset.from_dict(split, features) for name, split in splits.items()}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "set")
    assert counts(load_images(tmp_path / "set")) == {"train": 8, "validation": None, "test": 4}


def test_the_names_of_held_out_classes_count_and_not_their_numbers(tmp_path):
    names = {"train": ["a", "b"], "test": ["b", "a"]}
    features = {
        split: datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=order)})
        for split, order in names.items()
    }
    saved = {split: datasets.Dataset.from_dict(rows(6), features[split]) for split in names}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "set")
    assert load_images(tmp_path / "set").test["label"][:] == [1, 0, 1, 0, 1, 0]


def test_a_saved_dictionary_without_a_split_to_train_on_is_named(tmp_path):
    saved = {name: datasets.Dataset.from_dict(rows(6)) for name in ("validation", "test")}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match="splits validation, test: call the one to train on 'train'"):
        load_images(tmp_path / "set")


def test_a_missing_label_is_named_by_its_row(tmp_path):
    columns = rows(8, lambda index: None if index == 5 else "ab"[index % 2])
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "set")
    with pytest.raises(UserError, match="row 5 of 'train' has no label"):
        load_images(tmp_path / "set")


def test_with_validation_sets_a_fixed_stratified_tenth_apart():
    images = load_images("digits")
    first, second = with_validation(images), with_validation(images)
    assert counts(first) == {"train": 1293, "validation": 144, "test": 360}
    assert first.validation["name"][:] == second.validation["name"][:]
    assert first.test["name"][:] == images.test["name"][:]
    names = [set(split["name"]) for split in (first.train, first.validation, first.test)]
    assert len(set.union(*names)) == 1797
    whole = np.bincount(images.train["label"][:])
    np.testing.assert_allclose(np.bincount(first.validation["label"][:]), whole / 10, atol=1)
    assert first.summary["images"] == {"train": 1293, "validation": 144, "test": 360}
    assert sum(counts["validation"] for counts in first.summary["classes"].values()) == 144
    assert first.summary["sizes"] == images.summary["sizes"]
    assert with_validation(first) is first


def test_with_validation_leaves_the_last_image_of_a_class_to_train(tmp_path):
    write(tmp_path, *(f"ant/{copy}.png" for copy in range(40)), "bee/0.png", "bee/1.png")
    images = with_validation(load_images(tmp_path))
    assert sum(images.summary["classes"]["bee"].values()) == 2
    assert images.summary["classes"]["bee"]["train"] >= 1
    assert images.summary["images"]["validation"] == 4


def test_too_few_images_to_set_some_apart_are_named(tmp_path):
    write(tmp_path, *members("train", copies=2)[:2], "train/bee/0.png", "train/bee/1.png")
    images = load_images(tmp_path)
    with pytest.raises(UserError, match="too few to set some apart"):
        with_validation(images)


def test_several_labels_are_split_by_the_rarest_and_none_is_lost(tmp_path):
    """100 rows: all have `often`, every second `half`, every tenth `tenth` and one alone `once`."""
    several = [
        ["often", *["half"] * (row % 2 == 0), *["tenth"] * (row % 10 == 0), *["once"] * (row == 7)]
        for row in range(100)
    ]
    images = load_images(saved_lists(tmp_path, several))
    again = load_images(tmp_path / "set")
    assert images.test["name"][:] == again.test["name"][:]
    assert counts(images) == {"train": 80, "validation": None, "test": 20}
    found = {label: counts["test"] for label, counts in images.summary["classes"].items()}
    assert found == {"half": 10, "often": 20, "once": 0, "tenth": 2}


def test_a_label_that_two_strata_could_lose_stays_in_train(tmp_path):
    """One row of each stratum `a`, `b` is set apart: in every second of ten trials both rows of an `x`, or of a `y`."""
    pairs = [[f"{stratum}{trial}", f"{label}{trial}"] for trial in range(10) for stratum in "ab" for label in "xy"]
    images = load_images(saved_lists(tmp_path, pairs))
    assert all(counts["train"] >= 1 for counts in images.summary["classes"].values())
    assert 10 <= len(images.test) < 20 and len(images.train) + len(images.test) == 40


def test_copies_of_a_picture_stay_on_one_side_of_our_own_split(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(10):
            for suffix in ("png", "bmp"):
                picture(seed=number + 50 * (name == "bee")).save(tmp_path / name / f"{number}.{suffix}")
    images = load_images(tmp_path)
    assert counts(images) == {"train": 32, "validation": None, "test": 8}
    assert not set(images.train["hash"]) & set(images.test["hash"])
    assert images.summary["leaks"] == with_validation(images).summary["leaks"] == []
