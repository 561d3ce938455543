"""Files of weights in every container, whole, damaged and malicious, and what a conversion leaves when it fails."""

import argparse
import errno
import functools
import json
import os
import pathlib
import pickle
import shutil
import struct
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import timm
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hf_swin.conversion import files, pickles, writing
from hf_swin.conversion.files import open_weights, write, write_safetensors
from hf_swin.errors import UserError

from commands import converted, refused, run, tree
from tiny import VIT, config_of, model_of, shaken


TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5}
HEADS = ("--hint", "num_attention_heads=4")


def state(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (50, 40), "b.bias": (7,), "scale": (), "table": (1, 3, 2), "empty": (0, 4)}
    return OrderedDict((key, torch.randn(shape, generator=generator).to(dtype)) for key, shape in shapes.items())


def arrays(prefix=""):
    return {prefix + key: tensor.numpy() for key, tensor in state().items()}


def same(path, expected=None, container="", others=()):
    weights = open_weights(path)
    expected = expected or state()
    assert weights.tensors.keys() == expected.keys()
    for key, tensor in expected.items():
        lazy = weights.tensors[key]
        read = lazy.read()
        assert (lazy.shape, lazy.dtype) == (tensor.shape, tensor.dtype) == (read.shape, read.dtype), key
        assert torch.equal(read, tensor) and not read.requires_grad, key
    assert (weights.container, [*weights.others]) == (container, [*others])
    return weights


@functools.cache
def vit():
    return shaken(timm.models.VisionTransformer(**TIMM))


# Containers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_safetensors(tmp_path, dtype):
    save_file(state(dtype), tmp_path / "file.safetensors")
    same(tmp_path / "file.safetensors", state(dtype))


@pytest.mark.parametrize("ending", [".pth", ".bin", ".pt", ".ckpt", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_under_any_ending(tmp_path, zipped, ending):
    path = tmp_path / f"file{ending}"
    torch.save(state(torch.bfloat16), path, _use_new_zipfile_serialization=zipped)
    same(path, state(torch.bfloat16))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("container", ["model", "state_dict", "teacher", "params"])
def test_torch_files_with_weights_under_a_key(tmp_path, container, zipped):
    content = {"epoch": 3, container: state(), "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    same(tmp_path / "file.pth", container=container, others=["epoch", "optimizer"])


def test_parameters_views_and_shared_storages(tmp_path):
    whole = torch.randn(10, 10)
    saved = {"p": torch.nn.Parameter(whole.clone()), "rows": whole[2:4], "turned": whole.T, "again": whole}
    torch.save(saved, tmp_path / "file.pth")
    same(tmp_path / "file.pth", {key: tensor.detach() for key, tensor in saved.items()})


@pytest.mark.parametrize("prefix, found", [("", ""), ("opt/target/", ""), ("params/img/", "params/")])
def test_npz(tmp_path, prefix, found):
    more = {"opt/state/step": np.array(7)} if prefix else {}
    np.savez(tmp_path / "file.npz", **arrays(prefix), **more)
    same(tmp_path / "file.npz", {found + key: tensor for key, tensor in state().items()}, others=more)


def test_npz_compressed_of_other_byte_order_and_memory_order(tmp_path):
    table = np.arange(12, dtype=">f4").reshape(3, 4)
    np.savez_compressed(tmp_path / "file.npz", big=table, fortran=np.asfortranarray(table.astype("<f4")))
    wanted = torch.arange(12.0).reshape(3, 4)
    same(tmp_path / "file.npz", {"big": wanted, "fortran": wanted})


def test_npz_bfloat16_comes_as_two_bytes_without_a_meaning(tmp_path):
    tensor = torch.randn(3, 4).bfloat16()
    np.savez(tmp_path / "file.npz", a=tensor.view(torch.int16).numpy().view("V2"))
    same(tmp_path / "file.npz", {"a": tensor})


def save_sharded(folder, shards):
    folder.mkdir(exist_ok=True)
    index = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / name)
        index |= dict.fromkeys(shard, name)
    (folder / files.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_folders_single_and_sharded(tmp_path):
    items = list(state().items())
    save_sharded(tmp_path / "sharded", [dict(items[:2]), dict(items[2:])])
    same(tmp_path / "sharded")
    for name in ("model.safetensors", "pytorch_model.bin"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (save_file if "safe" in name else torch.save)(state(), folder / name)
        (folder / "config.json").write_text('{"model_type": "vit"}')
        assert same(folder).config == {"model_type": "vit"}


@pytest.mark.parametrize(
    "damage, words",
    [
        (
            lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
            "model-00002-of-00002.safetensors missing",
        ),
        (lambda folder: (folder / files.INDEX).write_text("{}"), "does not say which file holds which tensor"),
        (lambda folder: (folder / files.INDEX).write_text("[]"), "has no fields"),
        (lambda folder: (folder / files.INDEX).write_text("{"), "no JSON"),
        (lambda folder: (folder / files.INDEX).write_text('{"weight_map": {"a": "../x.bin"}}'), "does not say which"),
        (lambda folder: (folder / files.INDEX).write_text('{"weight_map": {"a": 3}}'), "does not say which"),
        (lambda folder: (folder / "config.json").write_text("<html>"), "no JSON"),
        (lambda folder: (folder / files.INDEX).unlink(), "holds none of model.safetensors"),
    ],
)
def test_damaged_folders(tmp_path, damage, words):
    items = list(state().items())
    save_sharded(tmp_path / "in", [dict(items[:2]), dict(items[2:])])
    damage(tmp_path / "in")
    assert words in refused("convert", tmp_path / "in", "--out", tmp_path / "out")


def test_one_type_of_file_under_the_ending_of_another(tmp_path):
    """Names lie: what a file is, its first bytes say."""
    save_file(state(), tmp_path / "file.safetensors")
    torch.save(state(), tmp_path / "file.pth")
    np.savez(tmp_path / "file.npz", **arrays())
    for name in ("file.safetensors", "file.npz"):
        for other in ("other.pth", "other.bin", "other.npz", "other.safetensors", "other"):
            shutil.copy(tmp_path / name, tmp_path / other)
            same(tmp_path / other)
    for other in ("other.npz", "other.bin", "other"):
        shutil.copy(tmp_path / "file.pth", tmp_path / other)
        same(tmp_path / other)
    shutil.copy(tmp_path / "file.pth", tmp_path / "other.safetensors")
    assert "rename it to .pth" in refused("convert", tmp_path / "other.safetensors", "--out", tmp_path / "out")


# ONNX


def export(model, path, **how):
    pixels = torch.randn(1, 3, 32, 32)
    torch.onnx.export(model.eval(), (pixels,), str(path), dynamo=False, **how)


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        return self.model(pixels).logits


@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_names_and_values_back(tmp_path):
    """Exporters fold the transposed weights of linear layers into nameless constants."""
    export(vit(), tmp_path / "timm.onnx")
    same(tmp_path / "timm.onnx", vit().state_dict())
    stock = shaken(transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, intermediate_size=64)))
    export(Logits(stock), tmp_path / "stock.onnx", input_names=["pixel_values"])
    weights = open_weights(tmp_path / "stock.onnx")
    found = {key.removeprefix("model."): lazy.read() for key, lazy in weights.tensors.items()}
    wanted = stock.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    converted(tmp_path / "timm.onnx", tmp_path / "out", *HEADS)
    save_file(vit().state_dict(), tmp_path / "timm.safetensors")
    converted(tmp_path / "timm.safetensors", tmp_path / "same", *HEADS)
    same(tmp_path / "out", {k: lazy.read() for k, lazy in open_weights(tmp_path / "same").tensors.items()})


# Laziness


@pytest.mark.parametrize("name", ["file.safetensors", "file.npz"])
def test_shapes_are_known_without_reading(tmp_path, name, monkeypatch):
    write(tmp_path / name, dict(state()))
    weights = open_weights(tmp_path / name)
    (tmp_path / name).unlink()
    assert {key: lazy.meta().shape for key, lazy in weights.tensors.items()} == {k: t.shape for k, t in state().items()}
    with pytest.raises(UserError):
        weights.tensors["a.weight"].read()


def test_the_pages_of_a_torch_file_are_given_back(tmp_path, monkeypatch):
    """Opened anew every SPAN bytes; what was handed out before stays whole."""
    torch.save({"model": state(), "epoch": 1}, tmp_path / "file.pth")
    opened = []
    original = pickles.unpickled
    monkeypatch.setattr(pickles, "SPAN", 100)
    monkeypatch.setattr(pickles, "unpickled", lambda path: opened.append(path) or original(path))
    weights = open_weights(tmp_path / "file.pth")
    for _ in range(2):
        found = {key: lazy.read() for key, lazy in weights.tensors.items()}
        assert all(torch.equal(found[key], tensor) for key, tensor in state().items())
    assert len(opened) > 2


# Damage


def save_as(kind, path):
    if kind == "safetensors":
        save_file(state(), path)
    elif kind == "npz":
        np.savez(path, **arrays())
    elif kind == "onnx":
        export(vit(), path)
    else:
        torch.save({"model": state()}, path, _use_new_zipfile_serialization=kind == "pth")


ENDINGS = {"safetensors": ".safetensors", "npz": ".npz", "pth": ".pth", "legacy": ".pth"}


@pytest.mark.parametrize("kind", ENDINGS)
def test_files_that_were_cut_off(tmp_path, kind):
    path, cut = tmp_path / f"whole{ENDINGS[kind]}", tmp_path / f"cut{ENDINGS[kind]}"
    save_as(kind, path)
    content = path.read_bytes()
    for end in sorted({0, 1, 2, 7, 8, 9, 40, 100, *range(500, len(content), 1499), len(content) - 1}):
        cut.write_bytes(content[:end])
        with pytest.raises(UserError) as error:
            {key: lazy.read() for key, lazy in open_weights(cut).tensors.items()}
        assert str(cut) in str(error.value) and "\n" not in str(error.value)
    cut.write_bytes(content[: len(content) // 2])
    refused("convert", cut, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ENDINGS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_give_tensors_or_a_sentence(tmp_path, kind, data):
    path, bad = tmp_path / f"whole{ENDINGS[kind]}", tmp_path / f"bad{ENDINGS[kind]}"
    if not path.exists():
        save_as(kind, path)
    content = bytearray(path.read_bytes())
    # Headers are where the trouble is: at the beginning, or in a zip at the end.
    for _ in range(data.draw(st.integers(1, 4))):
        near = data.draw(st.integers(0, min(1200, len(content) - 1)))
        content[near if data.draw(st.booleans()) else -near - 1] = data.draw(st.integers(0, 255))
    bad.write_bytes(content)
    try:
        {key: lazy.read() for key, lazy in open_weights(bad).tensors.items()}
    except UserError as error:
        assert "\n" not in str(error)


TEXT = {
    "empty": (b"", "is empty"),
    "web page": (b"\n <!DOCTYPE html><html><body>Not found</body></html>", "a page of text in place of the weights"),
    "answer of a server": (b'{"error": "Repository not found"}', "a page of text in place of the weights"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "pointer of Git LFS"),
    "random": (bytes((73 * i * i + 11 * i + 5) % 256 for i in range(4000)), "damaged"),
    "plain pickle": (pickle.dumps({"a": [1.0]}), "damaged"),
}


@pytest.mark.parametrize("ending", [".pth", ".bin", ".safetensors", ".npz", ".onnx"])
@pytest.mark.parametrize("what", TEXT)
def test_what_is_often_found_in_place_of_weights(tmp_path, what, ending):
    content, words = TEXT[what]
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    said = refused("convert", path, "--out", tmp_path / "new" / "out")
    assert words in said and str(path) in said and len(said) < 400
    assert sorted(tmp_path.iterdir()) == [path]


def zipped(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)


def npy(header):
    text = repr(header).encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: np.savez(path, a=np.array([{1: 2}], dtype=object)), "Python objects"),
        (lambda path: np.savez(path, a=np.array(["text"])), "can't convert"),
        (lambda path: np.savez(path, a=np.zeros(3, [("x", "f4"), ("y", "i4")])), "damaged"),
        (
            lambda path: zipped(path, a_npy=npy({"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)})),
            "bytes",
        ),
        (lambda path: zipped(path, a_npy=npy({"descr": "<f4", "fortran_order": False, "shape": (-1,)})), "bytes"),
        (lambda path: zipped(path, a_npy=npy({"descr": "<f4"})), "damaged"),
        (lambda path: zipped(path, a_npy=b"text"), "damaged"),
        (lambda path: zipped(path, weights_pth=b"text"), "unpack it first"),
        (lambda path: zipped(path), "holds no tensors"),
    ],
)
def test_bad_npz(tmp_path, make, words):
    make(tmp_path / "file.npz")
    said = refused("convert", tmp_path / "file.npz", "--out", tmp_path / "out")
    assert words in said
    assert not (tmp_path / "out").exists()


def test_an_array_that_is_damaged_within_is_noticed_when_it_is_read(tmp_path):
    np.savez(tmp_path / "file.npz", **{key: tensor.numpy() for key, tensor in vit().state_dict().items()})
    content = bytearray((tmp_path / "file.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "file.npz").write_bytes(content)
    assert "Bad CRC-32" in refused("convert", tmp_path / "file.npz", "--out", tmp_path / "out", *HEADS)
    assert not (tmp_path / "out").exists()


def test_archives_that_claim_to_be_far_larger_than_they_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("a.npy", npy({"descr": "<f4", "fortran_order": False, "shape": (2**31,)}))
        archive.filelist[0].file_size = 2**33
    assert "claims to unpack to" in refused("convert", tmp_path / "bomb.npz", "--out", tmp_path / "out")
    torch.save({"model": {"a": torch.zeros(1).expand(10**6, 10**6)}}, tmp_path / "wide.pth")
    assert "it promises 4,000,000,000,000 bytes" in refused("convert", tmp_path / "wide.pth", "--out", tmp_path / "out")


def test_tensors_that_are_no_plain_numbers(tmp_path):
    save_file({"a": torch.zeros(3).to(torch.float8_e4m3fn)}, tmp_path / "eight.safetensors")
    assert "a is stored as F8_E4M3" in refused("convert", tmp_path / "eight.safetensors", "--out", tmp_path / "out")
    for odd in (torch.eye(3).to_sparse(), "text", None):
        torch.save({"model": {"a": torch.zeros(2), "odd": odd}}, tmp_path / "odd.pth")
        assert "no dictionary of tensors" in refused("convert", tmp_path / "odd.pth", "--out", tmp_path / "out")
    whole = {key: tensor.to(torch.int8) for key, tensor in vit().state_dict().items()}
    torch.save(whole, tmp_path / "int8.pth")
    assert "is stored as torch.int8" in refused("convert", tmp_path / "int8.pth", "--out", tmp_path / "out", *HEADS)


@pytest.mark.parametrize(
    "content", [[1, 2], torch.zeros(3), {}, {"model": {}}, {1: torch.zeros(2)}, {"model": 3}, None]
)
def test_torch_files_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "file.pth")
    assert "no dictionary of tensors" in refused("convert", tmp_path / "file.pth", "--out", tmp_path / "out")


# Malice


class Runs:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(mark):
    touch = f"import pathlib; pathlib.Path({str(mark)!r}).touch()"
    return {
        "os.system": Runs(os.system, f"touch {mark}"),
        "eval": Runs(eval, f"__import__('os').system('touch {mark}')"),
        "exec": Runs(exec, touch),
        "Path.touch": Runs(pathlib.Path.touch, pathlib.PosixPath(mark)),
        "torch.load": Runs(torch.load, str(mark)),
        "runpy": Runs(__import__("runpy").run_path, str(mark)),
        "getattr": Runs(getattr, "text", "upper"),
        "numpy": Runs(np.load, str(mark)),
        "inside a record": argparse.Namespace(x=Runs(os.system, f"touch {mark}")),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", attacks("x"))
def test_nothing_of_a_file_is_run(tmp_path, name, zipped):
    mark = tmp_path / "ran"
    for number, wrap in enumerate((lambda x: x, lambda x: {"model": state(), "x": x}, lambda x: {"model": {"a": x}})):
        path = tmp_path / f"{number}.pth"
        torch.save(wrap(attacks(mark)[name]), path, _use_new_zipfile_serialization=zipped)
        said = refused("convert", path, "--out", tmp_path / "out")
        assert "nothing of it was run" in said, said
    assert not mark.exists() and not (tmp_path / "out").exists()


def test_plain_pickles_run_nothing_either(tmp_path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "file.pth").write_bytes(pickle.dumps(Runs(os.system, f"touch {tmp_path / 'ran'}"), protocol))
        refused("convert", tmp_path / "file.pth", "--out", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_stand_ins_hold_nothing_and_make_nothing(tmp_path):
    """Also where a file calls one with arguments, or gives it a state."""
    content = {
        "model": state(),
        "path": pathlib.PosixPath("/a/b"),
        "array": np.arange(3),
        "args": argparse.Namespace(x=1),
    }
    torch.save(content, tmp_path / "file.pth")
    opened = pickles.unpickled(tmp_path / "file.pth")
    assert not vars(opened["args"]) and not vars(opened["path"]) and type(opened["array"]).__name__ == "Record"


def fake_class(module, name, base, monkeypatch):
    """A class of a package that is not installed here, as it is when a publisher saves a file."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, path, sys.modules.get(path) or types.ModuleType(path))
    made = type(name, (base,), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], name, made, raising=False)
    return made


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("full_name", pickles.MAPPINGS[:-1])
def test_configs_beside_the_weights_are_passed_over(tmp_path, monkeypatch, full_name, zipped):
    """Microsoft's files hold a CfgNode of yacs: a dictionary with attributes, one inside the other."""
    made = fake_class(*full_name.rsplit(".", 1), dict, monkeypatch)
    config = made(MODEL=made(NAME="swin", DEPTHS=[2, 2]), LR=1e-3)
    vars(config)["__immutable__"] = True
    path = tmp_path / "file.pth"
    torch.save({"model": state(), "config": config, "epoch": 1}, path, _use_new_zipfile_serialization=zipped)
    monkeypatch.undo()
    same(path, container="model", others=["config", "epoch"])


@pytest.mark.parametrize("zipped", [True, False])
def test_records_beside_the_weights_are_passed_over(tmp_path, monkeypatch, zipped):
    history = fake_class("mmengine.logging.history_buffer", "HistoryBuffer", object, monkeypatch)()
    vars(history).update(_log_history=np.zeros(3), _count_history=np.ones(3, np.int64), _max_length=10)
    others = {
        "args": argparse.Namespace(lr=1e-3, out=pathlib.PosixPath("/data/x"), device=torch.device("cpu")),
        "max_accuracy": np.float64(81.2),
        "step": np.int64(7),
        "flag": np.bool_(True),
        "half": np.float32(0.5),
        "message_hub": {"log_scalars": OrderedDict(loss=history)},
        "groups": defaultdict(list, {1: [2]}),
        "names": {"a", "b"},
        "dtype": torch.float16,
    }
    torch.save({**others, "state_dict": state()}, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.undo()
    same(tmp_path / "file.pth", container="state_dict", others=[*others])


def test_a_whole_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "file.pth")
    said = refused("convert", tmp_path / "file.pth", "--out", tmp_path / "out")
    assert "torch.nn.modules.linear.Linear" in said and "nothing of it was run" in said


# Writing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_safetensors_are_written_as_the_library_writes_them(tmp_path, dtype):
    tensors = {key: (tensor * 10).to(dtype) for key, tensor in state().items()}
    write_safetensors(tmp_path / "ours.safetensors", tensors, tensors.items())
    same(tmp_path / "ours.safetensors", tensors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours.safetensors"]


def test_safetensors_of_another_shape_than_announced_are_no_file(tmp_path):
    with pytest.raises(RuntimeError, match="was expected"):
        write_safetensors(tmp_path / "x.safetensors", {"a": torch.empty(3)}, [("a", torch.empty(4))])
    with pytest.raises(ValueError):
        write_safetensors(tmp_path / "x.safetensors", {"a": torch.empty(3)}, [])
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("name, container", [("m.safetensors", ""), ("m.pth", ""), ("m.pth", "model"), ("m.npz", "")])
def test_what_is_written_for_others_reads_back(tmp_path, name, container):
    base = torch.randn(4, 6)
    tensors = {**state(), "view": base[1:3].T}
    write(tmp_path / name, tensors, container)
    same(tmp_path / name, tensors, container)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


# Failures in the middle


@pytest.fixture
def source(tmp_path):
    torch.save(vit().state_dict(), tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


def fails_after(count, error):
    """The writing of tensors that breaks at one of them."""
    original = files.write_safetensors

    def write(path, shapes, tensors):
        def broken():
            for number, pair in enumerate(tensors):
                if number == count:
                    raise error
                yield pair

        original(path, shapes, broken())

    return write


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("more", [(), ("--image-size", "48"), ("--num-labels", "3")])
def test_a_full_disk_leaves_everything_as_it_was(tmp_path, source, monkeypatch, more):
    out = tmp_path / "deep" / "out"
    monkeypatch.setattr(writing, "write_safetensors", fails_after(20, FULL))
    assert "the disk is full" in refused("convert", source, "--out", out, *HEADS, *more)
    assert sorted(tmp_path.iterdir()) == [source], "no folder where there was none"
    monkeypatch.undo()
    converted(source, out, *HEADS)
    before = tree(out)
    monkeypatch.setattr(writing, "write_safetensors", fails_after(20, FULL))
    assert "the disk is full" in refused("convert", source, "--out", out, *HEADS, *more)
    assert tree(out) == before


@pytest.mark.parametrize("to", ["timm", "torchvision", "transformers"])
def test_a_full_disk_while_writing_for_others(tmp_path, source, monkeypatch, to):
    converted(source, tmp_path / "out", *HEADS, "--to", to)
    before = tree(tmp_path / "out")

    def full(*arguments):
        raise FULL

    monkeypatch.setattr("hf_swin.conversion.targets.write", full)
    refused("convert", source, "--out", tmp_path / "out", *HEADS, "--to", to)
    assert tree(tmp_path / "out") == before
    refused("convert", source, "--out", tmp_path / "new", *HEADS, "--to", to)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on the size of files")
def test_a_disk_that_is_full_indeed(tmp_path, source):
    import resource
    import signal

    converted(source, tmp_path / "out", *HEADS)
    before = tree(tmp_path / "out")
    limits, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        said = refused("convert", source, "--out", tmp_path / "out", *HEADS)
        timm_said = refused("convert", source, "--out", tmp_path / "new", *HEADS, "--to", "torchvision")
        image_said = refused("convert", source, "--out", tmp_path / "new", *HEADS, "--image-size", 48)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, action)
    assert all("the disk is full" in words for words in (said, timm_said, image_said)), (said, timm_said, image_said)
    assert tree(tmp_path / "out") == before and not (tmp_path / "new").exists()


def test_an_interruption_leaves_nothing(tmp_path, source, monkeypatch):
    monkeypatch.setattr(writing, "write_safetensors", fails_after(5, KeyboardInterrupt()))
    result = run("convert", source, "--out", tmp_path / "out", *HEADS)
    assert result.exit_code == 130 and "interrupted; nothing was written" in result.stderr
    assert sorted(tmp_path.iterdir()) == [source]


def test_what_a_killed_run_left_is_cleared_away(tmp_path, source):
    out = tmp_path / "out"
    for left in (".converting-abc", ".saving"):
        (out / left).mkdir(parents=True)
        (out / left / "model.safetensors").write_bytes(b"half")
    converted(source, out, *HEADS)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_places_that_cannot_be_written(tmp_path, source):
    (tmp_path / "file").write_text("text")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        assert "cannot be written" in refused("convert", source, "--out", out, *HEADS)
    assert (tmp_path / "file").read_text() == "text"


def test_our_own_writer_is_what_transformers_reads(tmp_path):
    model = model_of("hf_vit")
    assert config_of("hf_vit").hidden_size == 32
    model.save_pretrained(tmp_path / "theirs")
    converted(tmp_path / "theirs", tmp_path / "ours")
    same(tmp_path / "ours", {k: lazy.read() for k, lazy in open_weights(tmp_path / "theirs").tensors.items()})


@pytest.mark.parametrize("first", [b" <", b" {"])
def test_a_header_of_any_length_is_no_page_of_text(first, tmp_path):
    """Safetensors begin with the length of their header, which may look like the beginning of a page."""
    length = int.from_bytes(first[::-1], "big")
    text = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(length)
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + text + bytes(4))
    assert list(files.open_weights(path).tensors) == ["x"]
