"""from_pretrained at other sizes than the file's: resized by the rules of the config, never refused or thrown away."""

import hashlib
import sys

import peft
import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification
from transformers.dynamic_module_utils import get_class_from_dynamic_module

import hf_swin
from hf_swin.modeling_attention import CosineWindowAttention
from hf_swin.modeling_resizing import adapt_channels, resize_bias_table, resize_patches, resize_positions

from compare import assert_close, relative_error
from tiny import FAMILIES, HEADS, OURS, STOCK, SWIN, VIT, class_of, config_of, model_of, pixels, shaken


ABSOLUTE = {"hf_vit": {}, "hf_swin": {"use_absolute_embeddings": True}, "hf_swin_v2": {"use_absolute_embeddings": True}}
SIZES = {
    "hf_vit": {"image_size": 56},
    "hf_swin": {"image_size": 96, "window_size": 6},
    "hf_swin_v2": {"image_size": 96, "window_size": 6},
}
TABLE = "relative_position_bias_table"
PATCHES = "patch_embeddings.projection.weight"


def same_bits(one, other) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def tables_of(model):
    return {key: tensor for key, tensor in model.state_dict().items() if key.endswith(TABLE)}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_opens_at_another_size(family, head, tmp_path):
    model = model_of(family, head, **ABSOLUTE[family])
    model.save_pretrained(tmp_path / "old")
    resized, info = type(model).from_pretrained(tmp_path / "old", **SIZES[family], output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    old, new = model.state_dict(), resized.state_dict()
    for key, tensor in old.items():
        if key.endswith("position_embeddings"):
            before = 1 if family == "hf_vit" else 0
            grids = model.config.grid, resized.config.grid
            expected = torch.cat([tensor[:, :before], resize_positions(tensor[:, before:], *grids, "bicubic")], dim=1)
        else:
            expected = resize_bias_table(tensor, (4, 4), (6, 6), "bicubic") if key.endswith(TABLE) else tensor
        assert torch.equal(new[key], expected), key
        assert (key in info["resized_keys"]) == (tensor.shape != expected.shape)
    assert resized.name_or_path == str(tmp_path / "old") and not resized.training
    resized.save_pretrained(tmp_path / "new")
    again = type(model).from_pretrained(tmp_path / "new")
    assert same_bits(resized, again) and again.config.to_dict()["image_size"] == SIZES[family]["image_size"]
    for one, other in zip(resized(pixels(96)).to_tuple(), again(pixels(96)).to_tuple(), strict=True):
        assert_close(one, other, 0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_resized_position_table_gives_what_resizing_on_the_fly_gives(family, tmp_path):
    """The window stays, so that only the position table is in question."""
    model = model_of(family, **ABSOLUTE[family])
    model.save_pretrained(tmp_path)
    resized = type(model).from_pretrained(tmp_path, image_size=(64, 96))
    assert_close(resized(pixels(64, 96)).logits, model(pixels(64, 96)).logits, 0.0)


@pytest.mark.parametrize("rule", ["bicubic_antialias", "bicubic_offset"])
def test_the_rule_may_be_said_at_load(rule, tmp_path):
    model = model_of("hf_vit")
    model.save_pretrained(tmp_path)
    table = type(model).from_pretrained(tmp_path, image_size=56, position_resizing=rule).vit.embeddings
    expected = resize_positions(model.vit.embeddings.position_embeddings[:, 1:], (4, 4), (7, 7), rule)
    assert torch.equal(table.position_embeddings[:, 1:], expected)
    swin = model_of("hf_swin")
    swin.save_pretrained(tmp_path / "swin")
    tables = tables_of(type(swin).from_pretrained(tmp_path / "swin", window_size=5, bias_resizing="geometric_cubic"))
    for key, table in tables_of(swin).items():
        assert torch.equal(tables[key], resize_bias_table(table, (4, 4), (5, 5), "geometric_cubic"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_sizes_give_the_same_bits_and_the_folder_is_never_written(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path)
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    numbers = OURS[family][1]
    same = {name: numbers[name] for name in ("image_size", "window_size", "patch_size") if name in numbers}
    first = type(model).from_pretrained(tmp_path, **same, num_channels=3)
    type(model).from_pretrained(tmp_path, **SIZES[family])
    last = type(model).from_pretrained(tmp_path)
    assert same_bits(model, first) and same_bits(model, last)
    assert first.config.to_dict() == last.config.to_dict()
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_classes_and_config_objects_and_config_folders_resize_alike(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path)
    sizes = {**SIZES[family], "num_channels": 1}
    direct = type(model).from_pretrained(tmp_path, **sizes)
    config = AutoConfig.from_pretrained(tmp_path, **sizes)
    config.save_pretrained(tmp_path / "config")
    written = config.to_dict()
    others = [
        AutoModelForImageClassification.from_pretrained(tmp_path, **sizes),
        type(model).from_pretrained(tmp_path, config=config),
        type(model).from_pretrained(tmp_path, config=config_of(family, **sizes)),
        type(model).from_pretrained(tmp_path, config=str(tmp_path / "config")),
    ]
    for other in others:
        assert same_bits(direct, other)
        assert_close(direct(pixels(96)[:, :1]).logits, other(pixels(96)[:, :1]).logits, 0.0)
    assert config.to_dict() == written, "the user's own config was changed"


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_and_channels(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path)
    patch = 4 if family == "hf_vit" else 2
    resized = type(model).from_pretrained(tmp_path, patch_size=patch, num_channels=1)
    key = next(key for key in model.state_dict() if key.endswith(PATCHES))
    expected = resize_patches(adapt_channels(model.state_dict()[key], 1), (patch, patch))
    assert torch.equal(resized.state_dict()[key], expected) and resized.config.encoder_stride == patch * (
        1 if family == "hf_vit" else 2
    )
    grey = pixels(48)[:, :1]
    colour_blind = type(model).from_pretrained(tmp_path, num_channels=1)
    assert_close(colour_blind(grey).logits, model(grey.expand(-1, 3, -1, -1)).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_of_other_channels_is_refused_or_started_anew(family, tmp_path):
    model = model_of(family, "ForMaskedImageModeling")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="start a new decoder with ignore_mismatched_sizes=True"):
        type(model).from_pretrained(tmp_path, num_channels=1)
    again, info = type(model).from_pretrained(
        tmp_path, num_channels=1, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {key for key, *_ in info["mismatched_keys"]} == {"decoder.projection.weight", "decoder.projection.bias"}
    assert again(pixels(64)[:, :1]).reconstruction.shape == (2, 1, 64, 64)
    assert relative_error(again.decoder.projection.weight[:64], model.decoder.projection.weight[:64]) > 0.1


@pytest.mark.parametrize("stock", STOCK, ids=str)
def test_stock_folders_open_at_other_sizes(stock, tmp_path):
    theirs = stock.build()
    theirs.save_pretrained(tmp_path)
    ours = getattr(hf_swin, stock.ours)
    plain = ours.from_pretrained(tmp_path)
    sizes = {"window_size": 6, "image_size": 96} if "window_size" in stock.numbers else {"image_size": 64}
    resized, info = ours.from_pretrained(tmp_path, **sizes, output_loading_info=True)
    tables = [key for key in plain.state_dict() if key.endswith((TABLE, "position_embeddings"))]
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert info.get("resized_keys", set()) == set(tables)
    if "window_size" not in stock.numbers:
        names = {"HfViTForMaskedImageModeling": "reconstruction", "HfViTBackbone": "feature_maps"}
        name = names.get(stock.ours, "logits" if "Classification" in stock.ours else "last_hidden_state")
        with torch.no_grad():
            answers = [
                getattr(model(pixels(64), **call), name) for model, call in ((resized, {}), (theirs, stock.call))
            ]
        if name != "reconstruction":  # the stock decoder paints squares of its own stride
            assert_close(*answers, 1e-5 if name != "feature_maps" else 1e-4)


def test_d12_what_transformers_refuses(tmp_path):
    """D12: four lines that raise there, and the one that sets the learned bias to zero."""
    swin = shaken(transformers.SwinForImageClassification(transformers.SwinConfig(**SWIN)))
    swin.save_pretrained(tmp_path / "swin")
    vit = shaken(transformers.ViTForImageClassification(transformers.ViTConfig(**{**VIT, "intermediate_size": 64})))
    vit.save_pretrained(tmp_path / "vit")
    ours, vit_ours = hf_swin.HfSwinForImageClassification, hf_swin.HfViTForImageClassification
    for mismatched in ({}, {"ignore_mismatched_sizes": True}):
        grown = ours.from_pretrained(tmp_path / "swin", window_size=8, **mismatched)
        tables = {key: table.std() for key, table in tables_of(ours.from_pretrained(tmp_path / "swin")).items()}
        for key, table in tables_of(grown).items():
            assert table.shape[0] == 225 and table.std() > 0.5 * tables[key] > 0
    assert vit_ours.from_pretrained(tmp_path / "vit", image_size=64).vit.embeddings.position_embeddings.shape[1] == 65
    assert ours.from_pretrained(tmp_path / "swin", num_channels=1)(pixels(64)[:, :1]).logits.isfinite().all()
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):  # a head is learned anew only when asked for
        ours.from_pretrained(tmp_path / "swin", num_labels=7, window_size=8)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_a_missing_head_and_keys_of_others_are_reported_as_ever(family, tmp_path, caplog):
    model = model_of(family, **ABSOLUTE[family])
    model.save_pretrained(tmp_path / "head")
    model.base_model.save_pretrained(tmp_path / "body")
    sizes = {**SIZES[family], "output_loading_info": True}
    again, info = type(model).from_pretrained(
        tmp_path / "head", num_labels=7, ignore_mismatched_sizes=True, dtype="bfloat16", **sizes
    )
    assert again.classifier.out_features == 7 and again.dtype == torch.bfloat16
    shapes = {("classifier.weight", (5, again.classifier.in_features), (7, again.classifier.in_features))}
    assert {(key, tuple(old), tuple(new)) for key, old, new in info["mismatched_keys"]} == {
        *shapes,
        ("classifier.bias", (5,), (7,)),
    }
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.enable_propagation()
    caplog.clear()
    headed, info = type(model).from_pretrained(tmp_path / "body", **sizes)
    transformers.utils.logging.disable_propagation()
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert len({id(record) for record in caplog.records if "classifier.weight" in record.message}) == 1, "reported once"
    assert transformers.utils.logging.get_verbosity() == verbosity
    assert headed.classifier.weight.isfinite().all() and headed.classifier.weight.std() < 0.1
    narrow = class_of(family, "Model").config_class.from_pretrained(tmp_path / "body", **SIZES[family])
    if family != "hf_vit":
        narrow.depths = [1, 2]
        _, info = class_of(family, "Model").from_pretrained(tmp_path / "body", config=narrow, output_loading_info=True)
        assert info["unexpected_keys"] and all("stages.0.blocks.1" in key for key in info["unexpected_keys"])


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_folders_types_and_devices(family, tmp_path):
    model = model_of(family, **ABSOLUTE[family])
    model.save_pretrained(tmp_path / "repo" / "sub", max_shard_size="20KB")
    assert len(list((tmp_path / "repo" / "sub").glob("*.safetensors"))) > 1
    load = type(model).from_pretrained
    whole = load(tmp_path / "repo" / "sub", **SIZES[family])
    assert same_bits(whole, load(tmp_path / "repo", subfolder="sub", **SIZES[family]))
    expected = whole(pixels(48)).logits
    half = load(tmp_path / "repo" / "sub", dtype=torch.float16, **SIZES[family])
    assert half.dtype == torch.float16
    key = next(key for key in whole.state_dict() if key.endswith("position_embeddings"))
    assert torch.equal(half.state_dict()[key], whole.state_dict()[key].half()), "resized before it was rounded"
    parts = "layers" if family == "hf_vit" else "stages"
    body = model.base_model_prefix
    device_map = {name: "cpu" for name, _ in model.base_model.named_children()}
    device_map = {f"{body}.{name}": "disk" if name in (parts, "embeddings") else "cpu" for name in device_map}
    offloaded = load(
        tmp_path / "repo" / "sub",
        device_map={**device_map, "classifier": "cpu"},
        offload_folder=tmp_path / "offload",
        **SIZES[family],
    )
    assert_close(offloaded(pixels(48)).logits, expected, 1e-6)
    assert_close(load(tmp_path / "repo" / "sub", device_map="auto", **SIZES[family])(pixels(48)).logits, expected, 0.0)
    half.save_pretrained(tmp_path / "half")
    exact = load(tmp_path / "half", dtype=torch.float32, image_size=80)
    narrow = load(tmp_path / "half", image_size=80)
    assert narrow.dtype == torch.float16
    assert torch.equal(exact.state_dict()[key].half(), narrow.state_dict()[key])
    assert not torch.equal(exact.state_dict()[key], narrow.state_dict()[key].float())


def test_arguments_of_the_model_and_of_the_attention_pass_through(tmp_path):
    model_of("hf_vit", "Model", pooler="model").save_pretrained(tmp_path)
    load = hf_swin.HfViTModel.from_pretrained
    resized = load(tmp_path, image_size=64, add_pooling_layer=False, attn_implementation="eager")
    assert resized.pooler is None and resized.config._attn_implementation == "eager"
    assert load(tmp_path, image_size=64).pooler is not None
    backbone = model_of("hf_swin", "Backbone", out_features=["stage1", "stage2"])
    backbone.save_pretrained(tmp_path / "maps")
    first, info = hf_swin.HfSwinBackbone.from_pretrained(
        tmp_path / "maps", window_size=6, out_features=["stage1"], output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and len(first.stages) == 1


def test_swin_windows_shrink_to_the_grid_and_are_made_of_each_stages_own(tmp_path):
    model = model_of("hf_swin", image_size=48, window_size=[8, 6])
    model.save_pretrained(tmp_path)
    wide = AutoModel.from_pretrained(tmp_path, image_size=80, window_size=12)
    assert wide.config.window_size == [12, 10]
    for stage, (old, new) in enumerate([(8, 12), (6, 10)]):
        tables = (m.stages[stage].blocks[1].attention.relative_position_bias_table for m in (model.swin, wide))
        table, resized = tables
        assert torch.equal(resized, resize_bias_table(table, (old, old), (new, new), "bicubic"))
    assert same_bits(model.swin, AutoModel.from_pretrained(tmp_path, image_size=96)), "a v1 table knows no image size"


@pytest.mark.parametrize("sizes", [{"image_size": 128}, {"image_size": 128, "window_size": 8}, {"image_size": 32}])
def test_swin_v2_biases_stay_those_of_the_weights(sizes, tmp_path):
    """Window 16 is clamped to the 8 tokens of the last stage at 64 pixels, and is so no more at 128."""
    model = model_of("hf_swin_v2", window_size=16)
    model.save_pretrained(tmp_path)
    resized = AutoModelForImageClassification.from_pretrained(tmp_path, **sizes)
    pairs = zip(
        *([m for m in x.modules() if isinstance(m, CosineWindowAttention)] for x in (model, resized)), strict=True
    )
    cpu = torch.device("cpu")
    for old, new in pairs:
        assert new.spec.reference_window == old.spec.window
        side = min(old.spec.window[0], new.spec.window[0])
        biases = []
        for attention in (old, new):
            offsets = hf_swin.modeling_windows.log_offsets((side, side), attention.spec.reference_window, cpu)
            biases.append(attention.continuous_position_bias(offsets))
        assert torch.equal(*biases)
    resized.save_pretrained(tmp_path / "new")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "new")
    assert again.config.pretrained_window_sizes == resized.config.pretrained_window_sizes != [0, 0]
    back = AutoModelForImageClassification.from_pretrained(tmp_path / "new", image_size=64, window_size=16)
    assert_close(back(pixels(64)).logits, model(pixels(64)).logits, 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_remote_code_resizes_too(family, tmp_path, monkeypatch):
    model = model_of(family)
    model.save_pretrained(tmp_path / "repo")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "modules"), *sys.path])
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)
    name = type(model).__name__
    story = {"hf_vit": "modeling_vit", "hf_swin": "modeling_swin", "hf_swin_v2": "modeling_swin_v2"}[family]
    remote = get_class_from_dynamic_module(f"{story}.{name}", str(tmp_path / "repo"))
    assert remote is not type(model) and remote.__module__.startswith("transformers_modules")
    ours = type(model).from_pretrained(tmp_path / "repo", **SIZES[family])
    assert same_bits(ours, remote.from_pretrained(tmp_path / "repo", **SIZES[family]))
    config = AutoConfig.from_pretrained(tmp_path / "repo", **SIZES[family])  # of this package, not of the copy
    assert same_bits(ours, remote.from_pretrained(tmp_path / "repo", config=config))


def test_an_adapter_is_not_silently_left_out(tmp_path):
    model_of("hf_vit").save_pretrained(tmp_path / "base")
    base = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match="has sizes of its own; save the merged model"):
        AutoModelForImageClassification.from_pretrained(tmp_path / "adapter", image_size=64)


def test_weights_without_a_config_and_nothing_at_all_go_the_ordinary_way(tmp_path):
    model = model_of("hf_vit")
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    again = type(model).from_pretrained(tmp_path, config=config_of("hf_vit"))
    assert same_bits(model, again)
    state = dict(model.state_dict())
    assert same_bits(model, type(model).from_pretrained(None, config=config_of("hf_vit"), state_dict=state))
