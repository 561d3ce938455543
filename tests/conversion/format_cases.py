"""One row for each kind of file: how its publisher's class is built, saved and run, and what comes of it here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import save_file

import references_swin as swin
import references_vit as vit
from tiny import pixels, shaken


@dataclass(frozen=True, eq=False)
class Case:
    """A file of a format. `run` takes (peer, pixels) and gives what `answer` takes from our model's outputs."""

    name: str
    format: str
    build: Callable[[], Any]
    run: Callable[..., Any] = lambda peer, *inputs: peer(*inputs)
    answer: str = "logits"
    hints: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ((32, 32),)
    # The key under which the publisher keeps the weights, and what lies beside them.
    container: str = ""
    ending: str = ".pth"
    state: Callable[[Any], Any] = lambda peer: dict(peer.state_dict())
    # The files of these formats are alike: a reader says which.
    alike: tuple[str, ...] = ()
    # Beginnings of keys that have no place in our model, so do not come back.
    dropped: tuple[str, ...] = ()
    masked: bool = False
    adjust: Callable[[Any], Any] = lambda peer: peer
    gradient_tolerance: float = 1e-5

    def __str__(self) -> str:
        return self.name

    @cached_property
    def peer(self) -> Any:
        """The publisher's model with weights far from their initial values."""
        torch.manual_seed(0)
        made = self.build()
        return self.adjust(shaken(made)) if isinstance(made, torch.nn.Module) else made

    @property
    def weights(self) -> dict[str, Any]:
        """The tensors or arrays of the publisher's file."""
        return self.state(self.peer)

    def save(self, folder: Path, state: dict[str, Any] | None = None) -> Path:
        """Writes the weights, or others, as the publisher does."""
        state = self.weights if state is None else state
        path = folder / f"file{self.ending}"
        if self.ending == ".npz":
            np.savez(path, **state)
        elif self.ending == ".safetensors":
            save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
        else:
            torch.save({self.container: state, "epoch": 3} if self.container else state, path)
        return path

    def inputs(self, size: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        """Returns pixels, and for masked images which patches are hidden."""
        hidden = torch.rand(2, size[0] * size[1] // 16, generator=torch.Generator().manual_seed(1)) < 0.5
        return (pixels(*size), hidden) if self.masked else (pixels(*size),)


def clamped(model: torch.nn.Module) -> torch.nn.Module:
    """A temperature past the limit of 100 in the first head of the first block, where nothing is shifted."""
    scale = next(parameter for name, parameter in model.named_parameters() if name.endswith("logit_scale"))
    with torch.no_grad():
        scale[0] = 6.0
    return model


TIMM_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2}
LABELS = {"num_classes": 5}
HEADS = {"num_attention_heads": 4}
TIMM_SWIN = {"img_size": 32, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, **LABELS}
S3 = {"img_size": 64, "window_size": (8, 4, 4), "depths": (2, 2, 2), "num_heads": (2, 4, 8)}
V2_SIZES = {"image_size": 32, "window_size": 4}
OTHER_GRIDS = ((32, 32), (48, 40))


def timm_vit(**numbers) -> torch.nn.Module:
    return timm.models.VisionTransformer(**{**TIMM_VIT, **LABELS, "dynamic_img_size": True, **numbers})


def timm_body(**numbers) -> torch.nn.Module:
    return timm_vit(num_classes=0, global_pool="", **numbers)


def distilled() -> torch.nn.Module:
    return timm.models.deit.VisionTransformerDistilled(**TIMM_VIT, **LABELS)


def torchvision_vit(**numbers) -> torch.nn.Module:
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
    return torchvision.models.VisionTransformer(**sizes, **LABELS, **numbers)


def torchvision_vit_at(peer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """torchvision resizes positions in the state dict, for a model of another size."""
    state = torchvision.models.vision_transformer.interpolate_embeddings(x.shape[-1], 8, peer.state_dict())
    body = peer if x.shape[-1] == 32 else torchvision_vit()
    body.image_size = x.shape[-1]
    body.encoder.pos_embedding = torch.nn.Parameter(state["encoder.pos_embedding"])
    body.load_state_dict(state)
    return body.eval()(x)


def old_torchvision_names(peer: torch.nn.Module) -> dict[str, torch.Tensor]:
    names = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
    return {_replaced(key, names): tensor for key, tensor in peer.state_dict().items()}


def _replaced(key: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        key = key.replace(old, new)
    return key


def torchvision_swin(version: int) -> torch.nn.Module:
    parts = torchvision.models.swin_transformer
    second = {"block": parts.SwinTransformerBlockV2, "downsample_layer": parts.PatchMergingV2}
    sizes = {"patch_size": [4, 4], "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
    return parts.SwinTransformer(**sizes, **LABELS, **(second if version == 2 else {}))


def without_key_bias(peer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """torchvision zeroes the bias of the keys in every forward, so that is what its files hold."""
    for key, tensor in peer.state_dict().items():
        if key.endswith("qkv.bias"):
            tensor.view(3, -1)[1] = 0
    return dict(peer.state_dict())


def rpe_names(peer: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key.replace("cpb_mlp", "rpe_mlp"): tensor for key, tensor in peer.state_dict().items()}


def with_rest_of_detector(peer: torch.nn.Module) -> dict[str, torch.Tensor]:
    rest = {"neck.fpn_convs.0.conv.weight": torch.ones(2), "rpn_head.rpn_cls.bias": torch.ones(2)}
    return {**peer.state_dict(), **rest, "roi_head.bbox_head.0.fc_cls.weight": torch.ones(2)}


def full_dino(peer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The teacher of a full checkpoint: the backbone inside, and the head of the pretext task."""
    state = {f"backbone.{key}": tensor for key, tensor in peer.state_dict().items()}
    return {**state, "head.mlp.0.weight": torch.ones(2), "head.last_layer.weight_g": torch.ones(2)}


FOUR = {"patch_size": 2, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 4, 8), "image_size": 32}
SMALL = partial(swin.Swin, image_size=32, window_size=4)
SHRUNK = {"depths": (2, 2, 2), "num_heads": (1, 2, 4), "image_size": 32, "window_size": 4}
DETECTOR = ((32, 32), (37, 30), (12, 52))
MAPS = {"answer": "feature_maps", "container": "state_dict", "sizes": DETECTOR}
REST = ("neck.", "rpn_head.", "roi_head.")
PAINTED = {"answer": "reconstruction", "container": "model", "masked": True}

SWIN = [
    Case("timm Swin", "timm_swin", lambda: timm.models.SwinTransformer(**TIMM_SWIN), ending=".safetensors"),
    Case(
        "timm S3",
        "timm_swin",
        lambda: timm.models.SwinTransformer(**{**TIMM_SWIN, **S3}),
        sizes=((64, 64),),
        ending=".safetensors",
    ),
    Case(
        "timm Swin v2",
        "timm_swin_v2",
        lambda: timm.models.SwinTransformerV2(**TIMM_SWIN),
        adjust=clamped,
        hints=V2_SIZES,
        ending=".safetensors",
    ),
    Case(
        "timm Swin v2 of other windows",
        "timm_swin_v2",
        lambda: timm.models.SwinTransformerV2(**TIMM_SWIN, pretrained_window_sizes=(3, 2)),
        hints={**V2_SIZES, "pretrained_window_sizes": [3, 2]},
        ending=".safetensors",
    ),
    Case("torchvision Swin", "torchvision_swin", lambda: torchvision_swin(1), sizes=((32, 32), (72, 44), (8, 40))),
    Case(
        "torchvision Swin v2",
        "torchvision_swin_v2",
        lambda: torchvision_swin(2),
        state=without_key_bias,
        sizes=((32, 32), (72, 44), (8, 40)),
    ),
    Case("Microsoft Swin", "microsoft_swin", partial(SMALL, swin.MICROSOFT), container="model"),
    Case("Microsoft Swin, shrunk", "microsoft_swin", partial(swin.Swin, swin.MICROSOFT, **SHRUNK), container="model"),
    Case("Microsoft Swin, placed", "microsoft_swin", partial(SMALL, swin.MICROSOFT, positions=True), container="model"),
    Case(
        "Microsoft Swin of a larger image",
        "microsoft_swin",
        partial(swin.Swin, swin.MICROSOFT, image_size=64, window_size=4),
        hints={"image_size": 64},
        sizes=((64, 64),),
        container="model",
    ),
    Case(
        "Microsoft Swin v2",
        "microsoft_swin_v2",
        partial(SMALL, swin.MICROSOFT_V2),
        container="model",
        adjust=clamped,
        gradient_tolerance=1e-4,  # at a temperature of 100 the reference itself is 7e-5 from its own float64
    ),
    Case(
        "Microsoft Swin v2, shrunk, of other windows",
        "microsoft_swin_v2",
        partial(swin.Swin, swin.MICROSOFT_V2, **SHRUNK, pretrained=(3, 3, 2)),
        container="model",
    ),
    Case("SimMIM Swin", "simmim_swin", partial(swin.SimMIM, swin.MICROSOFT, image_size=32, window_size=4), **PAINTED),
    Case("SimMIM Swin, shrunk", "simmim_swin", partial(swin.SimMIM, swin.MICROSOFT, stride=16, **SHRUNK), **PAINTED),
    Case("SimMIM Swin v2", "simmim_swin_v2", partial(swin.SimMIM, swin.MICROSOFT_V2, stride=16, **SHRUNK), **PAINTED),
    Case(
        "SimMIM Swin v2 as released",
        "simmim_swin_v2_old",
        partial(swin.SimMIM, swin.MICROSOFT_V2, stride=16, **SHRUNK),
        state=rpe_names,
        **PAINTED,
    ),
    Case(
        "OpenMMLab Swin",
        "openmmlab_swin",
        partial(swin.Swin, swin.OPENMMLAB, **FOUR, window_size=2),
        container="state_dict",
        sizes=((32, 32), (40, 56)),
    ),
    Case(
        "OpenMMLab Swin, placed",
        "openmmlab_swin",
        partial(swin.Swin, swin.OPENMMLAB, **FOUR, window_size=2, positions=True),
        container="state_dict",
    ),
    Case(
        "OpenMMLab Swin of 2021",
        "openmmlab_swin_old",
        partial(swin.Swin, swin.OPENMMLAB_2021, **FOUR, window_size=2),
        container="state_dict",
    ),
    Case(
        "OpenMMLab Swin v2 of other windows",
        "openmmlab_swin_v2",
        partial(swin.Swin, swin.OPENMMLAB_V2, **FOUR, window_size=[4, 4, 4, 2], pretrained=(3, 3, 3, 2)),
        container="state_dict",
    ),
    Case(
        "OpenMMLab Swin v2 of one window",
        "openmmlab_swin_v2",
        partial(swin.Swin, swin.OPENMMLAB_V2, **FOUR, window_size=2),
        container="state_dict",
        sizes=((32, 32), (40, 56)),
    ),
    Case(
        "OpenMMLab detector",
        "openmmlab_swin_backbone",
        partial(swin.Swin, swin.OPENMMLAB_MAPS, **FOUR, window_size=4),
        state=with_rest_of_detector,
        dropped=REST,
        **MAPS,
    ),
    Case(
        "OpenMMLab detector of three maps",
        "openmmlab_swin_backbone",
        partial(swin.Swin, swin.OPENMMLAB_MAPS, **FOUR, window_size=4, maps=(1, 2, 3)),
        **MAPS,
    ),
    Case(
        "Microsoft detector",
        "detection_swin",
        partial(swin.Swin, swin.DETECTION, **FOUR, window_size=4),
        state=with_rest_of_detector,
        dropped=REST,
        **MAPS,
    ),
]

TIMM = {"hints": HEADS, "ending": ".safetensors", "sizes": OTHER_GRIDS}
FACEBOOK = {"hints": HEADS, "container": "model"}
TOKENS = {"answer": "last_hidden_state", "hints": HEADS}
DECODER = ("mask_token", "decoder_")


def google(name: str, format: str, numbers: dict[str, str], scan: bool = False, sizes=OTHER_GRIDS, **arrays) -> Case:
    """A case of Google's files, which have no class: the arrays, and a function of them."""
    hints = {"image_size": 32} if arrays.get("positions", "") is None else {}
    root = "params/" if format.startswith("big_vision") else ""
    made = partial(vit.google_arrays, numbers, root, **arrays)
    return Case(
        name,
        format,
        (lambda: vit.stacked(made())) if scan else made,
        run=lambda peer, x: vit.google(peer, x, numbers),
        answer="logits" if arrays.get("classes", 5) else "pooler_output",
        hints=hints,
        sizes=sizes,
        ending=".npz",
        state=dict,
    )


BIG = {"positions": "pos_embedding", "class_position": False}
VIT = [
    Case("timm ViT", "timm_vit", timm_vit, **TIMM),
    Case("timm ViT, mean", "timm_vit", partial(timm_vit, global_pool="avg"), **TIMM),
    Case(
        "timm ViT, mean without class token",
        "timm_vit",
        partial(timm_vit, global_pool="avg", class_token=False, fc_norm=False),
        **TIMM,
    ),
    Case("timm ViT without labels", "timm_vit", timm_body, answer="last_hidden_state", **TIMM),
    Case("timm ViT, scaled", "timm_vit", partial(timm_vit, init_values=1e-4, qkv_bias=False), **TIMM),
    Case("timm DeiT, distilled", "timm_vit", distilled, hints=HEADS, ending=".safetensors"),
    Case(
        "timm DeiT-III",
        "timm_vit_no_class_position",
        partial(timm_vit, no_embed_class=True, init_values=1e-4),
        **TIMM,
    ),
    Case(
        "timm DINOv2 with registers",
        "timm_vit_no_class_position",
        partial(timm_body, no_embed_class=True, init_values=1e-4, reg_tokens=4),
        answer="last_hidden_state",
        **TIMM,
    ),
    Case(
        "torchvision ViT",
        "torchvision_vit",
        torchvision_vit,
        run=torchvision_vit_at,
        hints=HEADS,
        sizes=((32, 32), (48, 48)),
    ),
    Case(
        "torchvision ViT of two layers",
        "torchvision_vit",
        partial(torchvision_vit, representation_size=16),
        hints=HEADS,
    ),
    Case(
        "torchvision ViT as released", "torchvision_vit_old", torchvision_vit, state=old_torchvision_names, hints=HEADS
    ),
    Case("DeiT", "facebook_deit", timm_vit, **FACEBOOK),
    Case("DeiT, distilled", "facebook_deit", distilled, **FACEBOOK),
    Case(
        "DeiT-III", "facebook_deit3", partial(vit.Facebook, scales="gamma", class_position=False, classes=5), **FACEBOOK
    ),
    Case("DINO", "facebook_dino", vit.Facebook, sizes=OTHER_GRIDS, alike=("timm_vit",), **TOKENS),
    Case(
        "DINO, the teacher of all",
        "facebook_dino",
        vit.Facebook,
        container="teacher",
        state=full_dino,
        dropped=("head.",),
        **TOKENS,
    ),
    Case("DINOv2", "facebook_dinov2", partial(vit.Facebook, scales="ls", mask_token=True), sizes=OTHER_GRIDS, **TOKENS),
    Case(
        "DINOv2 giant",
        "facebook_dinov2",
        partial(vit.Facebook, scales="ls", mask_token=True, gated=True),
        sizes=OTHER_GRIDS,
        **TOKENS,
    ),
    Case(
        "DINOv2 with registers",
        "facebook_dinov2",
        partial(vit.Facebook, scales="ls", mask_token=True, registers=4),
        sizes=OTHER_GRIDS,
        **TOKENS,
    ),
    Case("MAE", "facebook_mae", vit.Facebook, container="model", **TOKENS),
    Case(
        "MAE with its decoder",
        "facebook_mae",
        partial(vit.Facebook, decoder=True),
        container="model",
        dropped=DECODER,
        **TOKENS,
    ),
    Case("MAE, fine-tuned", "facebook_mae", partial(vit.Facebook, mean=True, classes=5), **FACEBOOK),
    google("Google ViT", "google_vit", vit.RELEASED),
    google("Google ViT of 21k", "google_vit", vit.RELEASED, pre_logits=16),
    google("Google ViT without labels", "google_vit", vit.RELEASED, classes=0),
    google("Google ViT, mean", "google_vit", vit.RELEASED, class_token=False),
    google("Google ViT, renumbered", "google_vit_linen", vit.CURRENT),
    google("big_vision", "big_vision", vit.CURRENT, **BIG),
    google("big_vision, mean", "big_vision", vit.CURRENT, **BIG, class_token=False),
    google("big_vision, mean of sines", "big_vision", vit.CURRENT, positions=None, class_token=False, pre_logits=16),
    google("big_vision, scan", "big_vision_scan", vit.CURRENT, scan=True, **BIG),
    google("big_vision, scan, mean", "big_vision_scan", vit.CURRENT, scan=True, **BIG, class_token=False),
]
CASES = SWIN + VIT
NAMED = {case.name: case for case in CASES}
