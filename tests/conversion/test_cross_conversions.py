"""From each format to each other one that can hold the model, through files; and why some cannot."""

import pytest
import torch

from hf_swin.conversion import formats
from hf_swin.conversion.comparison import runner
from hf_swin.conversion.peers import PEERS
from hf_swin.conversion.reading import read
from hf_swin.conversion.targets import write_as
from hf_swin.errors import UserError

from compare import assert_close
from format_cases import HEADS, NAMED
from test_formats import model_from
from tiny import STOCK, model_of


FIRST = ("microsoft_swin", "timm_swin", "torchvision_swin", "openmmlab_swin", "transformers_swin")
SECOND = tuple(f"{name}_v2" for name in FIRST)
# A case, and formats that hold its model.
HOLDERS = {
    "OpenMMLab Swin": FIRST,
    "OpenMMLab Swin v2 of one window": SECOND,
    "OpenMMLab Swin v2 of other windows": ("microsoft_swin_v2", "timm_swin_v2", "transformers_swin_v2"),
    "Microsoft Swin, shrunk": ("timm_swin",),
    "timm S3": ("microsoft_swin",),
    "SimMIM Swin": ("transformers_swin",),
    "SimMIM Swin v2": ("transformers_swin_v2", "simmim_swin_v2_old"),
    "Microsoft detector": ("openmmlab_swin_backbone", "transformers_swin"),
    "timm ViT": ("torchvision_vit", "torchvision_vit_old", "facebook_deit", "transformers_vit"),
    "timm DeiT, distilled": ("facebook_deit", "transformers_deit"),
    "DeiT-III": ("timm_vit_no_class_position",),
    "DINO": ("timm_vit", "torchvision_vit", "transformers_vit"),
    "DINOv2": ("transformers_dinov2", "transformers_dinov2_runtime"),
    "DINOv2 giant": ("transformers_dinov2", "transformers_dinov2_runtime"),
    "DINOv2 with registers": ("transformers_dinov2",),
    "MAE, fine-tuned": ("timm_vit",),
    "Google ViT": ("google_vit_linen", "big_vision", "big_vision_scan", "transformers_vit"),
    "big_vision, mean": ("big_vision_scan", "google_vit"),
}


def hints_for(reading) -> dict:
    """What some files do not tell."""
    if reading.config.model_type == "hf_vit":
        return {**HEADS, "image_size": reading.config.image_size, "hidden_act": reading.config.hidden_act}
    sizes = {name: getattr(reading.config, name) for name in ("image_size", "window_size")}
    if reading.config.model_type == "hf_swin_v2":
        sizes["pretrained_window_sizes"] = list(reading.config.pretrained_window_sizes)
    return sizes


def written_file(reading, folder, format):
    """Writes a reading as a format, and returns what a user has then: a folder for transformers, or else a file."""
    folder.mkdir()
    write_as(reading, folder, format)
    return folder if format.startswith("transformers") else folder / formats.named(format).FILE


@pytest.mark.parametrize("name", HOLDERS)
def test_every_way_between_formats_keeps_the_numbers(name, tmp_path):
    case = NAMED[name]
    first = read(case.save(tmp_path), hints=case.hints, from_format=case.format if case.alike else None)
    model, inputs, hints = model_from(first), case.inputs(case.sizes[0]), hints_for(first)
    source = first
    with torch.no_grad():
        wanted = getattr(model(*inputs), case.answer)
        for step, format in enumerate((*HOLDERS[name], case.format)):  # a chain that ends where it began
            path = written_file(source, tmp_path / str(step), format)
            source = read(path, hints={} if path.is_dir() else hints, from_format=format)
            assert source.format == format
            answer = getattr(model_from(source)(*inputs), case.answer)
            assert_close(answer, wanted, 1e-6, what=f"{name} as {format}")
            # Where the publisher's class is installed, it has the last word.
            if case.answer == "logits" and (format in PEERS or path.is_dir()):
                how = {} if path.is_dir() else {"hints": hints}
                publishers = runner(path, from_format=format, **how).run(*inputs)["logits"]
                assert_close(publishers, wanted, what=f"{name} as {format}, run by its publisher")


REFUSALS = [
    ("Microsoft Swin, shrunk", "torchvision_swin", "one window for all stages"),
    ("Microsoft Swin, shrunk", "transformers_swin", "one window for all stages"),
    ("Microsoft Swin v2, shrunk, of other windows", "torchvision_swin_v2", "one window for all stages"),
    ("timm Swin v2 of other windows", "torchvision_swin_v2", "no pretrained windows"),
    ("Microsoft Swin, placed", "timm_swin", "use_absolute_embeddings"),
    ("Microsoft Swin, placed", "torchvision_swin", "use_absolute_embeddings"),
    ("Microsoft Swin", "openmmlab_swin", "four stages"),
    ("Microsoft Swin v2", "openmmlab_swin_v2", "four stages"),
    ("Microsoft detector", "torchvision_swin", "always_partition"),
    ("SimMIM Swin", "microsoft_swin", "no place for"),
    ("Microsoft Swin", "timm_vit", "hf_vit"),
    ("Google ViT", "timm_vit", "hidden_act='gelu'"),
    ("timm ViT", "google_vit", "hidden_act='gelu_pytorch_tanh'"),
    ("timm ViT", "big_vision", "hidden_act='gelu_pytorch_tanh'"),
    ("Google ViT", "torchvision_vit", "hidden_act='gelu'"),
    ("Google ViT", "facebook_deit", "hidden_act='gelu'"),
    ("Google ViT of 21k", "torchvision_vit", "hidden_act"),
    ("timm ViT, scaled", "google_vit", "hidden_act"),
    ("timm ViT, mean", "transformers_vit", "pooling"),
    ("timm ViT", "facebook_deit3", "scales its branches"),
    ("timm DeiT, distilled", "torchvision_vit", "use_distillation_token"),
    ("MAE, fine-tuned", "facebook_deit", "pooling"),
    ("DINOv2 with registers", "timm_vit", "num_register_tokens"),
    ("DeiT-III", "transformers_vit", "layerscale_value"),
    ("big_vision, mean of sines", "google_vit", "position_embedding_type"),
]


@pytest.mark.parametrize(("name", "target", "reason"), REFUSALS)
def test_what_a_format_cannot_hold_is_refused_with_the_reason(name, target, reason, tmp_path):
    case = NAMED[name]
    reading = read(case.save(tmp_path), hints=case.hints, from_format=case.format if case.alike else None)
    with pytest.raises(UserError, match=f"cannot be written|is a format of .*{reason}") as refusal:
        write_as(reading, tmp_path, target)
    assert reason in str(refusal.value)


def test_timm_refuses_the_epsilon_of_stock_models(tmp_path):
    next(stock for stock in STOCK if stock.name == "ViTForImageClassification").build().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="layer_norm_eps=1e-06 and this model with 1e-12"):
        write_as(read(tmp_path), tmp_path, "timm_vit")


@pytest.mark.parametrize(
    ("ours", "target", "reason"),
    [
        (("hf_swin", "ForImageClassification", {"always_partition": True}), "transformers", "always_partition"),
        (("hf_swin", "Backbone", {"always_partition": False}), "transformers", "always_partition"),
        (("hf_swin_v2", "ForImageClassification", {"always_partition": True}), "transformers", "always_partition"),
        (("hf_vit", "ForImageClassification", {"pooling": "mean"}), "timm", "would not tell that the mean"),
        (("hf_vit", "Model", {}), "facebook_dinov2", "scales its branches"),
    ],
)
def test_what_a_file_would_not_tell_is_not_written(ours, target, reason, tmp_path):
    family, head, numbers = ours
    model_of(family, head, **numbers).save_pretrained(tmp_path / "in")
    with pytest.raises(UserError, match=reason):
        write_as(read(tmp_path / "in"), tmp_path, target)


def test_windows_larger_than_their_grid_fit_into_no_publisher_that_shrinks_them(tmp_path):
    """torchvision pads the grid to the window, whose table stays whole."""
    path = NAMED["torchvision Swin"].save(tmp_path)
    reading = read(path, hints={"image_size": 16})
    for target in ("microsoft_swin", "timm_swin", "transformers_swin"):
        with pytest.raises(UserError, match="shrinks windows to the grid"):
            write_as(reading, tmp_path, target)
