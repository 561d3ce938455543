"""What models cost: numbers worked out by hand, the formula against the count, published figures, the command."""

import dataclasses
import json
from math import prod

import pytest
import transformers
from typer.testing import CliRunner

from hf_swin import HfViTConfig
from hf_swin.cli import app
from hf_swin.complexity import attention, by_formula, complexity, count, on_meta, window_attention
from hf_swin.complexity_table import in_units
from hf_swin.presets import MODELS

from tiny import SWIN, VIT, config_of


def total(parts, field="formula"):
    return sum(getattr(part, field) for part in parts)


def by_hand_kept(tokens, channels, heads, met, hidden):
    """Bytes that a pre-norm block keeps, whose tokens each meet `met` tokens in attention.

    As wide as a token: what both norms read and give, query, key, value, and what they mix. Twice as wide as the MLP:
    around its activation. The weights of the heads. Mean and deviation of both norms.
    """
    return 4 * (8 * tokens * channels + 2 * tokens * hidden + heads * tokens * met + 4 * tokens)


def test_a_tiny_vit_by_hand():
    """32 pixels in patches of 8: 16 tokens of 32 channels and a class token; 3 blocks of 4 heads; 5 labels."""
    embeddings, blocks, head = complexity(config_of("hf_vit"))
    assert (embeddings.grid, embeddings.prefix, embeddings.channels) == ((4, 4), 1, 32)
    assert embeddings.formula == 16 * (3 * 8 * 8) * 32
    assert embeddings.parameters == (3 * 8 * 8) * 32 + 32 + 32 + 17 * 32, "patches with bias, class token, positions"
    assert embeddings.activations == 4 * 3 * 32 * 32, "the pixels"
    projections, products, mlp = 4 * 17 * 32 * 32, 2 * 17 * 17 * 32, 2 * 17 * 32 * 64
    assert (blocks.blocks, blocks.formula) == (3, 3 * (projections + products + mlp))
    assert blocks.parameters == 3 * (4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32)
    assert blocks.activations == 3 * by_hand_kept(17, 32, 4, 17, 64)
    assert (head.formula, head.parameters) == (32 * 5, 32 * 5 + 5 + 2 * 32)
    assert head.activations == 4 * (17 * 32 + 2 * 17 + 17 * 32), "what the norm reads, its statistics, what it gives"


def test_a_tiny_swin_by_hand():
    """64 pixels in patches of 4: 16x16 tokens of 24 channels, then 8x8 of 48; windows of 4x4; 2 blocks a stage."""
    embeddings, first, second, head = complexity(config_of("hf_swin"))
    assert embeddings.formula == 256 * (3 * 4 * 4) * 24
    block = 4 * 256 * 24 * 24 + 2 * 16 * 256 * 24 + 2 * 256 * 24 * 96
    assert (first.grid, first.channels, first.blocks) == ((16, 16), 24, 2)
    assert first.formula == 2 * block + 64 * (4 * 24) * (2 * 24), "two blocks, then merging"
    table = 7 * 7 * 2
    assert first.parameters == 2 * (4 * (24 * 24 + 24) + 2 * 24 * 96 + 96 + 24 + 4 * 24 + table) + 96 * 48 + 2 * 96
    merging = 4 * (2 * 64 * 96 + 2 * 64)
    assert first.activations == 2 * by_hand_kept(256, 24, 2, 16, 96) + merging
    assert second.formula == 2 * (4 * 64 * 48 * 48 + 2 * 16 * 64 * 48 + 2 * 64 * 48 * 192)
    assert second.activations == 2 * by_hand_kept(64, 48, 4, 16, 192)
    assert (head.grid, head.formula, head.parameters) == ((8, 8), 48 * 5, 48 * 5 + 5 + 2 * 48)


AWKWARD = [
    *(("hf_swin", {}, size) for size in ((48, 80), (50, 77), (12, 12), (4, 4), (8, 70))),
    *(("hf_swin", {"small_input": rule}, (12, 70)) for rule in ("clamp", "square", "pad", "fixed")),
    ("hf_swin", {"always_partition": True}, (12, 12)),
    ("hf_swin", {"mask_padding": True}, (50, 77)),
    ("hf_swin", {"window_size": [[2, 5], [3, 4]]}, (64, 64)),
    ("hf_swin", {"use_absolute_embeddings": True, "num_channels": 1, "patch_size": [2, 4]}, (33, 65)),
    ("hf_swin", {"num_labels": 0, "mlp_ratio": 2.5, "qkv_bias": False}, (64, 64)),
    *(("hf_swin_v2", {"small_input": rule}, size) for rule in ("clamp", "fixed") for size in ((64, 64), (9, 70))),
    ("hf_swin_v2", {"pretrained_window_sizes": [3, 0], "bias_hidden_size": 7}, (50, 77)),
    ("hf_swin_v2", {"window_size": [[2, 5], [3, 4]]}, (64, 64)),
    *(("hf_vit", {}, size) for size in ((32, 32), (30, 50), (8, 8))),
    ("hf_vit", {"use_swiglu_ffn": True, "layerscale_value": 1.0, "pooling": "class_and_mean"}, (32, 48)),
    ("hf_vit", {"num_register_tokens": 4, "pooling": "class_and_mean"}, (40, 40)),
    ("hf_vit", {"use_distillation_token": True, "use_distillation_head": True}, (32, 32)),
    ("hf_vit", {"pooler": "always", "pooler_output_size": 20}, (32, 32)),
    ("hf_vit", {"pooler": "always"}, (32, 32)),
    ("hf_vit", {"pooler": "model"}, (32, 32)),
    ("hf_vit", {"use_class_token": False, "pooling": "mean", "norm_after_pooling": True}, (32, 32)),
    ("hf_vit", {"position_embedding_type": "sinusoidal_2d", "patch_size": [8, 4]}, (32, 33)),
]


@pytest.mark.parametrize(("family", "numbers", "size"), AWKWARD)
def test_the_formula_is_the_count_of_every_part(family, numbers, size):
    parts = complexity(config_of(family, **numbers), size)
    assert [part.formula for part in parts] == [part.counted for part in parts]
    assert all(part.formula > 0 for part in parts[:-1])


@pytest.mark.parametrize("name", ["vit-h14", "swin-t", "swin-v2-t"])
def test_the_formula_is_the_count_of_presets_on_another_image(name):
    parts = complexity(MODELS[name](), (300, 500))
    assert [part.formula for part in parts] == [part.counted for part in parts]


def test_parameters_are_those_of_the_whole_model():
    for family in ("hf_vit", "hf_swin", "hf_swin_v2"):
        config = config_of(family)
        assert total(complexity(config), "parameters") == on_meta(config).num_parameters()


def test_equations_of_the_paper_are_the_count_of_each_attention():
    """Between the end of the norm and the end of attention there is nothing else that multiplies."""
    for name, size in (("swin-t", (224, 224)), ("vit-b16", (224, 224)), ("swin-t", (300, 500))):
        model = on_meta(MODELS[name]())
        blocks = [module for module in model.modules() if hasattr(module, "attention_norm")]
        ends = [module for block in blocks for module in (block.attention_norm, block.attention)]
        counted = [operations for operations, _ in count(model, ends, size)][1::2][: len(blocks)]
        if name == "vit-b16":
            assert counted == [attention(197, 768)] * 12
            continue
        grids = [part.grid for part in by_formula(model.config, size) for _ in range(part.blocks)]
        layouts = [block.attention.layout(grid) for block, grid in zip(blocks, grids, strict=True)]
        widths = [block.attention.spec.hidden_size for block in blocks]
        expected = [
            window_attention(prod(layout.padded), width, layout.window)
            for layout, width in zip(layouts, widths, strict=True)
        ]
        assert counted == expected


# G operations and M parameters as published: Swin Transformer (2021), table 1; the model zoo of Swin Transformer V2
# (2022) at 256 pixels; ViT by DeiT (2021), torchvision and timm. Of v2-L at 192 pixels only the parameters are.
PUBLISHED = {
    "vit-t16": (1.3, 6),
    "vit-s16": (4.6, 22),
    "vit-b16": (17.6, 87),
    "vit-l16": (61.6, 304),
    "vit-h14": (167.3, 632),
    "swin-t": (4.5, 28),
    "swin-s": (8.7, 50),
    "swin-b": (15.4, 88),
    "swin-l": (34.5, 197),
    "swin-v2-t": (5.9, 28),
    "swin-v2-s": (11.5, 50),
    "swin-v2-b": (20.3, 88),
    "swin-v2-l": (None, 197),
}


@pytest.mark.parametrize("name", MODELS)
def test_presets_have_the_published_figures_by_formula_and_by_count(name):
    parts = complexity(MODELS[name](num_labels=1000))
    operations, parameters = PUBLISHED[name]
    assert round(total(parts, "parameters") / 1e6) == parameters
    assert operations in (None, round(total(parts) / 1e9, 1))
    assert [part.formula for part in parts] == [part.counted for part in parts]
    if name == "vit-b16":  # the 86 M of the paper are without the classifier
        assert round(total(parts[:-1], "parameters") / 1e6) == 86


@pytest.mark.parametrize(("name", "published"), [("t", 6.6), ("s", 12.6), ("b", 21.8), ("l", 47.5)])
def test_windows_of_16_have_the_published_operations(name, published):
    """The publisher's count leaves out the bias network, which is more than a rounding only in windows this large."""
    config = MODELS[f"swin-v2-{name}"](image_size=256, window_size=16, num_labels=1000)
    blocks = [block for stage in config.stage_specs() for block in stage.blocks]
    network = sum((2 * min(16, block.home_grid[0]) - 1) ** 2 * (2 + block.num_heads) * 512 for block in blocks)
    assert round((total(by_formula(config, (256, 256))) - network) / 1e9, 1) == published


def test_swin_is_linear_in_pixels_and_vit_is_not():
    """Sides that are whole windows in every stage, so that nothing is padded."""
    sides = (224, 448, 896, 1792)
    swin, vit = MODELS["swin-t"](num_labels=0), MODELS["vit-b16"](num_labels=0)
    assert len({total(by_formula(swin, (side, side))) / side**2 for side in sides}) == 1
    shares = [total(by_formula(vit, (side, side))) / side**2 for side in sides]
    assert shares == sorted(shares) and shares[-1] > 2 * shares[0]
    # What grows with the square of the tokens, doubled sides: sixteen times as much.
    products = [attention(tokens, 768) - 4 * tokens * 768**2 for tokens in (196, 784, 3136)]
    assert products[1] == 16 * products[0] and products[2] == 16 * products[1]


def test_memory_does_not_depend_on_the_kernel_or_the_dtype_of_the_config():
    config = config_of("hf_swin", dtype="bfloat16")
    config._attn_implementation = "sdpa"
    assert complexity(config) == complexity(config_of("hf_swin"))


def run(*arguments):
    result = CliRunner().invoke(app, ["complexity", *map(str, arguments)], env={"COLUMNS": "80"})
    return result.exit_code, result.output


def test_the_command_prints_a_table_of_80_columns():
    code, output = run("swin-t")
    lines = output.splitlines()
    assert code == 0 and max(map(len, lines)) <= 80
    assert lines[0].strip() == "swin-t, 224x224 pixels, 1,000 labels"
    rows = {line.split("  ")[0].strip(): line.split() for line in lines}
    assert rows["stage 3"][2:8] == ["14x14", "384", "6", "11.8", "M", "2.18"]
    assert [" ".join(pair) for pair in zip(rows["total"][2:8:2], rows["total"][3:8:2], strict=True)] == [
        "28.3 M",
        "4.49 G",
        "4.49 G",
    ]
    assert "An operation is a multiplication with its addition" in output


def test_the_command_takes_rectangles_and_long_names_fit():
    code, output = run("swin-v2-t", "--image-size", "3000X5000")
    assert code == 0 and "3000x5000 pixels" in output and "750x1250" in output
    assert max(map(len, output.splitlines())) <= 80 and "…" not in output
    code, output = run("vit-b16", "--image-size", 384)
    assert code == 0 and "24x24+1" in output and "55.5 G" in output


@pytest.mark.parametrize(
    ("stock", "numbers"),
    [
        ("SwinConfig", SWIN),
        ("Swinv2Config", SWIN),
        ("ViTConfig", VIT),
        ("DeiTConfig", VIT),
        ("Dinov2Config", VIT),
        ("Dinov2WithRegistersConfig", VIT),
    ],
)
def test_stock_configs_open_by_their_folder(stock, numbers, tmp_path):
    getattr(transformers, stock)(**numbers).save_pretrained(tmp_path)
    code, output = run(tmp_path)
    assert code == 0 and "5 labels" in output


def test_our_configs_open_by_their_folder(tmp_path):
    config_of("hf_vit", num_register_tokens=4).save_pretrained(tmp_path)
    code, output = run(tmp_path)
    assert code == 0 and "4x4+5" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet50"], "'resnet50' is no model: give a folder with a config.json, a Hub id, or vit-t16, vit-s16,"),
        (["swin-t", "--image-size", "big"], "--image-size 'big' is no size: write 224, or 300x500"),
        (["swin-t", "--image-size", "0"], "--image-size 0: a patch is 4x4 pixels"),
        (["vit-b16", "--image-size", "224x15"], "--image-size 224x15: a patch is 16x16 pixels"),
    ],
)
def test_mistakes_are_said_in_one_sentence(arguments, words):
    code, output = run(*arguments)
    assert code == 2 and words in " ".join(output.split()) and "Traceback" not in output


def test_other_families_and_broken_configs_are_said_in_one_sentence(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "resnet"}))
    code, output = run(tmp_path)
    assert code == 2 and "is a 'resnet' model: give one of deit, dinov2" in " ".join(output.split())
    config.write_text(json.dumps({"model_type": "hf_vit", "hidden_size": 100, "num_attention_heads": 3}))
    code, output = run(tmp_path)
    assert code == 2 and "hidden_size 100 does not divide into 3 heads" in " ".join(output.split())


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 "), (999, "999 "), (1000, "1.00 k"), (28_288_354, "28.3 M"), (4_490_566_656, "4.49 G"), (10**15, "1.00 P")],
)
def test_units(number, words):
    assert in_units(number) == words


def test_short_names_are_those_of_all_published_sizes():
    assert [name for name in MODELS if name.startswith("vit")] == [
        "vit-t16",
        "vit-s16",
        "vit-b16",
        "vit-l16",
        "vit-h14",
    ]
    assert [name for name in MODELS if "v2" in name] == ["swin-v2-t", "swin-v2-s", "swin-v2-b", "swin-v2-l"]
    assert len(MODELS) == 13 and {"swin-t", "swin-s", "swin-b", "swin-l"} < set(MODELS)
    assert isinstance(MODELS["vit-s16"](image_size=96), HfViTConfig) and MODELS["swin-v2-l"]().image_size == 192


def test_a_formula_alone_leaves_the_rest_at_zero():
    for part, whole in zip(by_formula(config_of("hf_vit"), (32, 32)), complexity(config_of("hf_vit")), strict=True):
        assert part == dataclasses.replace(whole, counted=0, parameters=0, activations=0)
