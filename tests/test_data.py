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
"""Every kind of source becomes the same two columns, and every mistake one sentence."""

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from transformers import ViTImageProcessor

from hf_swin.data import check_patch, load_images
from hf_swin.transforms import preprocessing
from hf_swin.errors import UserError


MODES = {"grey": "L", "rgb": "RGB", "rgba": "RGBA", "palette": "P"}


def picture(mode="RGB", size=(40, 36), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    pixels[..., 3] = 255
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """Two classes with a PNG of every mode and a JPEG, twice."""
    for seed, name in enumerate(("zebra", "ant")):
        (tmp_path / name).mkdir()
        for copy in range(2):
            for kind, mode in MODES.items():
                picture(mode, seed=10 * seed + copy).save(tmp_path / name / f"{kind}{copy}.png")
            picture(seed=10 * seed + copy).save(tmp_path / name / f"photo{copy}.jpg")
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


def test_a_folder_of_every_mode_gives_rgb_pixels_and_sorted_labels(folder):
    images = load_images(folder)
    assert images.labels == ["ant", "zebra"]
    assert (len(images.train), len(images.test)) == (16, 4)
    assert sorted(images.test["label"][:]) == [0, 0, 1, 1]
    assert (images.smallest, images.image_size, images.skipped) == ((36, 40), 32, [])
    transform = preprocessing(ViTImageProcessor(size={"height": 32, "width": 32}))
    batch = images.train.with_transform(transform)[:]
    assert batch["pixel_values"].shape == (16, 3, 32, 32)
    assert batch["labels"] == images.train["label"][:]


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
    assert images.skipped == [str(bad)]
    assert len(images.train) + len(images.test) == 20


def test_a_truncated_image_is_bad_too(folder):
    whole = (folder / "ant" / "photo0.jpg").read_bytes()
    (folder / "ant" / "photo0.jpg").write_bytes(whole[: len(whole) // 2])
    assert load_images(folder, skip_bad=True).skipped == [str(folder / "ant" / "photo0.jpg")]


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
