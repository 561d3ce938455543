"""Swin and Swin v2 as their publishers wrote them, small and slow: from the papers (2021, 2022) and the code.

Nothing here comes from the package, so that an error there has no twin here. Names of parameters and saved buffers are
the publishers'.
"""

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Dialect:
    """What the publishers call the parts, and where they differ in what they compute."""

    version: int = 1
    prefix: str = ""
    patches: str = "patch_embed.proj"
    stages: str = "layers"
    attention: str = "attn"
    mlp: tuple[str, str] = ("mlp.fc1", "mlp.fc2")
    norm: str = "norm"
    head: str = "head"
    saves_masks: bool = True
    merges_first: bool = False  # a stage begins with its merging
    unfolds: bool = False  # merging by nn.Unfold
    always_shifts: bool = False  # pads small maps, and shifts them
    gives_maps: bool = False  # one norm for each stage, `norm0` and on


MICROSOFT = Dialect()
MICROSOFT_V2 = replace(MICROSOFT, version=2)
OPENMMLAB = Dialect(
    prefix="backbone.",
    patches="patch_embed.projection",
    stages="stages",
    attention="attn.w_msa",
    mlp=("ffn.layers.0.0", "ffn.layers.1"),
    norm="norm3",
    head="head.fc",
    saves_masks=False,
    unfolds=True,
)
OPENMMLAB_2021 = replace(OPENMMLAB, norm="norm", saves_masks=True)
OPENMMLAB_V2 = replace(OPENMMLAB, version=2, merges_first=True)
OPENMMLAB_MAPS = replace(OPENMMLAB, always_shifts=True, gives_maps=True)
DETECTION = replace(MICROSOFT, prefix="backbone.", saves_masks=False, always_shifts=True, gives_maps=True)


def attach(module: nn.Module, path: str, child: nn.Module) -> nn.Module:
    """Registers a module under a dotted name; those between are made."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(module, parent):
            module.add_module(parent, nn.Module())
        module = getattr(module, parent)
    module.add_module(name, child)
    return child


def index_of_pairs(window: int) -> torch.Tensor:
    """The row of the table for query (r, c) and key (s, d): offsets in reading order, from -(w-1) to w-1."""
    places = list(itertools.product(range(window), repeat=2))
    side = 2 * window - 1
    return torch.tensor([[(r - s + window - 1) * side + c - d + window - 1 for s, d in places] for r, c in places])


def cut(x: torch.Tensor, window: int) -> torch.Tensor:
    """(B, H, W, C) to (windows, B, T, C), one window after the other."""
    _, height, width, _ = x.shape
    corners = itertools.product(range(0, height, window), range(0, width, window))
    return torch.stack([x[:, top : top + window, left : left + window].flatten(1, 2) for top, left in corners])


def paste(windows: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """What `cut` made, put together again."""
    window = math.isqrt(windows.shape[2])
    squares = iter(windows.unflatten(2, (window, window)))
    rows = [torch.cat([next(squares) for _ in range(width // window)], dim=2) for _ in range(height // window)]
    return torch.cat(rows, dim=1)


def mask_of(height: int, width: int, window: int, shift: int) -> torch.Tensor:
    """(windows, T, T): -100 between tokens that the roll has made neighbours, and were none."""
    region = torch.zeros(1, height, width, 1)
    bounds = [(0, -window), (-window, -shift), (-shift, None)]
    for number, ((top, bottom), (left, right)) in enumerate(itertools.product(bounds, repeat=2)):
        region[:, top:bottom, left:right] = number
    regions = cut(region, window)[:, 0, :, 0]
    return torch.where(regions[:, :, None] == regions[:, None, :], 0.0, -100.0)


class Attention(nn.Module):
    """Scaled dot products and a table of biases."""

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", index_of_pairs(window))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def scores(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        bias = self.relative_position_bias_table[self.relative_position_index]
        return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + bias.permute(2, 0, 1)

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return self.qkv(x)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        query, key, value = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        scores = self.scores(query, key)
        if mask is not None:
            scores = scores + mask[:, None, None]
        return self.proj((scores.softmax(-1) @ value).transpose(2, 3).flatten(3))


class CosineAttention(Attention):
    """Version 2: cosines times a learned temperature, and biases from a network of log-spaced coordinates."""

    def __init__(self, channels: int, heads: int, window: int, pretrained: int):
        super().__init__(channels, heads, window)
        del self.relative_position_bias_table
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        offsets = torch.arange(1 - window, window, dtype=torch.float32)
        table = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1)[None]
        table = table / ((pretrained or window) - 1) * 8
        table = torch.sign(table) * torch.log2(table.abs() + 1) / math.log2(8)
        self.register_buffer("relative_coords_table", table)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(channels))
        self.v_bias = nn.Parameter(torch.zeros(channels))

    def project(self, x: torch.Tensor) -> torch.Tensor:
        return self.qkv(x) + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def scores(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-1, -2)
        table = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)
        bias = 16 * torch.sigmoid(table[self.relative_position_index]).permute(2, 0, 1)
        return cosines * self.logit_scale.clamp(max=math.log(100)).exp() + bias


class Block(nn.Module):
    """Attention in windows and an MLP, each with a norm before it (version 1) or after it (version 2)."""

    def __init__(self, say: Dialect, channels: int, heads: int, window: int, shifts: bool, grid, pretrained: int):
        super().__init__()
        self.say, self.window, self.shifts = say, window, shifts
        build = {1: Attention, 2: CosineAttention}[say.version]
        more = (pretrained,) if say.version == 2 else ()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        attach(self, say.attention, build(channels, heads, window, *more))
        attach(self, say.mlp[0], nn.Linear(channels, 4 * channels))
        attach(self, say.mlp[1], nn.Linear(4 * channels, channels))
        if say.saves_masks and self.shift(*grid):
            # Microsoft's lies in the block, OpenMMLab's of 2021 beside the attention of the windows.
            owner = self.attn if say.attention == "attn.w_msa" else self
            owner.register_buffer("attn_mask", mask_of(*grid, window, self.shift(*grid)))

    def shift(self, height: int, width: int) -> int:
        small = min(height, width) <= self.window and not self.say.always_shifts
        return self.window // 2 if self.shifts and not small else 0

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        _, height, width, _ = x.shape
        shift = self.shift(height, width)
        padded = F.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        size = padded.shape[1:3]
        rolled = torch.roll(padded, (-shift, -shift), (1, 2))
        mask = mask_of(*size, self.window, shift) if shift else None
        mixed = self.get_submodule(self.say.attention)(cut(rolled, self.window), mask)
        return torch.roll(paste(mixed, *size), (shift, shift), (1, 2))[:, :height, :width]

    def think(self, x: torch.Tensor) -> torch.Tensor:
        first, second = map(self.get_submodule, self.say.mlp)
        return second(F.gelu(first(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.say.version == 2:
            x = x + self.norm1(self.attend(x))
            return x + self.norm2(self.think(x))
        x = x + self.attend(self.norm1(x))
        return x + self.think(self.norm2(x))


class Merging(nn.Module):
    """Four neighbours become one token of twice the width; an odd map is padded."""

    def __init__(self, say: Dialect, channels: int):
        super().__init__()
        self.say = say
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm({1: 4, 2: 2}[say.version] * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, height, width, _ = x.shape
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        if self.say.unfolds:
            columns = F.unfold(x.permute(0, 3, 1, 2), kernel_size=2, stride=2)
            x = columns.transpose(1, 2).unflatten(1, (-(-height // 2), -(-width // 2)))
        else:
            neighbours = [(0, 0), (1, 0), (0, 1), (1, 1)]
            x = torch.cat([x[:, row::2, column::2] for row, column in neighbours], dim=-1)
        return self.norm(self.reduction(x)) if self.say.version == 2 else self.reduction(self.norm(x))


class Swin(nn.Module):
    """Logits, or feature maps (B, C, H, W) where the dialect gives maps."""

    def __init__(
        self,
        say: Dialect,
        *,
        image_size: int,
        window_size: int | list[int],
        patch_size: int = 4,
        embed_dim: int = 8,
        depths: tuple[int, ...] = (2, 2),
        num_heads: tuple[int, ...] = (1, 2),
        num_classes: int = 5,
        positions: bool = False,
        pretrained: tuple[int, ...] = (0, 0, 0, 0),
        maps: tuple[int, ...] = (0, 1, 2, 3),
    ):
        super().__init__()
        self.say, self.maps, self.positions = say, maps, positions
        side = image_size // patch_size
        self.patch_size, pre = patch_size, say.prefix
        windows = [window_size] * len(depths) if isinstance(window_size, int) else window_size
        self.patches = [attach(self, pre + say.patches, nn.Conv2d(3, embed_dim, patch_size, patch_size))]
        self.patch_norm = [attach(self, pre + "patch_embed.norm", nn.LayerNorm(embed_dim))]
        if positions:
            owner = self.get_submodule(pre.rstrip("."))
            owner.absolute_pos_embed = nn.Parameter(torch.zeros(1, side * side, embed_dim))
        self.rows, self.mergings, self.norms = [], [], {}
        for s, depth in enumerate(depths):
            grid, channels = side // 2**s, embed_dim * 2**s
            # Where a window would cover the whole grid, it shrinks to it, and so do its tables.
            window = windows[s] if say.always_shifts else min(windows[s], grid)
            blocks = [
                Block(say, channels, num_heads[s], window, b % 2 == 1, (grid, grid), pretrained[s])
                for b in range(depth)
            ]
            self.rows.append([attach(self, f"{pre}{say.stages}.{s}.blocks.{b}", x) for b, x in enumerate(blocks)])
            if s < len(depths) - 1:
                place = f"{pre}{say.stages}.{s + say.merges_first}.downsample"
                self.mergings.append([attach(self, place, Merging(say, channels))])
            if say.gives_maps and s in maps:
                self.norms[s] = [attach(self, f"{pre}norm{s}", nn.LayerNorm(channels))]
        if not say.gives_maps:
            self.norm_last = [attach(self, pre + say.norm, nn.LayerNorm(channels))]
        if num_classes and not say.gives_maps:
            self.classifier = [attach(self, say.head, nn.Linear(channels, num_classes))]

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        height, width = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -width % self.patch_size, 0, -height % self.patch_size))
        return self.patch_norm[0](self.patches[0](pixels).permute(0, 2, 3, 1))

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns the grid after the blocks of every stage, before merging."""
        if self.positions:
            x = x + self.get_submodule(self.say.prefix.rstrip(".")).absolute_pos_embed.unflatten(1, x.shape[1:3])
        grids = []
        for s, blocks in enumerate(self.rows):
            for block in blocks:
                x = block(x)
            grids.append(x)
            x = self.mergings[s][0](x) if s < len(self.mergings) else x
        return grids

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        grids = self.encode(self.embed(pixels))
        if self.say.gives_maps:
            return [self.norms[s][0](grids[s]).permute(0, 3, 1, 2) for s in sorted(self.norms)]
        return self.classifier[0](self.norm_last[0](grids[-1]).mean((1, 2)))


class SimMIM(nn.Module):
    """Hidden patches become the mask token; each last token paints a square."""

    def __init__(self, say: Dialect, stride: int = 8, **sizes):
        super().__init__()
        self.encoder = Swin(say, num_classes=0, **sizes)
        width, last = self.encoder.patches[0].out_channels, self.encoder.norm_last[0].normalized_shape[0]
        self.encoder.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder = nn.Sequential(nn.Conv2d(last, stride**2 * 3, 1), nn.PixelShuffle(stride))

    def forward(self, pixels: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        x = self.encoder.embed(pixels)
        hidden = hidden.to(x.dtype).unflatten(1, x.shape[1:3])[..., None]
        x = x * (1 - hidden) + self.encoder.mask_token[:, :, None] * hidden
        return self.decoder(self.encoder.norm_last[0](self.encoder.encode(x)[-1]).permute(0, 3, 1, 2))
