"""`hf-swin verify`: what it says of equal models, of unequal ones, and of what cannot be compared."""

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

from hf_swin.conversion.files import open_weights
from hf_swin.evidence import write_evidence

from commands import converted, refused, run
from tiny import STOCK, model_of, shaken


SWIN = {"img_size": 32, "embed_dim": 24, "depths": (2, 2, 2), "num_heads": (2, 4, 8), "window_size": 4}
SWIN["num_classes"] = 5
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 3, "num_heads": 3, "num_classes": 5}


def torchvision_swin(block):
    parts = torchvision.models.swin_transformer
    second = {"block": parts.SwinTransformerBlockV2, "downsample_layer": parts.PatchMergingV2} if block == 2 else {}
    sizes = {"patch_size": [4, 4], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    return parts.SwinTransformer(**sizes, num_classes=5, **second)


PEERS = {
    "timm VisionTransformer": (lambda: timm.models.VisionTransformer(**VIT), ()),
    "timm SwinTransformer": (lambda: timm.models.SwinTransformer(**SWIN), ()),
    "timm SwinTransformerV2": (lambda: timm.models.SwinTransformerV2(**SWIN), ("image_size=32", "window_size=4")),
    "torchvision SwinTransformer": (lambda: torchvision_swin(1), ("image_size=32",)),
    "torchvision VisionTransformer": (
        lambda: torchvision.models.VisionTransformer(32, 8, 3, 3, 192, 64, num_classes=5),
        (),
    ),
}


@pytest.fixture
def swin(tmp_path):
    """A file of timm's and our folder made of it."""
    torch.save(shaken(timm.models.SwinTransformer(**SWIN)).state_dict(), tmp_path / "swin.pth")
    converted(tmp_path / "swin.pth", tmp_path / "swin")
    return tmp_path / "swin.pth", tmp_path / "swin"


@pytest.mark.parametrize("name", PEERS)
def test_the_publishers_class_runs_its_own_file(tmp_path, name):
    build, hints = PEERS[name]
    torch.save(shaken(build()).state_dict(), tmp_path / "theirs.pth")
    arguments = [word for hint in hints for word in ("--hint", hint)]
    converted(tmp_path / "theirs.pth", tmp_path / "ours", *arguments)
    theirs = tmp_path / "theirs.pth"
    result = run("verify", tmp_path / "ours", theirs, *arguments)
    assert result.exit_code == 0, result.output
    assert f"{theirs}: {name}\n" in result.stdout and "equal: no part differs by more than" in result.stdout


@pytest.mark.parametrize("stock", [STOCK[index] for index in (1, 8, 11, 14, 18)], ids=str)
def test_stock_folders_run_in_transformers(tmp_path, stock):
    stock.build().save_pretrained(tmp_path / "stock")
    converted(tmp_path / "stock", tmp_path / "ours")
    result = run("verify", tmp_path / "ours", tmp_path / "stock")
    assert result.exit_code == 0, result.output
    assert f"transformers {stock.name}\n" in result.stdout and "hf_swin Hf" in result.stdout


def test_a_table_of_every_part_is_printed_whole(swin):
    path, folder = swin
    result = run("verify", folder, path)
    blocks = [[f"stages.{s}.blocks.{b}" for b in range(2)] for s in range(3)]
    merging = [["stages.0.merging"], ["stages.1.merging"], []]
    parts = ["embeddings", *(part for s in range(3) for part in blocks[s] + merging[s]), "layernorm", "logits"]
    for pixels in ("random", "photograph"):
        lines = [line.split() for line in result.stdout.splitlines() if line.strip().startswith(pixels)]
        assert [line[1] for line in lines] == parts and lines[0][2] == "1x8x8x24"
    assert "…" not in result.stdout and "equal: no part differs" in result.stdout


@pytest.mark.parametrize(
    "key, first",
    [
        ("stages.1.blocks.1", "swin.encoder.layers.1.blocks.1.output.dense.bias"),
        ("stages.1.merging", "swin.encoder.layers.1.downsample.reduction.weight"),
        ("embeddings", "swin.embeddings.norm.bias"),
        ("logits", "classifier.bias"),
    ],
)
def test_a_changed_tensor_is_found_where_it_is(swin, key, first):
    path, folder = swin
    tensors = load_file(folder / "model.safetensors")
    tensors[first][0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = run("verify", folder, path)
    assert result.exit_code == 1
    assert f"{key} is the first to differ, by " in result.stdout
    marked = [line.split()[1] for line in result.stdout.splitlines() if line.rstrip().endswith("differs")]
    assert marked[0] == key


def test_not_a_number_is_a_difference(swin):
    path, folder = swin
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = run("verify", folder, path)
    assert result.exit_code == 1 and "logits is the first to differ, by nan" in result.stdout


def test_the_tolerance_is_the_users(swin):
    path, folder = swin
    assert run("verify", folder, path, "--tolerance", "1e-12").exit_code == 1
    assert run("verify", folder, path, "--tolerance", "1").exit_code == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_compared_in_full(tmp_path, dtype):
    state = shaken(timm.models.VisionTransformer(**VIT)).to(dtype).state_dict()
    torch.save(state, tmp_path / "half.pth")
    converted(tmp_path / "half.pth", tmp_path / "half")
    assert open_weights(tmp_path / "half").tensors["classifier.bias"].dtype == dtype
    result = run("verify", tmp_path / "half", tmp_path / "half.pth")
    assert result.exit_code == 0, result.output


def test_what_cannot_be_compared(swin, tmp_path):
    path, folder = swin
    torch.save(shaken(timm.models.VisionTransformer(**VIT)).state_dict(), tmp_path / "vit.pth")
    said = refused("verify", folder, tmp_path / "vit.pth")
    assert "model_type hf_swin" in said and "hf_vit" in said
    grey = shaken(timm.models.SwinTransformer(**SWIN, in_chans=1))
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    assert "num_channels 3" in refused("verify", folder, tmp_path / "grey.pth")
    assert "does not exist" in refused("verify", folder, tmp_path / "nothing.pth")
    assert "say what to compare with" in refused("verify", folder)
    assert "no published checkpoint" in refused("verify", folder, path, "--checkpoint", "nonsense")
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    assert "damaged" in refused("verify", folder, tmp_path / "bad.pth")


def test_other_sizes_share_the_parts_of_equal_size(swin, tmp_path):
    """Our folder takes any image, so it runs at the size of the other."""
    path, folder = swin
    converted(folder, tmp_path / "larger", "--image-size", 64)
    assert run("verify", tmp_path / "larger", path).exit_code == 0


def test_another_classifier_is_a_difference(swin, tmp_path):
    _, folder = swin
    converted(folder, tmp_path / "other", "--num-labels", 10)
    result = run("verify", folder, tmp_path / "other")
    assert result.exit_code == 1 and "logits is the first to differ" in result.stdout, result.output


def test_grey_images(tmp_path):
    torch.save(shaken(timm.models.SwinTransformer(**SWIN, in_chans=1)).state_dict(), tmp_path / "grey.pth")
    converted(tmp_path / "grey.pth", tmp_path / "grey")
    assert run("verify", tmp_path / "grey", tmp_path / "grey.pth").exit_code == 0


def test_photographs(swin, tmp_path):
    path, folder = swin
    picture = tmp_path / "picture.png"
    Image.effect_noise((50, 40), 80).save(picture)
    assert run("verify", folder, path, "--image", picture).exit_code == 0
    content = picture.read_bytes()
    for name, damaged in (("empty", b""), ("cut", content[: len(content) // 2]), ("text", b"no picture")):
        (tmp_path / f"{name}.png").write_bytes(damaged)
        said = refused("verify", folder, path, "--image", tmp_path / f"{name}.png")
        assert "is no picture that can be opened" in said
    assert "is no picture" in refused("verify", folder, path, "--image", tmp_path / "nothing.png")
    assert "is no picture" in refused("verify", folder, path, "--image", tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_a_graph_of_onnx_is_run_by_onnxruntime(tmp_path):
    model = shaken(timm.models.VisionTransformer(**VIT))
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    torch.onnx.export(model, (torch.randn(1, 3, 32, 32),), str(tmp_path / "vit.onnx"), dynamo=False)
    converted(tmp_path / "vit.onnx", tmp_path / "ours")
    result = run("verify", tmp_path / "ours", tmp_path / "vit.onnx")
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'vit.onnx'}: onnxruntime\n" in result.stdout and " layers.1 " in result.stdout
    tensors = load_file(tmp_path / "ours" / "model.safetensors")
    tensors["vit.encoder.layer.1.output.dense.bias"][0] += 1
    save_file(tensors, tmp_path / "ours" / "model.safetensors", metadata={"format": "pt"})
    result = run("verify", tmp_path / "ours", tmp_path / "vit.onnx")
    assert result.exit_code == 1 and "layers.1 is the first to differ" in result.stdout


def test_evidence(tmp_path):
    model = model_of("hf_swin_v2")
    model.save_pretrained(tmp_path / "model")
    assert "has no evidence.safetensors" in refused("verify", tmp_path / "model", "--evidence")
    write_evidence(model, tmp_path / "model")
    result = run("verify", tmp_path / "model", "--evidence")
    assert result.exit_code == 0 and "answers as its evidence says" in result.stdout
    with torch.no_grad():
        model.classifier.bias[0] += 1
    model.save_pretrained(tmp_path / "model")
    assert run("verify", tmp_path / "model", "--evidence").exit_code == 1
    (tmp_path / "model" / "evidence.safetensors").write_bytes(b"short")
    assert "damaged" in refused("verify", tmp_path / "model", "--evidence")
