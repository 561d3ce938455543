"""The catalogue against our own models, against timm and torchvision, and against what the atlas of formats counted."""

import functools
import pathlib

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2
from transformers import AutoImageProcessor, ViTImageProcessor

from hf_swin import (
    HfSwinConfig,
    HfSwinForImageClassification,
    HfSwinModel,
    HfSwinV2Config,
    HfSwinV2ForImageClassification,
    HfSwinV2Model,
    HfViTConfig,
    HfViTForImageClassification,
    HfViTModel,
)
from hf_swin.conversion import checkpoints, formats
from hf_swin.conversion.checkpoints import CHECKPOINTS, Preprocessing
from hf_swin.errors import UserError


FAMILIES = {
    "vit": (HfViTConfig, HfViTModel, HfViTForImageClassification),
    "swin": (HfSwinConfig, HfSwinModel, HfSwinForImageClassification),
    "swin_v2": (HfSwinV2Config, HfSwinV2Model, HfSwinV2ForImageClassification),
}
TIMM = [row for row in CHECKPOINTS if row.name.startswith("timm/")]


def family(row):
    return "swin_v2" if row.format.endswith("_swin_v2") else "swin" if row.format.endswith("_swin") else "vit"


def has_mask_token(row):
    """DINOv2 and SimMIM publish it; timm drops it."""
    return ("dinov2" in row.name or "simmim" in row.format or "simmim-" in row.name) and row not in TIMM


def told_by_weights(row):
    """The fields of our config that every file tells by its keys and shapes, so that the catalogue need not."""
    if family(row) != "vit":
        head = 24 if "c24" in row.name else 32
        heads = tuple(row.width * 2**stage // head for stage in range(4))
        return {"embed_dim": row.width, "depths": row.depth, "num_heads": heads}
    fields = {"hidden_size": row.width, "num_hidden_layers": row.depth, "intermediate_size": 4 * row.width}
    if "dinov2" in row.name:
        fields |= {"layerscale_value": 1.0, "pooling": "class_and_mean"}
        fields["num_register_tokens"] = 4 if "reg" in row.name else 0
        if row.width == 1536:
            fields |= {"use_swiglu_ffn": True, "intermediate_size": 4096}
    if is_deit3(row):
        fields["layerscale_value"] = 1.0
    if "distilled" in row.name:
        fields |= {"use_distillation_token": True, "use_distillation_head": True}
    if row.format == "big_vision":
        fields |= {"use_class_token": False, "pooling": "mean", "pooler": "always"}
        fields["position_embedding_type"] = "sinusoidal_2d"
    if row.name.startswith("imagenet21k/"):
        fields["pooler"] = "always"
    if row.name.startswith("google/") and row.name.endswith("-in21k"):
        fields["pooler"] = "model"
    return fields


def is_deit3(row):
    return row.format == "facebook_deit3" or row.name.startswith("timm/deit3")


@functools.cache
def our_count(kind, fields):
    config_class, model_class, classifier_class = FAMILIES[kind]
    config = config_class(**dict(fields))
    with torch.device("meta"):
        model = (classifier_class if config.num_labels else model_class)(config)
    return sum(parameter.numel() for parameter in model.parameters())


def hashable(value):
    return tuple(value) if isinstance(value, list) else value


def documented_difference(row):
    """What the publisher's model has beyond ours."""
    difference = row.width if has_mask_token(row) else 0
    if row.format == "torchvision_swin_v2":  # a bias of the keys that is always zero
        difference += sum(blocks * row.width * 2**stage for stage, blocks in enumerate(row.depth))
    if is_deit3(row) or "reg4_dinov2" in row.name:  # no position of the class token
        difference -= row.width
    return difference


def published_count(row):
    fields = {**row.numbers, **told_by_weights(row), "patch_size": row.patch_size, "num_labels": row.num_labels}
    count = our_count(family(row), tuple(sorted((key, hashable(value)) for key, value in fields.items())))
    return count + documented_difference(row)


def test_parameters_are_those_of_our_models():
    published = {row.name: row.parameters for row in CHECKPOINTS}
    assert published == {row.name: published_count(row) for row in CHECKPOINTS}


COUNTED = {
    "swin_tiny_patch4_window7_224.pth": 28_288_354,
    "swin_base_patch4_window12_384.pth": 87_903_584,
    "swin_large_patch4_window12_384_22kto1k.pth": 196_735_516,
    "swinv2_tiny_patch4_window16_256.pth": 28_347_154,
    "microsoft/swinv2-large-patch4-window12to24-192to384-22kto1k-ft": 196_739_932,
    "swin_v2_t-b137f0e2.pth": 28_347_154 + 4_416,
    "vit_h_14_lc_swag-c1eb923e.pth": 632_045_800,
    "deit_tiny_patch16_224-a1311bcf.pth": 5_717_416,
    "facebook/dinov2-giant": 1_136_480_768,
    "dinov2_vits14_pretrain.pth": 22_056_576,
}


@pytest.mark.parametrize(("name", "parameters"), COUNTED.items())
def test_parameters_are_those_counted_in_the_originals(name, parameters):
    assert checkpoints.find(name).parameters == parameters


@pytest.mark.parametrize(("size", "millions"), [("huge", 655), ("giant", 1060)])
def test_assumed_heads_of_simmim_give_the_published_size(size, millions):
    assert checkpoints.find(f"swinv2_{size}_1k_500k.pth").parameters / 1e6 == pytest.approx(millions, rel=2e-3)


def test_names_are_unique_and_none_ends_another():
    assert all(checkpoints.named(row.name) is row for row in CHECKPOINTS)
    assert len({row.name for row in CHECKPOINTS}) == len(CHECKPOINTS) > 450


FORMATS = """
transformers_vit transformers_deit transformers_dinov2 transformers_swin transformers_swin_v2
timm_vit timm_swin timm_swin_v2 torchvision_vit torchvision_swin torchvision_swin_v2
microsoft_swin microsoft_swin_v2 simmim_swin simmim_swin_v2 openmmlab_swin openmmlab_swin_v2
google_vit big_vision facebook_deit facebook_deit3 facebook_dino facebook_dinov2 facebook_mae
"""


def test_every_format_has_checkpoints():
    assert set(checkpoints.FORMATS) == set(FORMATS.split())
    assert set(checkpoints.FORMATS) <= set(formats.NAMES)


def test_numbers_agree_with_each_other():
    for row in CHECKPOINTS:
        recipe, image = row.preprocessing, row.numbers["image_size"]
        assert row.num_labels == checkpoints.LABELS.get(row.labels, 0), row
        assert row.licence in ("MIT", "Apache-2.0", "BSD-3-Clause", "CC-BY-NC-4.0"), row
        assert row.top1 is None or (row.labels == "imagenet-1k" and 70 < row.top1 < 90), row
        assert recipe.mean in checkpoints.MEAN_AND_STD and recipe.interpolation in ("bicubic", "bilinear"), row
        # DINOv2 was trained at 518 pixels last and is evaluated at 224.
        assert recipe.crop == image or (image, recipe.crop) == (518, 224), row
        assert recipe.resize is None or recipe.crop <= recipe.resize <= recipe.crop * 8 / 7, row
        assert image % row.patch_size == 0, row


def test_windows_fill_their_grids():
    for row in CHECKPOINTS:
        if family(row) == "vit":
            continue
        window, grids = row.numbers["window_size"], [row.numbers["image_size"] // 4 // 2**stage for stage in range(4)]
        windows = [window] * 4 if isinstance(window, int) else window
        if family(row) == "swin_v2":  # its config shrinks windows itself
            windows = list(map(min, windows, grids))
        assert all(grid % side == 0 for side, grid in zip(windows, grids, strict=True)), row
        assert windows[-1] == grids[-1], row


def test_swin_v2_that_was_pretrained_in_other_windows_says_so():
    """What changes a window is fine-tuned: `12to16` and `12to24`, OpenMMLab's copies of them, and SimMIM's."""
    moved = [row for row in CHECKPOINTS if "pretrained_window_sizes" in row.numbers]
    signs = ("12to", "in21k-pre", "finetune_swinv2")
    assert moved == [row for row in CHECKPOINTS if family(row) == "swin_v2" and any(s in row.name for s in signs)]
    assert all(row.numbers["pretrained_window_sizes"] == [12, 12, 12, 6] for row in moved)


def test_timm_says_the_same():
    for row in TIMM:
        theirs = timm.get_pretrained_cfg(row.name.removeprefix("timm/"))
        assert theirs.hf_hub_id == row.name and theirs.license == row.licence.lower()
        assert theirs.num_classes == row.num_labels and theirs.input_size[1] == row.numbers["image_size"], row
        recipe, normalisation = row.preprocessing, checkpoints.MEAN_AND_STD[row.preprocessing.mean]
        assert (theirs.mean, theirs.std) == tuple(map(tuple, normalisation)), row
        sides = (int(theirs.input_size[1] / theirs.crop_pct), theirs.input_size[1], theirs.interpolation)
        assert sides == (recipe.resize, recipe.crop, recipe.interpolation), row
        original = checkpoints.named(theirs.url or "")
        if original:
            assert (original.width, original.depth, original.num_labels) == (row.width, row.depth, row.num_labels), row


def test_torchvision_says_the_same():
    models = torchvision.models.list_models(include=["swin_*", "vit_*"])
    weights = [weight for model in models for weight in torchvision.models.get_model_weights(model)]
    assert len(weights) == sum(row.format.startswith("torchvision") for row in CHECKPOINTS)
    for theirs in weights:
        row, transforms = checkpoints.find(theirs.url), theirs.transforms()
        sides = (transforms.resize_size[0], transforms.crop_size[0], transforms.interpolation.value)
        assert (row.preprocessing.resize, row.preprocessing.crop, row.preprocessing.interpolation) == sides
        assert row.parameters == theirs.meta["num_params"]
        assert row.top1 == theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert (row.licence == "CC-BY-NC-4.0") == ("SWAG" in theirs.name)


def test_a_name_is_found_at_the_end_of_a_path_or_an_address():
    for path in ("weights/swin_t-704ceda3.pth", "https://download.pytorch.org/models/swin_t-704ceda3.pth"):
        assert checkpoints.named(path).name == "swin_t-704ceda3.pth"
    assert checkpoints.find("gs://vit_models/sam/ViT-B_16.npz").name == "sam/ViT-B_16.npz"
    assert checkpoints.named("ViT-B_16.npz") is None
    assert checkpoints.named("my_swin_t-704ceda3.pth") is None


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(UserError, match=r"'swin_tiny_patch4_window7.pth'; did you mean swin_tiny_patch4_window7_224"):
        checkpoints.find("swin_tiny_patch4_window7.pth")
    with pytest.raises(UserError, match=r"'ViT-B_16.npz'; did you mean imagenet21k/ViT-B_16.npz or .* or sam/"):
        checkpoints.find("ViT-B_16.npz")
    with pytest.raises(UserError, match="convert --list"):
        checkpoints.find("?")


def test_like_finds_every_row():
    for row in CHECKPOINTS:
        depth = list(row.depth) if isinstance(row.depth, tuple) else row.depth
        assert row in checkpoints.like(row.format, row.width, depth, row.patch_size, row.num_labels)
        assert row in checkpoints.like(None, row.width, depth, row.patch_size, row.num_labels)


def test_like_knows_variants_of_a_format_from_other_formats():
    tiny = (96, [2, 2, 6, 2], 4, 1000)
    assert {row.format for row in checkpoints.like("timm_swin", *tiny)} == {"timm_swin"}
    assert {row.format for row in checkpoints.like("timm_swin_v2", *tiny)} == {"timm_swin_v2"}
    assert {row.format for row in checkpoints.like("torchvision_vit_old", 768, 12, 16, 1000)} == {"torchvision_vit"}
    assert checkpoints.like("timm_swin", 96, [2, 2, 6, 2], 4, 10) == []
    assert checkpoints.like("of_nobody", *tiny) == []


RECIPES = [
    Preprocessing("imagenet", 256, 224, "bicubic"),
    Preprocessing("imagenet", 242, 224, "bilinear"),
    Preprocessing("imagenet", 384, 384, "bicubic"),
    Preprocessing("imagenet", None, 192, "bicubic"),
    Preprocessing("half", None, 224, "bilinear"),
]
recipes = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.resize}-{recipe.crop}")


def picture(width, height):
    """Noise under a smooth pattern: every pixel tells where it was cut."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def transforms_of(recipe, as_tensor_first):
    size = recipe.resize or (recipe.crop, recipe.crop)
    steps = [
        v2.Resize(size, interpolation=v2.InterpolationMode(recipe.interpolation), antialias=True),
        v2.CenterCrop(recipe.crop),
    ]
    steps.insert(0 if as_tensor_first else 2, v2.PILToTensor())
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*normalisation(recipe))])


def normalisation(recipe):
    return tuple(map(list, checkpoints.MEAN_AND_STD[recipe.mean]))


@recipes
def test_processor_equals_torchvision(recipe):
    image = picture(width=320, height=240)
    ours = checkpoints.image_processor(recipe)(image, return_tensors="pt")["pixel_values"][0]
    assert ours.shape == (3, recipe.crop, recipe.crop)
    torch.testing.assert_close(ours, transforms_of(recipe, as_tensor_first=True)(image), atol=1e-5, rtol=0)


@recipes
def test_processor_differs_from_pillow_by_the_rounding_of_bytes(recipe):
    image = picture(width=320, height=240)
    ours = checkpoints.image_processor(recipe)(image, return_tensors="pt")["pixel_values"][0]
    difference = (ours - transforms_of(recipe, as_tensor_first=False)(image)).abs()
    step = 1 / 255 / min(normalisation(recipe)[1])
    assert difference.max() <= 2.01 * step and difference.mean() < 0.02 * step


def test_processor_rounds_the_corner_of_a_crop_down():
    recipe, image = Preprocessing("half", 256, 224, "bicubic"), picture(width=301, height=217)
    ours = checkpoints.image_processor(recipe)(image, return_tensors="pt")["pixel_values"][0]
    resized = v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)(v2.PILToTensor()(image))
    assert resized.shape == (3, 256, 355)  # a margin of 65.5, which torchvision takes for 66
    values = v2.Normalize(*normalisation(recipe))(resized.float() / 255)
    torch.testing.assert_close(ours, values[:, 16:240, 65:289], atol=1e-5, rtol=0)
    torch.testing.assert_close(v2.CenterCrop(224)(values), values[:, 16:240, 66:290], atol=0, rtol=0)


@recipes
def test_processor_survives_a_file(recipe, tmp_path):
    before = checkpoints.image_processor(recipe)
    before.save_pretrained(tmp_path)
    after = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(after, ViTImageProcessor) and after.to_dict() == before.to_dict()
    grey = picture(width=64, height=48).convert("L")
    pictures = [processor(grey, return_tensors="pt")["pixel_values"] for processor in (before, after)]
    assert pictures[0].shape == (1, 3, recipe.crop, recipe.crop)
    assert torch.equal(*pictures)


def test_processor_of_a_checkpoint_is_that_of_its_preprocessing():
    row = checkpoints.find("google/vit-base-patch16-384")
    processor = checkpoints.image_processor(row)
    assert processor.to_dict() == checkpoints.image_processor(row.preprocessing).to_dict()
    assert (
        processor.size["height"] == 384
        and tuple(processor.image_mean) == (0.5, 0.5, 0.5)
        and not processor.do_center_crop
    )


def test_labels_have_their_names():
    labels = checkpoints.id2label("imagenet-1k")
    assert list(labels) == list(range(1000)) and len(set(labels.values())) == 1000
    assert labels[0] == "tench" and labels[850] == "teddy" and labels[999] == "toilet tissue"
    assert checkpoints.id2label("imagenet-22k") is None and checkpoints.id2label(None) is None


@pytest.mark.parametrize("source", ["imagenet-22k", "imagenet-21k"])
def test_label_map(source):
    rows = checkpoints.label_map(source, "imagenet-1k")
    assert len(rows) == len(set(rows)) == 1000
    assert (min(rows), max(rows)) == (359, 21817)
    # Of classes without pictures Microsoft gave the places to the last two, so neither can be among the 1000.
    assert not {9205, 15027, 21841, 21842} & set(rows)
    info = pathlib.Path(timm.__file__).parent / "data" / "_info"
    small = info.joinpath("imagenet_synsets.txt").read_text().split()
    large = info.joinpath("imagenet21k_goog_synsets.txt").read_text().split()
    assert [wnid for row, wnid in zip(rows, small, strict=True) if large[row] != wnid] == ["n04399382"]
    assert large[rows[850]] == "n03013580"  # "chemise, shimmy, shift, slip, teddy"


def test_a_pair_of_labels_without_a_map_is_refused():
    with pytest.raises(UserError, match="'imagenet-1k' to 'imagenet-22k'; there are imagenet-22k to imagenet-1k"):
        checkpoints.label_map("imagenet-1k", "imagenet-22k")


def test_table_keeps_every_name_whole():
    piped, narrow = checkpoints.table(), checkpoints.table(width=120)
    assert len(piped.splitlines()) == len(CHECKPOINTS) + 1
    assert all(len(line) <= 120 for line in narrow.splitlines())
    for text in (piped, narrow):
        last_words = [line.split()[-1] for line in text.splitlines()]
        assert [word for word in last_words if checkpoints.named(word)] == [row.name for row in CHECKPOINTS]
    assert "87.8M    224  imagenet-1k    83.5  MIT           swin_base_patch4_window7_224.pth" in piped
