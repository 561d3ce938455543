"""`hf-swin convert` as users run it: what it prints, what it writes, what opens it, and what it refuses."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import hf_swin
from hf_swin.conversion import checkpoints
from hf_swin.conversion.checkpoints import Checkpoint, Preprocessing
from hf_swin.conversion.files import open_weights
from hf_swin.conversion.writing import convert_weights
from hf_swin.errors import UserError

from commands import converted, refused, run, tree
from compare import assert_close
from tiny import FAMILIES, HEADS, STOCK, class_of, config_of, model_of, pixels, shaken


REPOSITORY = pathlib.Path(__file__).parents[2]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 5}
SWIN = {"img_size": 32, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "num_classes": 5}


def torchvision_swin(version):
    parts = torchvision.models.swin_transformer
    second = {"block": parts.SwinTransformerBlockV2, "downsample_layer": parts.PatchMergingV2} if version == 2 else {}
    sizes = {"patch_size": [4, 4], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    return parts.SwinTransformer(**sizes, num_classes=5, **second)


def torchvision_vit():
    return torchvision.models.VisionTransformer(32, 8, 3, 4, 32, 64, num_classes=5)


V2 = ("--hint", "image_size=32", "--hint", "window_size=4")
# format -> how its publisher builds it, hints, class, and the numbers by which that publisher computes otherwise
PUBLISHERS = {
    "timm_vit": (
        lambda: timm.models.VisionTransformer(**VIT),
        ("--hint", "num_attention_heads=4"),
        "HfViTForImageClassification",
        {"layer_norm_eps": 1e-6, "hidden_act": "gelu", "position_resizing": "bicubic_antialias"},
    ),
    "timm_swin": (
        lambda: timm.models.SwinTransformer(**SWIN),
        (),
        "HfSwinForImageClassification",
        {"small_input": "clamp", "bias_resizing": "geometric_linear", "layer_norm_eps": 1e-5},
    ),
    "timm_swin_v2": (lambda: timm.models.SwinTransformerV2(**SWIN), V2, "HfSwinV2ForImageClassification", {}),
    "torchvision_vit": (
        torchvision_vit,
        ("--hint", "num_attention_heads=4"),
        "HfViTForImageClassification",
        {"layer_norm_eps": 1e-6},
    ),
    "torchvision_swin": (
        lambda: torchvision_swin(1),
        ("--hint", "image_size=32"),
        "HfSwinForImageClassification",
        {"layer_norm_eps": 1e-5},
    ),
    "torchvision_swin_v2": (lambda: torchvision_swin(2), V2, "HfSwinV2ForImageClassification", {}),
}


@functools.cache
def peer(name):
    return shaken(PUBLISHERS[name][0]())


def saved(name, folder, **dtype):
    path = folder / f"{name}.pth"
    torch.save(peer(name).state_dict(), path)
    return path


def json_of(folder, name="config.json"):
    return json.loads((folder / name).read_text())


@pytest.fixture
def vit(tmp_path):
    """Our own folder of a classifier."""
    model_of("hf_vit").save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


@pytest.fixture
def catalogued(monkeypatch):
    """Adds a published checkpoint of tiny sizes to the catalogue."""

    def add(name, **facts):
        known = Checkpoint(
            **{
                "name": name,
                "format": "timm_vit",
                "numbers": {"image_size": 32, "num_attention_heads": 4},
                "width": 32,
                "depth": 3,
                "patch_size": 8,
                "num_labels": 5,
                "labels": None,
                "preprocessing": Preprocessing("half", 36, 32, "bicubic"),
                "licence": "Apache-2.0",
                "top1": 81.2,
                "parameters": 1,
                **facts,
            }
        )
        monkeypatch.setattr(checkpoints, "CHECKPOINTS", (known, *checkpoints.CHECKPOINTS))
        return known

    return add


# From every publisher


@pytest.mark.parametrize("name", PUBLISHERS)
def test_a_file_becomes_a_folder_that_transformers_opens(tmp_path, name):
    _, hints, class_name, numerics = PUBLISHERS[name]
    printed = converted(saved(name, tmp_path), tmp_path / "out", *hints)
    out = tmp_path / "out"
    assert f"{name}.pth: {name}\n{class_name}, " in printed and "written to" in printed
    assert "left to you: the file does not name its labels" in printed
    config = json_of(out)
    assert config["architectures"] == [class_name] and config["auto_map"]["AutoModelForImageClassification"]
    assert {key: config[key] for key in numerics} == numerics
    model = AutoModelForImageClassification.from_pretrained(out)
    assert type(model).__name__ == class_name
    with torch.inference_mode():
        assert_close(model.eval()(pixels(32)).logits, peer(name)(pixels(32)))


@pytest.mark.parametrize("stock", STOCK, ids=lambda stock: f"{stock}-{len(stock.numbers)}")
def test_a_stock_folder_becomes_ours(tmp_path, stock):
    stock.build().save_pretrained(tmp_path / "stock")
    printed = converted(tmp_path / "stock", tmp_path / "out")
    assert "stock: transformers_" in printed and f"\n{stock.ours}, " in printed
    model, info = getattr(hf_swin, stock.ours).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    with torch.inference_mode():
        ours, theirs = model.eval()(pixels(32)), stock.build()(pixels(32), **stock.call)
    name = next(key for key in ("logits", "reconstruction", "feature_maps", "last_hidden_state") if key in theirs)
    assert_close(ours[name], theirs[name], what=name)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_our_own_folders_are_sources(tmp_path, family, head):
    """Under published names and under those in memory."""
    model = model_of(family, head)
    model.save_pretrained(tmp_path / "disk")
    model.save_pretrained(tmp_path / "memory", save_original_format=False)
    wanted = model.state_dict()
    for name in ("disk", "memory"):
        printed = converted(tmp_path / name, tmp_path / f"out-{name}")
        assert "x names of this package" in printed and len(printed.splitlines()) < 10
        back, info = class_of(family, head).from_pretrained(tmp_path / f"out-{name}", output_loading_info=True)
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
        found = back.state_dict()
        assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_what_is_printed(tmp_path):
    printed = converted(saved("timm_vit", tmp_path), tmp_path / "out", "--hint", "num_attention_heads=4")
    lines = printed.splitlines()
    count = sum(p.numel() for p in peer("timm_vit").parameters())
    assert lines[0] == "timm_vit.pth: timm_vit"
    assert lines[1] == f"HfViTForImageClassification, {2 + 2 + 3 * 16 + 2 + 2} tensors, {count:,} parameters"
    split = "query.{p} + vit.encoder.layer.{i}.attention.attention.key.{p}"
    assert any(line.startswith("      6 x blocks.{i}.attn.qkv.{p} -> ") and split in line for line in lines)
    assert sum(int(line.split(" x ")[0]) for line in lines if " x " in line) == len(peer("timm_vit").state_dict())
    assert lines[-1] == f"written to {tmp_path / 'out'}"
    assert [line.split(":")[0] for line in lines[-4:-1]] == ["left to you"] * 3


def test_what_is_left_out_is_told(tmp_path):
    state = {f"backbone.{key}": tensor for key, tensor in peer("timm_vit").state_dict().items()}
    others = {f"neck.{index}.weight": torch.ones(2) for index in range(8)}
    torch.save({"state_dict": {**state, **others}, "epoch": 3}, tmp_path / "detector.pth")
    how = ("--hint", "num_attention_heads=4")
    said = refused("convert", tmp_path / "detector.pth", "--out", tmp_path / "out", *how)
    assert "could be timm_vit or facebook_deit" in said and "say which with --from" in said
    printed = converted(tmp_path / "detector.pth", tmp_path / "out", *how, "--from", "timm_vit")
    assert "left out: epoch, neck.0.weight," in printed and "and 3 more" in printed
    assert len(json_of(tmp_path / "out", "conversion.json")["dropped"]) == 9


def test_the_report_is_kept_beside_the_weights(tmp_path):
    converted(saved("timm_swin", tmp_path), tmp_path / "out")
    report = json_of(tmp_path / "out", "conversion.json")
    assert (report["source"], report["format"]) == ("timm_swin.pth", "timm_swin")
    assert str(tmp_path) not in json.dumps(report), "no path of this machine"
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert report["tensors"] == len(tensors)
    assert report["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert sum(report["rules"].values()) == len(peer("timm_swin").state_dict())
    assert report["checkpoint"] is report["license"] is report["top1"] is report["base_model"] is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_keep_their_type(tmp_path, dtype):
    state = {key: tensor.to(dtype) for key, tensor in peer("timm_vit").state_dict().items()}
    torch.save(state, tmp_path / "vit.pth")
    how = ("--hint", "num_attention_heads=4")
    for more in ((), ("--image-size", 48), ("--num-labels", 3)):
        converted(tmp_path / "vit.pth", tmp_path / "out", *how, *more)
        types = {lazy.dtype for lazy in open_weights(tmp_path / "out").tensors.values()}
        assert types == {dtype} and json_of(tmp_path / "out")["dtype"] == str(dtype).removeprefix("torch.")
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "out").dtype == dtype


def test_weights_of_several_types_open_in_the_widest(tmp_path):
    state = {key: tensor.half() if tensor.ndim > 1 else tensor for key, tensor in peer("timm_vit").state_dict().items()}
    torch.save(state, tmp_path / "vit.pth")
    converted(tmp_path / "vit.pth", tmp_path / "out", "--hint", "num_attention_heads=4")
    assert json_of(tmp_path / "out")["dtype"] == "float32"


# The catalogue


def test_a_known_file_brings_numbers_labels_and_preprocessing(tmp_path, catalogued):
    known = catalogued("tiny_of_ours.pth", num_labels=1000, labels="imagenet-1k")
    model = shaken(timm.models.VisionTransformer(**{**VIT, "num_classes": 1000}))
    torch.save(model.state_dict(), tmp_path / known.name)
    printed = converted(tmp_path / known.name, tmp_path / "out")
    out = tmp_path / "out"
    assert "known as tiny_of_ours.pth" in printed and "left to you" not in printed
    config, report = json_of(out), json_of(out, "conversion.json")
    assert config["id2label"]["0"].startswith("tench")
    assert config["label2id"][config["id2label"]["999"]] == 999 and config["num_attention_heads"] == 4
    assert (report["license"], report["top1"], report["checkpoint"]) == ("apache-2.0", 81.2, "tiny_of_ours.pth")
    processor = AutoImageProcessor.from_pretrained(out)
    assert [*processor.image_mean] == [0.5, 0.5, 0.5] and dict(processor.crop_size) == {"height": 32, "width": 32}
    assert processor.size["shortest_edge"] == 36
    answers = pipeline("image-classification", model=str(out))(Image.new("RGB", (60, 50), "red"))
    assert len(answers) == 5 and answers[0]["label"] in config["label2id"]


def test_top1_is_that_of_the_published_model_alone(tmp_path, catalogued):
    catalogued("timm_vit.pth")
    path = saved("timm_vit", tmp_path)
    assert converted(path, tmp_path / "out") and json_of(tmp_path / "out", "conversion.json")["top1"] == 81.2
    converted(path, tmp_path / "out", "--image-size", 48)
    report = json_of(tmp_path / "out", "conversion.json")
    assert report["top1"] is None and report["checkpoint"] == "timm_vit.pth"
    assert json_of(tmp_path / "out", "preprocessor_config.json")["crop_size"] == {"height": 48, "width": 48}
    assert json_of(tmp_path / "out", "preprocessor_config.json")["size"] == {"shortest_edge": 54}


def test_a_published_name_with_other_images_takes_nothing(tmp_path, catalogued):
    catalogued("timm_vit.pth", numbers={"image_size": 48, "num_attention_heads": 4})
    printed = converted(saved("timm_vit", tmp_path), tmp_path / "out", "--hint", "num_attention_heads=4")
    report = json_of(tmp_path / "out", "conversion.json")
    assert report["top1"] is None and report["checkpoint"] is None and "nothing was taken from the catalogue" in printed


def timm_folder(folder, architecture, **record):
    folder.mkdir()
    save_file(peer("timm_vit").state_dict(), folder / "model.safetensors")
    record = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9, **record}
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "pretrained_cfg": record}))
    return folder


def test_a_folder_of_timm_says_how_its_images_are_prepared(tmp_path):
    hint = ("--hint", "num_attention_heads=4")
    converted(timm_folder(tmp_path / "usual", "vit_of_ours"), tmp_path / "out", *hint)
    assert json_of(tmp_path / "out", "preprocessor_config.json")["image_mean"] == [0.5, 0.5, 0.5]
    squash = timm_folder(tmp_path / "squash", "vit_of_ours", crop_mode="squash")
    converted(squash, tmp_path / "squashed", *hint)
    assert not json_of(tmp_path / "squashed", "preprocessor_config.json")["do_center_crop"]
    clip = timm_folder(tmp_path / "clip", "vit_of_ours", mean=[0.481, 0.458, 0.408], std=[0.269, 0.261, 0.276])
    assert "no image processor was written" in converted(clip, tmp_path / "clipped", *hint)
    rpn = timm_folder(tmp_path / "rpn", "vit_base_patch16_rpn_224")
    assert "norms after its branches" in refused("convert", rpn, "--out", tmp_path / "no", *hint)


@pytest.mark.parametrize("crop, shortest, scaled", [(224, 256, 37), (32, 40, 40)])
def test_pictures_are_prepared_at_the_new_size_whatever_the_positions_were_for(crop, shortest, scaled, tmp_path):
    """DINOv2 has positions for 518 pixels and takes pictures of 224."""
    model_of("hf_vit", image_size=64).save_pretrained(tmp_path / "in")
    square = {"height": crop, "width": crop}
    processor = transformers.ViTImageProcessor(size={"shortest_edge": shortest}, do_center_crop=True, crop_size=square)
    processor.save_pretrained(tmp_path / "in")
    converted(tmp_path / "in", tmp_path / "out", "--image-size", 32)
    written = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert dict(written.crop_size) == {"height": 32, "width": 32} and written.size["shortest_edge"] == scaled


@pytest.mark.parametrize("other", [{"width": 64}, {"depth": 12}, {"patch_size": 16}, {"num_labels": 1000}])
def test_a_file_that_only_has_the_name_takes_nothing_from_the_catalogue(tmp_path, catalogued, other):
    """A fine-tuned model is often kept under the name of what it began as."""
    catalogued("timm_vit.pth", labels="imagenet-1k", **other)
    printed = converted(saved("timm_vit", tmp_path), tmp_path / "out", "--hint", "num_attention_heads=4")
    assert "left to you: it is called timm_vit.pth and has other sizes or labels" in printed
    report = json_of(tmp_path / "out", "conversion.json")
    assert report["checkpoint"] is report["license"] is report["top1"] is None


def test_a_fine_tuned_stock_model_is_not_what_it_began_as(tmp_path):
    """transformers 4 wrote the name of the base model into `_name_or_path`."""
    STOCK[1].build().save_pretrained(tmp_path / "stock")
    config = json_of(tmp_path / "stock")
    (tmp_path / "stock" / "config.json").write_text(
        json.dumps({**config, "_name_or_path": "google/vit-base-patch16-224"})
    )
    converted(tmp_path / "stock", tmp_path / "out")
    assert json_of(tmp_path / "out", "conversion.json")["checkpoint"] is None


def test_the_name_that_the_user_gives_is_held_against_the_file(tmp_path, catalogued):
    path = saved("timm_vit", tmp_path)
    said = refused("convert", path, "--out", tmp_path / "out", "--checkpoint", "google/vit-base-patch16-224")
    assert "hidden_size 32 does not divide into 12 heads" in said and "is it google/vit-base-patch16-224?" in said
    catalogued("deeper.pth", depth=12)
    said = refused("convert", path, "--out", tmp_path / "out", "--checkpoint", "deeper.pth")
    assert "which has width 32, depth 12, patches 8: it has width 32, depth 3, patches 8" in said
    said = refused("convert", path, "--out", tmp_path / "out", "--checkpoint", "vit_base_patch16_224.augreg_in21k")
    assert "did you mean timm/vit_base_patch16_224.augreg_in21k" in said
    catalogued("some_other_file.pth", num_labels=1000, labels="imagenet-1k")
    printed = converted(path, tmp_path / "out", "--checkpoint", "some_other_file.pth")
    assert "it has 5 labels, unlike some_other_file.pth: no more than numbers were taken from that" in printed
    report = json_of(tmp_path / "out", "conversion.json")
    assert report["checkpoint"] is report["top1"] is report["license"] is None
    assert json_of(tmp_path / "out")["num_attention_heads"] == 4
    assert json_of(tmp_path / "out", "preprocessor_config.json")["image_mean"] == [0.5, 0.5, 0.5]


def test_the_list_shows_every_checkpoint():
    printed = run("convert", "--list").stdout
    assert len(printed.splitlines()) == len(checkpoints.CHECKPOINTS) + 1
    assert all(known.name in printed for known in checkpoints.CHECKPOINTS)


def test_stock_folders_keep_their_image_processor_and_labels(tmp_path):
    model = STOCK[14].build()
    model.config.id2label = dict(enumerate("abcde"))
    model.config.label2id = {name: index for index, name in enumerate("abcde")}
    model.save_pretrained(tmp_path / "stock")
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "stock")
    printed = converted(tmp_path / "stock", tmp_path / "out")
    name = "preprocessor_config.json"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "stock" / name).read_bytes()
    assert json_of(tmp_path / "out")["id2label"] == {str(index): name for index, name in enumerate("abcde")}
    assert "label" not in printed.split("left to you")[1] and "image processor" not in printed
    answers = pipeline("image-classification", model=str(tmp_path / "out"))(Image.new("RGB", (60, 50), "red"))
    assert sorted(answer["label"] for answer in answers) == list("abcde")


# Other sizes and labels


@pytest.mark.parametrize(
    "family, sizes",
    [
        ("hf_vit", {"image_size": 48}),
        ("hf_vit", {"image_size": 48, "patch_size": 4}),
        ("hf_vit", {"num_channels": 1}),
        ("hf_swin", {"image_size": 96}),
        ("hf_swin", {"window_size": 8}),
        ("hf_swin", {"num_channels": 5, "window_size": 2}),
        ("hf_swin_v2", {"image_size": 128, "window_size": 8}),
    ],
)
def test_other_sizes_are_those_of_from_pretrained(tmp_path, family, sizes):
    model_of(family).save_pretrained(tmp_path / "in")
    options = [word for name, size in sizes.items() for word in (f"--{name.replace('_', '-')}", size)]
    printed = converted(tmp_path / "in", tmp_path / "out", *options)
    for name, size in sizes.items():
        assert f"changed: {name} from {getattr(config_of(family), name)} to {size}\n" in printed
    wanted = class_of(family, "ForImageClassification").from_pretrained(tmp_path / "in", **sizes).state_dict()
    found = class_of(family, "ForImageClassification").from_pretrained(tmp_path / "out").state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert {name: json_of(tmp_path / "out")[name] for name in sizes} == sizes


@pytest.mark.parametrize("name", ["timm_vit", "timm_swin"])
def test_other_sizes_go_by_the_publishers_rule(tmp_path, name):
    """A file converted at once to another size equals one converted and then opened at it."""
    hints = PUBLISHERS[name][1]
    converted(saved(name, tmp_path), tmp_path / "first", *hints)
    converted(saved(name, tmp_path), tmp_path / "at-once", *hints, "--image-size", 64)
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "first", image_size=64).state_dict()
    found = AutoModelForImageClassification.from_pretrained(tmp_path / "at-once").state_dict()
    assert all(torch.equal(found[key], model[key]) for key in model)
    assert {path.name for path in (tmp_path / "first").glob("*.py")} == {
        path.name for path in (tmp_path / "at-once").glob("*.py")
    }


def test_a_new_classifier_is_the_same_every_time(tmp_path, vit):
    torch.manual_seed(1)
    converted(vit, tmp_path / "one", "--num-labels", 3)
    torch.manual_seed(2)
    printed = converted(vit, tmp_path / "two", "--num-labels", 3)
    assert "changed: a new classifier of 3 labels in place of 5" in printed
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    before, after = load_file(vit / "model.safetensors"), load_file(tmp_path / "one" / "model.safetensors")
    assert after["classifier.weight"].shape == (3, 32) and after["classifier.weight"].std() < 0.1
    assert all(torch.equal(after[key], before[key]) for key in before if not key.startswith("classifier"))
    assert len(json_of(tmp_path / "one")["id2label"]) == 3


def test_a_classifier_of_as_many_labels_is_kept(tmp_path, vit):
    printed = converted(vit, tmp_path / "out", "--num-labels", 5)
    assert "changed: the classifier of 5 labels was kept" in printed
    before, after = load_file(vit / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_rows_of_a_classifier_are_kept_with_their_names(tmp_path):
    model = model_of("hf_swin", id2label=dict(enumerate("abcde")), label2id={n: i for i, n in enumerate("abcde")})
    model.save_pretrained(tmp_path / "in")
    (tmp_path / "rows.txt").write_text("4\n0\n\n2\n")
    printed = converted(tmp_path / "in", tmp_path / "out", "--label-map", tmp_path / "rows.txt")
    assert "changed: the classifier of 5 labels was cut to 3 of its rows" in printed
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("in", "out"))
    assert torch.equal(after["classifier.weight"], before["classifier.weight"][[4, 0, 2]])
    assert torch.equal(after["classifier.bias"], before["classifier.bias"][[4, 0, 2]])
    assert json_of(tmp_path / "out")["id2label"] == {"0": "e", "1": "a", "2": "c"}
    assert json_of(tmp_path / "out")["label2id"] == {"e": 0, "a": 1, "c": 2}


def test_both_classifiers_of_a_distilled_model_are_cut(tmp_path):
    STOCK[5].build().save_pretrained(tmp_path / "in")
    (tmp_path / "rows.txt").write_text("3 1")
    converted(tmp_path / "in", tmp_path / "out", "--label-map", tmp_path / "rows.txt")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert after["classifier.weight"].shape == after["distillation_classifier.weight"].shape == (2, 32)


@pytest.mark.parametrize(("labels", "count"), [("imagenet-22k", 21841), ("imagenet-21k", 21843)])
def test_a_larger_imagenet_is_cut_to_the_smaller(tmp_path, catalogued, labels, count):
    catalogued("larger.pth", num_labels=count, labels=labels)
    larger = timm.models.VisionTransformer(**{**VIT, "num_classes": count})
    torch.save(larger.state_dict(), tmp_path / "larger.pth")
    printed = converted(tmp_path / "larger.pth", tmp_path / "out", "--num-labels", 1000)
    assert f"the classifier of {count} labels was cut to 1000 of its rows" in printed
    rows = checkpoints.label_map(labels, "imagenet-1k")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(after["classifier.weight"], larger.head.weight.detach()[rows])
    assert json_of(tmp_path / "out")["id2label"]["999"] == checkpoints.id2label("imagenet-1k")[999]
    printed = converted(tmp_path / "larger.pth", tmp_path / "ten", "--num-labels", 10)
    assert f"a new classifier of 10 labels in place of {count}" in printed


@pytest.mark.parametrize(
    "text, words",
    [
        ("0\nx\n", "no text of one row number a line"),
        ("5\n", "rows are 0 to 4"),
        ("-1\n", "rows are 0 to 4"),
        ("", "rows are 0 to 4"),
        (None, "no text of one row number a line"),
    ],
)
def test_label_maps_that_do_not_fit(tmp_path, vit, text, words):
    if text is not None:
        (tmp_path / "rows.txt").write_text(text)
    assert words in refused("convert", vit, "--out", tmp_path / "out", "--label-map", tmp_path / "rows.txt")
    assert not (tmp_path / "out").exists()


def test_changes_that_make_no_model(tmp_path, vit):
    (tmp_path / "rows.txt").write_text("0 1")
    out = ("--out", tmp_path / "out")
    both = ("--label-map", tmp_path / "rows.txt", "--num-labels", 3)
    assert "has 2 rows and --num-labels is 3" in refused("convert", vit, *out, *both)
    assert "a hf_vit has no window_size: leave --window-size out" in refused("convert", vit, *out, "--window-size", 4)
    model_of("hf_swin", "Model").save_pretrained(tmp_path / "body")
    assert "has no classifier" in refused("convert", tmp_path / "body", *out, "--num-labels", 3)
    model_of("hf_swin", "ForMaskedImageModeling").save_pretrained(tmp_path / "masked")
    assert "these sizes make no model" in refused("convert", tmp_path / "masked", *out, "--num-channels", 1)
    assert run("convert", vit, *out, "--num-labels", 0).exit_code == 2
    assert not (tmp_path / "out").exists()


# To other formats


@pytest.mark.parametrize(
    "family, to, files",
    [
        ("hf_vit", "transformers", {"config.json", "model.safetensors"}),
        ("hf_vit", "timm", {"model.safetensors"}),
        ("hf_vit", "torchvision", {"model.pth"}),
        ("hf_swin", "transformers", {"config.json", "model.safetensors"}),
        ("hf_swin", "timm", {"model.safetensors"}),
        ("hf_swin", "microsoft", {"model.pth"}),
        ("hf_swin", "torchvision", {"model.pth"}),
        ("hf_swin_v2", "transformers", {"config.json", "model.safetensors"}),
        ("hf_swin_v2", "timm", {"model.safetensors"}),
        ("hf_swin_v2", "microsoft", {"model.pth"}),
    ],
)
def test_other_formats_and_back(tmp_path, family, to, files):
    numbers = {"layer_norm_eps": 1e-6} if family == "hf_vit" else {"small_input": "square"} if to == "microsoft" else {}
    numbers |= {"depths": [2, 2, 2], "num_heads": [2, 4, 8]} if family != "hf_vit" else {}
    model = model_of(family, **numbers)
    model.save_pretrained(tmp_path / "ours")
    printed = converted(tmp_path / "ours", tmp_path / "theirs", "--to", to)
    assert f"written to {tmp_path / 'theirs'} as {to}" in printed
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == files
    theirs = tmp_path / "theirs" if "config.json" in files else tmp_path / "theirs" / next(iter(files))
    hints = ("--hint", "num_attention_heads=4") if family == "hf_vit" else ()
    hints = ("--hint", "image_size=64", "--hint", "window_size=4") if family == "hf_swin_v2" else hints
    hints = ("--hint", "image_size=64") if family == "hf_swin" and to == "torchvision" else hints
    converted(theirs, tmp_path / "back", *(() if to == "transformers" else hints))
    back = class_of(family, "ForImageClassification").from_pretrained(tmp_path / "back").state_dict()
    wanted = model.state_dict()
    assert all(torch.equal(back[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    "family, to, words",
    [
        ("hf_vit", "microsoft", "microsoft is a format of hf_swin models, and this is a hf_vit"),
        ("hf_vit", "timm_swin", "timm_swin is a format of hf_swin models"),
        ("hf_swin", "google", "google is a format of hf_vit models, and this is a hf_swin"),
        ("hf_vit", "google", "it computes with hidden_act='gelu_pytorch_tanh'"),
        ("hf_swin", "nonsense", "there is no format 'nonsense': choose one of hf_swin, transformers, timm"),
    ],
)
def test_formats_that_do_not_hold_a_model(tmp_path, family, to, words):
    model_of(family).save_pretrained(tmp_path / "in")
    said = refused("convert", tmp_path / "in", "--out", tmp_path / "new" / "out", "--to", to)
    assert words in said and not (tmp_path / "new").exists()


def test_sizes_change_on_the_way_to_another_format(tmp_path):
    model_of("hf_vit", layer_norm_eps=1e-6).save_pretrained(tmp_path / "in")
    converted(tmp_path / "in", tmp_path / "out", "--to", "timm", "--image-size", 48, "--num-labels", 3)
    theirs = timm.models.VisionTransformer(**{**VIT, "img_size": 48, "num_classes": 3, "mlp_ratio": 2})
    theirs.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "in", image_size=48)
    assert torch.equal(theirs.pos_embed, model.vit.embeddings.position_embeddings)


# One folder, several conversions


def test_converting_twice_changes_nothing(tmp_path):
    path = saved("timm_swin", tmp_path)
    converted(path, tmp_path / "out")
    first = tree(tmp_path / "out")
    converted(path, tmp_path / "out")
    assert tree(tmp_path / "out") == first


def test_a_model_takes_the_place_of_another_of_the_same_files(tmp_path):
    converted(saved("timm_swin", tmp_path), tmp_path / "out")
    converted(saved("torchvision_swin", tmp_path), tmp_path / "out", "--hint", "image_size=32")
    report = json_of(tmp_path / "out", "conversion.json")
    assert report["format"] == "torchvision_swin"
    assert_close(
        AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()(pixels(32)).logits.detach(),
        peer("torchvision_swin")(pixels(32)).detach(),
    )


@pytest.mark.parametrize("to", ["transformers", "timm", "microsoft"])
def test_two_models_are_never_mixed_in_one_folder(tmp_path, to):
    """Our code and config beside another publisher's weights would be taken for one model."""
    path, out = saved("timm_swin", tmp_path), tmp_path / "out"
    converted(path, out)
    (out / "notes.txt").write_text("mine")
    before = tree(out)
    said = refused("convert", path, "--out", out, "--to", to)
    assert "holds another model" in said and "more would stay" in said
    assert tree(out) == before


def test_a_family_does_not_leave_its_code_beside_another(tmp_path):
    converted(saved("timm_swin", tmp_path), tmp_path / "out")
    said = refused("convert", saved("timm_vit", tmp_path), "--out", tmp_path / "out", "--hint", "num_attention_heads=4")
    assert "configuration_swin.py" in said


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00001-of-00002.safetensors", "evidence.safetensors"])
def test_other_weights_and_evidence_are_not_left_beside_the_new(tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"old")
    said = refused("convert", saved("timm_swin", tmp_path), "--out", tmp_path / "out")
    assert name in said and [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_files_that_belong_to_no_model_stay(tmp_path):
    out = tmp_path / "out"
    (out / "pictures").mkdir(parents=True)
    (out / "README.md").write_text("mine")
    (out / "my_weights.pth").write_bytes(b"mine")
    source = out / "model.pth"  # the source itself may lie there
    torch.save(peer("timm_swin").state_dict(), source)
    converted(source, out)
    assert (out / "README.md").read_text() == "mine" and source.is_file()


def test_a_folder_is_resized_in_place(tmp_path, vit):
    converted(vit, tmp_path / "out")
    converted(tmp_path / "out", tmp_path / "out", "--image-size", 48)
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "out").config.image_size == 48


# What the user gets wrong


@pytest.mark.parametrize(
    "hint, words",
    [
        ("num_attention_heads=5", "hidden_size 32 does not divide into 5 heads"),
        ("num_attention_heads=many", "expected int, got str"),
        ("num_attention_heads=0", "make no model"),
        ("num_attention_head=4", "no number of a hf_vit that weights do not tell is called so"),
        ("model_type=hf_swin", "no number of a hf_vit"),
        ("id2label={}", "no number of a hf_vit"),
        ("image_size=40", "says 32"),
        ("hidden_size=64", "its config wants"),
        ("hidden_act=nonsense", "make no model: 'nonsense'"),
        ("num_attention_heads", "write it as NAME=VALUE"),
        ("=4", "write it as NAME=VALUE"),
    ],
)
def test_hints_that_are_wrong(tmp_path, hint, words):
    path = saved("timm_vit", tmp_path)
    said = refused("convert", path, "--out", tmp_path / "out", "--hint", "num_attention_heads=4", "--hint", hint)
    assert words in said and not (tmp_path / "out").exists()


def test_numbers_that_are_missing_are_asked_for(tmp_path):
    out = ("--out", tmp_path / "out")
    assert "add --hint num_attention_heads=N" in refused("convert", saved("timm_vit", tmp_path), *out)
    said = refused("convert", saved("timm_swin_v2", tmp_path), *out)
    assert "--checkpoint" in said and "--hint image_size=N" in said


@pytest.mark.parametrize(
    "name, words",
    [
        ("timm_swin", "is not timm_swin; its 44 keys begin with cls_token, pos_embed"),
        ("microsoft_swin", "is not microsoft_swin"),
        ("nonsense", "there is no format 'nonsense': choose one of transformers_vit"),
    ],
)
def test_formats_that_are_wrong(tmp_path, name, words):
    said = refused("convert", saved("timm_vit", tmp_path), "--out", tmp_path / "out", "--from", name)
    assert words in said


def test_files_of_two_models_that_are_alike_need_a_word(tmp_path):
    path = saved("timm_vit", tmp_path)
    converted(path, tmp_path / "out", "--hint", "num_attention_heads=4", "--from", "facebook_deit")
    assert json_of(tmp_path / "out", "conversion.json")["format"] == "facebook_deit"


def test_incomplete_files_and_files_with_more(tmp_path):
    state, how = dict(peer("timm_vit").state_dict()), ("--hint", "num_attention_heads=4")
    for change, words in (
        (lambda s: s.pop("blocks.1.mlp.fc1.bias"), "incomplete"),
        (lambda s: s.pop("blocks.1.attn.qkv.weight"), "incomplete"),
        (lambda s: s.update({"blocks.3.norm1.weight": torch.ones(32)}), "incomplete"),
        (lambda s: s.update({"extra.weight": torch.ones(2)}), "no rule knows 'extra.weight'"),
        (lambda s: s.update({"norm.weight": torch.ones(31)}), "its config wants [32]"),
        (lambda s: s.pop("patch_embed.proj.weight"), "is of no format that this package knows"),
    ):
        changed = dict(state)
        change(changed)
        torch.save(changed, tmp_path / "vit.pth")
        assert words in refused("convert", tmp_path / "vit.pth", "--out", tmp_path / "out", *how)
    save_file({"some.weight": torch.ones(2)}, tmp_path / "else.safetensors")
    said = refused("convert", tmp_path / "else.safetensors", "--out", tmp_path / "out")
    assert "is of no format that this package knows; its 1 keys begin with some.weight" in said
    assert not (tmp_path / "out").exists()


def test_configs_that_are_damaged(tmp_path, vit):
    config = {key: value for key, value in json_of(vit).items() if not key.startswith(("out_", "stage_"))}
    for broken, words in (
        ({**config, "architectures": None}, "names no class of this package"),
        ({**config, "architectures": ["HfNothing"]}, "names no class of this package"),
        ({**config, "hidden_size": 48}, "its config wants"),
        ({**config, "hidden_size": "wide"}, "make no model"),
        ({**config, "num_hidden_layers": 2}, "has no place"),
        ({**config, "num_hidden_layers": 4}, "incomplete"),
    ):
        (vit / "config.json").write_text(json.dumps(broken))
        assert words in refused("convert", vit, "--out", tmp_path / "out"), broken
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["someone/some-model", "some one/model", "nowhere/model.pth", "a/b/c", "nothing"])
def test_sources_that_are_nowhere(tmp_path, source):
    said = refused("convert", source, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists() and len(said) < 300
    if source == "someone/some-model":
        assert "is neither a path nor a model that the Hub gives" in said


def test_what_is_left_unsaid(tmp_path):
    assert "say what and where to" in refused("convert")
    assert "say what and where to" in refused("convert", "x.pth")
    assert "say what and where to" in refused("convert", "--out", tmp_path / "out")


def test_the_function_raises_what_the_command_prints(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        convert_weights(tmp_path / "nothing.pth", tmp_path / "out")
    report = convert_weights(saved("timm_swin", tmp_path), tmp_path / "out")
    assert report == json_of(tmp_path / "out", "conversion.json")


# Processes


def process(*arguments, **more):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, **more)


def test_the_command_of_a_checkout(tmp_path):
    path = saved("timm_swin", tmp_path)
    done = process("-m", "conversion.convert", path, "--out", tmp_path / "out", cwd=REPOSITORY)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "timm_swin.pth: timm_swin" in done.stdout
    assert json_of(tmp_path / "out")["architectures"] == ["HfSwinForImageClassification"]


@pytest.mark.slow
def test_the_command_of_a_checkout_fails_in_one_line(tmp_path):
    path = saved("timm_swin", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    done = process("-m", "conversion.convert", path, "--out", tmp_path / "new", cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"hf-swin: {path} is cut off: download it again.\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--image-size", 48)], ids=["as it is", "resized"])
def test_a_converted_folder_opens_without_the_package(tmp_path, more):
    converted(saved("timm_swin", tmp_path), tmp_path / "out", *more)
    code = (
        "import sys, torch; from transformers import AutoModelForImageClassification as A; "
        f"m = A.from_pretrained({str(tmp_path / 'out')!r}, trust_remote_code=True).eval(); "
        "assert 'hf_swin' not in sys.modules; print(type(m).__name__, m(torch.zeros(1, 3, 32, 32)).logits.shape[1])"
    )
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=home, cwd=tmp_path)
    assert done.stdout.split() == ["HfSwinForImageClassification", "5"], done.stderr


# Memory

FACTOR = 1.3
FABRICATE = """
import sys, torch, numpy
from hf_swin import HfSwinConfig, HfSwinForImageClassification
from hf_swin.conversion import formats
from hf_swin.conversion.files import write_safetensors
from hf_swin.conversion.keymap import convert, inverted
from transformers.core_model_loading import revert_weight_conversion

path = sys.argv[1]
config = HfSwinConfig(image_size=224, embed_dim=240, depths=[2, 2, 18, 2], num_heads=[6, 12, 24, 48], window_size=7)
config.architectures = ["HfSwinForImageClassification"]
with torch.device("meta"):
    model = HfSwinForImageClassification(config)
rules = inverted(formats.named("microsoft_swin").rules(config))
theirs = convert(revert_weight_conversion(model, model.state_dict()), rules)
values = torch.randn(997)
tensors = {key: values.repeat(t.numel() // 997 + 1)[: t.numel()].view(t.shape) for key, t in theirs.items()}
if path.endswith(".safetensors"):
    write_safetensors(__import__("pathlib").Path(path), theirs, tensors.items())
elif path.endswith(".npz"):
    numpy.savez(path, **{key: tensor.numpy() for key, tensor in tensors.items()})
else:
    torch.save({"model": tensors, "epoch": 1}, path)
"""
CONVERT = """
import resource, sys
from hf_swin.conversion.writing import convert_weights
convert_weights(sys.argv[1], __import__("pathlib").Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in kilobytes")
@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".npz"])
def test_a_large_file_is_converted_in_less_memory_than_it_takes_twice(tmp_path, ending):
    """1.2 GB, of which the imports of torch and transformers alone take 0.8: the rest is one tensor at a time."""
    path, out = tmp_path / f"large{ending}", tmp_path / "out"
    made = process("-c", FABRICATE, path)
    assert made.returncode == 0, made.stderr
    try:
        size = path.stat().st_size
        done = process("-c", CONVERT, path, out)
        assert size > 1.2e9 and done.returncode == 0, done.stderr
        peak = 1024 * int(done.stdout.split()[-1])
        assert peak < FACTOR * size, f"{peak / 1e9:.2f} GB for {size / 1e9:.2f} GB"
        assert (out / "model.safetensors").stat().st_size > 1.2e9
    finally:
        path.unlink()
        (out / "model.safetensors").unlink(missing_ok=True)
