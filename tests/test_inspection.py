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
"""What one look at every image finds: numbers worked out by hand, bad files of each kind, leaks across formats."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_swin.data import load_images, with_validation
from hf_swin.errors import UserError
from hf_swin.inspection import describe, look_at


def noise(seed, size=(20, 16), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def look(path):
    return look_at({"bytes": None, "path": str(path)})


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


@pytest.fixture
def splits(tmp_path):
    """Ants and bees: 3 + 2 to train on, 1 + 1 for validation, 1 + 2 to test; seeds tell pictures apart."""
    plan = {
        "train/ant": (0, 1, 2),
        "train/bee": (3, 4),
        "val/ant": (5,),
        "val/bee": (6,),
        "test/ant": (7,),
        "test/bee": (8, 9),
    }
    for folder, seeds in plan.items():
        for seed in seeds:
            save(tmp_path / folder / f"{seed}.png", noise(seed))
    return tmp_path


def test_the_same_picture_has_one_hash_in_every_lossless_format(tmp_path):
    files = [save(tmp_path / f"a.{suffix}", noise(0)) for suffix in ("png", "bmp", "ppm", "tiff")]
    files.append(save(tmp_path / "a.webp", noise(0), lossless=True))
    files.append(save(tmp_path / "alpha.png", noise(0).convert("RGBA")))
    assert len({look(file).hash for file in files}) == 1
    assert [look(file).mode for file in files] == ["RGB"] * 5 + ["RGBA"]
    in_memory = look_at({"bytes": files[0].read_bytes(), "path": "gone.png"})
    assert in_memory == look(files[0])


def test_another_picture_or_another_shape_has_another_hash(tmp_path):
    black = [save(tmp_path / f"{width}.png", Image.new("L", (width, 24 // width))) for width in (2, 4, 6, 12)]
    almost = noise(0)
    almost.putpixel((3, 3), tuple((value + 1) % 256 for value in almost.getpixel((3, 3))))
    others = [save(tmp_path / "one.png", noise(0)), save(tmp_path / "almost.png", almost)]
    assert len({look(file).hash for file in black + others}) == 6


def test_a_photo_is_seen_upright_as_training_sees_it(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    turned = save(tmp_path / "turned.png", noise(0).rotate(90, expand=True), exif=exif)
    upright = save(tmp_path / "upright.png", noise(0))
    assert look(turned) == look(upright)
    assert look(turned).size == (16, 20)


def bomb(path):
    Image.new("1", (20_000, 20_000)).save(path)


def truncated(path):
    noise(0, (64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


BAD = {
    "text": lambda path: path.write_text("hello"),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "bomb": bomb,
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
    "header": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_decoded_is_bad(tmp_path, kind):
    BAD[kind](tmp_path / "bad.png")
    assert look(tmp_path / "bad.png") is None
    assert look_at(None) is None


def test_bad_files_of_all_splits_are_counted_or_left_out(splits):
    for folder in ("train/ant", "val/bee", "test/bee"):
        truncated(splits / folder / "zz.png")
    with pytest.raises(UserError, match=r"zz\.png \(and 2 more\) is not a readable image.*--skip-bad"):
        load_images(splits)
    images = load_images(splits, skip_bad=True)
    assert sorted(images.summary["skipped"]) == sorted(map(str, splits.glob("*/*/zz.png")))
    assert images.summary["images"] == {"train": 5, "validation": 2, "test": 3}
    for split in (images.train, images.validation, images.test):
        for row in split:
            assert look(row["name"]).hash == row["hash"]


def test_a_split_of_bad_files_alone_is_named(splits):
    for file in splits.glob("test/*/*"):
        file.write_text("no image")
    with pytest.raises(UserError, match="the test split has no readable image"):
        load_images(splits, skip_bad=True)


def test_bad_rows_of_a_dataset_are_named_by_their_number(tmp_path):
    pictures = [noise(seed) for seed in range(8)]
    rows = {"image": [*pictures[:5], {"bytes": b"no", "path": None}, None, *pictures[5:]], "label": [0, 1] * 5}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "set")
    images = load_images(tmp_path / "set", skip_bad=True)
    assert images.summary["skipped"] == ["row 5 of 'train'", "row 6 of 'train'"]
    kept = {
        name: np.asarray(row["image"])
        for split in (images.train, images.test)
        for row in split
        for name in [row["name"]]
    }
    assert sorted(kept) == [f"row {row} of 'train'" for row in (0, 1, 2, 3, 4, 7, 8, 9)]
    np.testing.assert_array_equal(kept["row 7 of 'train'"], np.asarray(pictures[5]))


def test_the_summary_counts_splits_classes_sizes_and_modes(splits):
    save(splits / "train/ant/grey.png", noise(20, (30, 10), "L"))
    save(splits / "test/bee/wide.png", noise(21, (50, 40)))
    images = load_images(splits)
    assert images.summary == {
        "images": {"train": 6, "validation": 2, "test": 4},
        "classes": {"ant": {"train": 4, "validation": 1, "test": 1}, "bee": {"train": 2, "validation": 1, "test": 3}},
        "sizes": {"smallest": [10, 30], "median": [16, 20], "largest": [40, 50]},
        "modes": {"RGB": 11, "L": 1},
        "skipped": [],
        "leaks": [],
    }
    assert json.loads(json.dumps(images.summary)) == images.summary
    assert images.smallest == (10, 30)


def test_without_validation_its_counts_are_zero(tmp_path):
    for name in ("ant", "bee"):
        for seed in range(10):
            save(tmp_path / name / f"{seed}.png", noise(seed + 10 * (name == "bee")))
    summary = load_images(tmp_path).summary
    assert summary["images"] == {"train": 16, "validation": 0, "test": 4}
    assert summary["classes"]["bee"] == {"train": 8, "validation": 0, "test": 2}


def test_the_same_picture_in_two_splits_is_a_leak_whatever_its_format(splits):
    leaks = [
        (splits / "train/ant/0.png", save(splits / "val/ant/copy.bmp", noise(0))),
        (splits / "train/bee/3.png", save(splits / "test/ant/other_class.tiff", noise(3))),
        (splits / "val/bee/6.png", save(splits / "test/bee/again.png", noise(6).convert("RGBA"))),
    ]
    save(splits / "train/ant/twice_in_train.png", noise(0))
    images = load_images(splits)
    assert images.summary["leaks"] == [[str(first), str(second)] for first, second in leaks]
    assert images.summary["images"] == {"train": 6, "validation": 3, "test": 5}


def test_with_validation_keeps_leaks_where_they_are_now(tmp_path):
    for seed in range(40):
        save(tmp_path / "train" / "ab"[seed % 2] / f"{seed}.png", noise(seed))
        save(tmp_path / "test" / "ab"[seed % 2] / f"{seed}.bmp", noise(seed))
    images = with_validation(load_images(tmp_path))
    held = set(images.validation["name"])
    assert len(held) == 4
    assert len(images.summary["leaks"]) == 40
    assert {first for first, _ in images.summary["leaks"]} == held | set(images.train["name"])


def test_what_is_printed_before_training(splits):
    save(splits / "val/ant/copy.bmp", noise(0))
    for number in range(7):
        (splits / "train/ant" / f"bad{number}.png").write_text("no")
    first, classes, sizes, skipped, leaks = describe(load_images(splits, skip_bad=True))
    assert first == f"{splits.name}: train 5 images, validation 3 images, test 3 images; 2 classes"
    assert classes.endswith("per class: ant 3, bee 2")
    assert sizes.endswith("all 20x16; modes: RGB 11")
    assert "left out 7 file(s)" in skipped and skipped.endswith("bad4.png and 2 more")
    assert "1 picture(s) are in two splits" in leaks and leaks.endswith(
        "train/ant/0.png = " + str(splits / "val/ant/copy.bmp")
    )


def test_many_classes_are_told_by_the_smallest_and_the_largest(tmp_path):
    for number in range(11):
        for copy in range(2 + number):
            save(tmp_path / "train" / f"class {number}" / f"{copy}.png", noise(100 * number + copy))
    save(tmp_path / "test" / "class 0" / "big.png", noise(-1 % 10**6, (90, 40)))
    lines = describe(load_images(tmp_path))
    assert lines[1].endswith("per class: from 2 (class 0) to 12 (class 10)")
    assert lines[2].endswith("from 20x16 to 90x40, median 20x16; modes: RGB 78")
    assert len(lines) == 3
