"""Saving and loading: the same bits, in one file or many, on disk or in memory, with another head or type."""

import json
import os

import pytest
import torch
import transformers
from safetensors import safe_open
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    ViTImageProcessor,
)

import hf_swin

from compare import assert_close
from tiny import FAMILIES, HEADS, OURS, class_of, config_of, model_of, pixels, shaken


AUTO = {
    "Model": AutoModel,
    "ForImageClassification": AutoModelForImageClassification,
    "ForMaskedImageModeling": AutoModelForMaskedImageModeling,
    "Backbone": AutoBackbone,
}


def same_bits(one, other) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_auto_classes_build_and_load_every_class(family, head, tmp_path):
    config = config_of(family)
    built = AUTO[head].from_config(config)
    assert type(built) is class_of(family, head)
    assert AUTO[head]._model_mapping[type(config)] is class_of(family, head)
    built.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is OURS[family][0]
    if head != "Backbone":  # AutoBackbone.from_pretrained asks the Hub for every class in transformers 5.23
        assert same_bits(built, AUTO[head].from_pretrained(tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_image_processor_is_found_by_the_config(family, tmp_path):
    config_of(family).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, ViTImageProcessor) and processor.size["height"] == 48
    written = json.loads((tmp_path / "preprocessor_config.json").read_text())
    del written["image_processor_type"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), ViTImageProcessor)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_folders_still_open_in_stock_classes(family, tmp_path):
    stock = {"hf_vit": "ViT", "hf_swin": "Swin", "hf_swin_v2": "Swinv2"}[family]
    getattr(transformers, f"{stock}Config")().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)).__name__ == f"{stock}Config"


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_give_the_same_bits(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len([name for name in os.listdir(tmp_path) if name.endswith(".safetensors")]) > 1
    assert same_bits(model, type(model).from_pretrained(tmp_path))


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_on_disk_and_in_memory_give_the_same_answer(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path / "model")
    body = model.base_model_prefix
    rows = "layers" if family == "hf_vit" else "stages"
    places = {f"{body}.embeddings": "cpu", f"{body}.{rows}": "disk", f"{body}.layernorm": "cpu", "classifier": "disk"}
    if family == "hf_vit":
        places[f"{body}.pooler"] = "cpu"
    again = type(model).from_pretrained(tmp_path / "model", device_map=places, offload_folder=tmp_path / "offload")
    assert_close(again(pixels(64)).logits, model(pixels(64)).logits, 0.0)
    auto = type(model).from_pretrained(tmp_path / "model", device_map="auto")
    assert_close(auto(pixels(64)).logits, model(pixels(64)).logits, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_loading_in_another_type(family, dtype, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path)
    half = type(model).from_pretrained(tmp_path, dtype=dtype)
    assert half.classifier.weight.dtype == dtype
    if family == "hf_swin_v2":  # what makes scores of ±100 stays exact
        assert {p.dtype for n, p in half.named_parameters() if "logit_scale" in n or "position_bias" in n} == {
            torch.float32
        }
    half.save_pretrained(tmp_path / "half")
    assert same_bits(half, type(model).from_pretrained(tmp_path / "half"))
    assert half(pixels(40)).logits.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_for_other_labels(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path)
    again, info = type(model).from_pretrained(
        tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert again.classifier.out_features == 7
    assert {key for key, *_ in info["mismatched_keys"]} == {"classifier.weight", "classifier.bias"}
    assert same_bits(model.base_model, again.base_model)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_bodies_exchange_weights(family, tmp_path):
    model = model_of(family)
    model.save_pretrained(tmp_path / "head")
    body = class_of(family, "Model").from_pretrained(tmp_path / "head")
    assert same_bits(body, model.base_model)
    body.save_pretrained(tmp_path / "body")
    assert same_bits(body, type(model).from_pretrained(tmp_path / "body").base_model)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_on_disk_has_the_published_names(family, tmp_path):
    model_of(family).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    layer = {
        "hf_vit": "vit.encoder.layer.0.attention.attention.query.weight",
        "hf_swin": "swin.encoder.layers.0.blocks.1.attention.self.relative_position_bias_table",
        "hf_swin_v2": "swinv2.encoder.layers.0.blocks.1.attention.self.continuous_position_bias_mlp.2.weight",
    }
    assert layer[family] in names
    assert not any(word in name for name in names for word in ("q_proj", "stages", "merging", "attention_norm"))


def test_a_dinov2_folder_saved_again_keeps_its_numbers(tmp_path):
    stock = transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28)
    )
    stock.save_pretrained(tmp_path / "stock")
    ours = hf_swin.HfViTForImageClassification.from_pretrained(tmp_path / "stock")
    ours.save_pretrained(tmp_path / "ours")
    again, info = AutoModelForImageClassification.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and same_bits(ours, again)


def test_a_config_object_of_a_stock_class_opens_too():
    config = hf_swin.HfSwinConfig.from_dict(transformers.SwinConfig(window_size=12).to_dict())
    assert config.model_type == "hf_swin" and config.window_size == 12 and config.small_input == "square"


def test_a_stock_pooler_is_kept_by_the_model_and_dropped_for_fine_tuning(tmp_path):
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    assert hf_swin.HfViTModel.from_pretrained(tmp_path).pooler is not None
    model, info = hf_swin.HfViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert model.vit.pooler is None and not info["unexpected_keys"]
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}


def test_classifiers_read_the_pooler_where_the_config_says_so():
    model = model_of("hf_vit", pooler="always", pooler_output_size=12, pooling="mean")
    assert model.classifier.in_features == 12 and model.vit.pooler.dense.in_features == 32
    pooled = model.vit(pixels(32)).pooler_output
    assert_close(model(pixels(32)).logits, model.classifier(pooled), 0.0)


def test_an_encoder_of_mae_opens(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = transformers.ViTMAEConfig(**sizes, **decoder, image_size=32, patch_size=8, mask_ratio=0.0)
    stock = shaken(transformers.ViTMAEForPreTraining(config))
    stock.save_pretrained(tmp_path)
    ours, info = hf_swin.HfViTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    in_order = torch.arange(16.0).expand(2, -1)
    with torch.no_grad():
        theirs = stock.vit(pixels(32), noise=in_order).last_hidden_state
        assert_close(ours(pixels(32)).last_hidden_state, theirs)


def test_a_dinov2_body_answers_with_the_class_token_and_its_classifier_reads_the_patches_too(tmp_path):
    """Whichever class was saved: the published repositories hold Dinov2Model."""
    config = transformers.Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    stock = shaken(transformers.Dinov2Model(config))
    stock.save_pretrained(tmp_path)
    ours = hf_swin.HfViTModel.from_pretrained(tmp_path)
    assert_close(ours(pixels(28)).pooler_output, stock(pixels(28)).pooler_output)
    assert hf_swin.HfViTForImageClassification.from_pretrained(tmp_path).classifier.in_features == 64


def test_a_stock_table_without_the_cut_patch_opens_and_no_pixel_is_lost(tmp_path):
    """A named difference (D19): stock ViT leaves out what does not fill a patch; ours pads it, also at that size."""
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=36, patch_size=8
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    ours = hf_swin.HfViTForImageClassification.from_pretrained(tmp_path)
    assert list(ours.config.image_size) == [32, 32] and ours.vit(pixels(36)).last_hidden_state.shape[1] == 26
    assert hf_swin.HfViTConfig(image_size=36, patch_size=8).grid == (5, 5)


@pytest.mark.parametrize("name, numbers", [("BertConfig", {}), ("Swinv2Config", {}), ("SwinConfig", {})])
def test_a_model_that_a_class_cannot_hold_is_refused_by_name(name, numbers):
    stock = getattr(transformers, name)(**numbers)
    with pytest.raises(
        ValueError, match=f"HfViTConfig does not open a '{stock.model_type}' model; it opens hf_vit, vit"
    ):
        hf_swin.HfViTConfig.from_dict(stock.to_dict())
    with pytest.raises(ValueError, match="reshape_hidden_states=False is not supported"):
        hf_swin.HfViTConfig.from_dict(transformers.Dinov2Config(reshape_hidden_states=False).to_dict())


def test_a_backbone_drops_what_it_does_not_build_and_nothing_else(tmp_path):
    model_of("hf_swin").save_pretrained(tmp_path)
    narrow = config_of("hf_swin", depths=[1, 2], out_features=["stage1", "stage2"])
    _, info = hf_swin.HfSwinBackbone.from_pretrained(tmp_path, config=narrow, output_loading_info=True)
    assert info["unexpected_keys"] and all("stages.0.blocks.1" in key for key in info["unexpected_keys"])
    _, info = hf_swin.HfSwinBackbone.from_pretrained(tmp_path, out_features=["stage1"], output_loading_info=True)
    assert not info["unexpected_keys"]
