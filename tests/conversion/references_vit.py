"""Vision transformers of Google and Facebook as their publishers wrote them, small: from the papers and their code.

Nothing here comes from the package, so that an error there has no twin here. Google's are arrays in JAX's layout and a
function of them; Facebook's are modules with their names.
"""

import math

import numpy as np
import scipy.ndimage
import torch
from torch import nn
from torch.nn import functional as F


WIDTH, HEADS, HIDDEN, DEPTH, PATCH, GRID, CLASSES = 32, 4, 64, 3, 8, 4, 5
# What linen calls the parts of a block: as released, and as numbered by the current code.
RELEASED = {"attention": "MultiHeadDotProductAttention_1", "second_norm": "LayerNorm_2", "mlp": "MlpBlock_3"}
CURRENT = {"attention": "MultiHeadDotProductAttention_0", "second_norm": "LayerNorm_1", "mlp": "MlpBlock_0"}


def google_arrays(
    names: dict[str, str],
    root: str = "",
    positions: str | None = "Transformer/posembed_input/pos_embedding",
    class_token: bool = True,
    class_position: bool = True,
    pre_logits: int | None = None,
    classes: int = CLASSES,
) -> dict[str, np.ndarray]:
    """Returns random weights under Google's names."""
    random = np.random.default_rng(0)
    shapes = {"embedding/kernel": (PATCH, PATCH, 3, WIDTH), "embedding/bias": (WIDTH,)}
    if class_token:
        shapes["cls"] = (1, 1, WIDTH)
    if positions:
        shapes[positions] = (1, GRID * GRID + (class_token and class_position), WIDTH)
    for i in range(DEPTH):
        block = f"Transformer/encoderblock_{i}/"
        attention, mlp = block + names["attention"], block + names["mlp"]
        for norm in ("LayerNorm_0", names["second_norm"]):
            shapes |= {f"{block}{norm}/scale": (WIDTH,), f"{block}{norm}/bias": (WIDTH,)}
        for part in ("query", "key", "value"):
            shapes[f"{attention}/{part}/kernel"] = (WIDTH, HEADS, WIDTH // HEADS)
            shapes[f"{attention}/{part}/bias"] = (HEADS, WIDTH // HEADS)
        shapes |= {f"{attention}/out/kernel": (HEADS, WIDTH // HEADS, WIDTH), f"{attention}/out/bias": (WIDTH,)}
        shapes |= {f"{mlp}/Dense_0/kernel": (WIDTH, HIDDEN), f"{mlp}/Dense_0/bias": (HIDDEN,)}
        shapes |= {f"{mlp}/Dense_1/kernel": (HIDDEN, WIDTH), f"{mlp}/Dense_1/bias": (WIDTH,)}
    shapes |= {"Transformer/encoder_norm/scale": (WIDTH,), "Transformer/encoder_norm/bias": (WIDTH,)}
    if pre_logits:
        shapes |= {"pre_logits/kernel": (WIDTH, pre_logits), "pre_logits/bias": (pre_logits,)}
    if classes:
        shapes |= {"head/kernel": (pre_logits or WIDTH, classes), "head/bias": (classes,)}
    arrays = {key: 0.2 * random.standard_normal(shape, np.float32) for key, shape in shapes.items()}
    return {root + key: array + key.endswith("/scale") for key, array in arrays.items()}


def stacked(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with all blocks in one, as big_vision's `scan` makes them."""
    kept = {key: array for key, array in arrays.items() if "encoderblock_" not in key}
    for key in (key for key in arrays if "encoderblock_0/" in key):
        rows = [arrays[key.replace("encoderblock_0", f"encoderblock_{i}")] for i in range(DEPTH)]
        kept[key.replace("encoderblock_0", "encoderblock")] = np.stack(rows)
    return kept


def sines(rows: int, columns: int) -> torch.Tensor:
    """MoCo v3's positions, column first: (rows * columns, WIDTH)."""
    y, x = np.mgrid[:rows, :columns]
    steps = 1 / 10_000 ** (np.arange(WIDTH // 4) / (WIDTH // 4 - 1))
    y, x = np.outer(y.flatten(), steps), np.outer(x.flatten(), steps)
    return torch.from_numpy(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1))


def google(arrays: dict[str, np.ndarray], pixels: torch.Tensor, names: dict[str, str]) -> torch.Tensor:
    """Returns the logits of Google's or big_vision's ViT, computed in float64."""
    w = {key.removeprefix("params/"): torch.from_numpy(array).double() for key, array in arrays.items()}
    x = F.conv2d(pixels.double(), w["embedding/kernel"].permute(3, 2, 0, 1), w["embedding/bias"], PATCH)
    grid = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    if any(key.startswith("params/") for key in arrays):  # big_vision: positions first, then the class token
        x = x + (zoomed(w["pos_embedding"], grid) if "pos_embedding" in w else sines(*grid))
    if "cls" in w:
        x = torch.cat([w["cls"].expand(len(x), 1, -1), x], dim=1)
    if "Transformer/posembed_input/pos_embedding" in w:
        table = w["Transformer/posembed_input/pos_embedding"]
        before = table.shape[1] - GRID * GRID
        x = x + torch.cat([table[:, :before], zoomed(table[:, before:], grid)], dim=1)
    for i in range(DEPTH):
        x = google_block(w, i, x, names)
    x = layer_norm(w, "Transformer/encoder_norm", x)
    x = x[:, 0] if "cls" in w else x.mean(1)
    if "pre_logits/kernel" in w:
        x = torch.tanh(x @ w["pre_logits/kernel"] + w["pre_logits/bias"])
    return x @ w["head/kernel"] + w["head/bias"] if "head/kernel" in w else x


def zoomed(table: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Google's way to another grid."""
    if tuple(grid) == (GRID, GRID):
        return table
    image = table[0].reshape(GRID, GRID, -1).numpy()
    image = scipy.ndimage.zoom(image, (grid[0] / GRID, grid[1] / GRID, 1), order=1)
    return torch.from_numpy(image).flatten(0, 1)[None]


def layer_norm(w: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """linen's LayerNorm, whose epsilon is 1e-6."""
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, correction=0)
    return (x - mean) / torch.sqrt(variance + 1e-6) * w[name + "/scale"] + w[name + "/bias"]


def google_block(w: dict[str, torch.Tensor], i: int, x: torch.Tensor, names: dict[str, str]) -> torch.Tensor:
    """One block; linen's gelu is the approximation by tanh."""
    first, every = f"Transformer/encoderblock_{i}/", "Transformer/encoderblock/"
    block = {key.removeprefix(first): array for key, array in w.items() if key.startswith(first)}
    block |= {key.removeprefix(every): array[i] for key, array in w.items() if key.startswith(every)}
    attention, mlp = names["attention"], names["mlp"]
    y = layer_norm(block, "LayerNorm_0", x)
    query, key, value = (
        torch.einsum("btc,chd->bhtd", y, block[f"{attention}/{part}/kernel"])
        + block[f"{attention}/{part}/bias"][:, None]
        for part in ("query", "key", "value")
    )
    weights = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", query, key) / math.sqrt(query.shape[-1]), dim=-1)
    mixed = torch.einsum("bhqk,bhkd->bqhd", weights, value)
    x = x + torch.einsum("bqhd,hdc->bqc", mixed, block[f"{attention}/out/kernel"]) + block[f"{attention}/out/bias"]
    y = layer_norm(block, names["second_norm"], x)
    y = y @ block[f"{mlp}/Dense_0/kernel"] + block[f"{mlp}/Dense_0/bias"]
    y = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    return x + y @ block[f"{mlp}/Dense_1/kernel"] + block[f"{mlp}/Dense_1/bias"]


class Scale(nn.Module):
    """DINOv2's layer scale."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(WIDTH))


class Block(nn.Module):
    """A pre-norm block; `scales` is how its layer scales are called, `gated` an MLP of SiLU(first half) * second."""

    def __init__(self, scales: str | None = None, gated: bool = False):
        super().__init__()
        self.gated, self.scales = gated, scales
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "proj": nn.Linear(WIDTH, WIDTH)})
        first, second = ("w12", "w3") if gated else ("fc1", "fc2")
        self.mlp = nn.ModuleDict({first: nn.Linear(WIDTH, HIDDEN * (1 + gated)), second: nn.Linear(HIDDEN, WIDTH)})
        if scales == "gamma":
            self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))
        elif scales == "ls":
            self.ls1, self.ls2 = Scale(), Scale()

    def factors(self):
        if self.scales == "gamma":
            return self.gamma_1, self.gamma_2
        return (self.ls1.gamma, self.ls2.gamma) if self.scales else (1, 1)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.attn["qkv"](x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5).softmax(-1)
        return self.attn["proj"]((weights @ value).transpose(1, 2).flatten(2))

    def think(self, x: torch.Tensor) -> torch.Tensor:
        if not self.gated:
            return self.mlp["fc2"](F.gelu(self.mlp["fc1"](x)))
        gate, gated = self.mlp["w12"](x).chunk(2, dim=-1)
        return self.mlp["w3"](F.silu(gate) * gated)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.factors()
        x = x + first * self.attend(self.norm1(x))
        return x + second * self.think(self.norm2(x))


class Facebook(nn.Module):
    """DeiT-III, DINO, DINOv2 and MAE: tokens after the last norm, or logits where there are classes."""

    def __init__(
        self,
        scales: str | None = None,
        gated: bool = False,
        class_position: bool = True,
        registers: int = 0,
        mask_token: bool = False,
        mean: bool = False,
        decoder: bool = False,
        classes: int = 0,
    ):
        super().__init__()
        self.mean, self.classes, self.class_position, self.registers = mean, classes, class_position, registers
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, GRID * GRID + class_position, WIDTH))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, WIDTH, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block(scales, gated) for _ in range(DEPTH))
        self.add_module("fc_norm" if mean else "norm", nn.LayerNorm(WIDTH, eps=1e-6))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, WIDTH))
        if mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, WIDTH))
        if classes:
            self.head = nn.Linear(WIDTH, classes)
        if decoder:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
            self.decoder_pos_embed = nn.Parameter(torch.zeros(1, GRID * GRID + 1, WIDTH))
            self.decoder_embed, self.decoder_norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
            self.decoder_blocks = nn.ModuleList([Block()])
            self.decoder_pred = nn.Linear(WIDTH, PATCH**2 * 3)

    def positions(self, grid: tuple[int, int]) -> torch.Tensor:
        """Registers came with another rule: no tenth of a patch too much, and antialiasing."""
        if tuple(grid) == (GRID, GRID):
            return self.pos_embed
        before = self.pos_embed[:, : self.class_position]
        image = self.pos_embed[:, self.class_position :].reshape(1, GRID, GRID, WIDTH).permute(0, 3, 1, 2)
        if self.registers:
            image = F.interpolate(image, size=tuple(grid), mode="bicubic", antialias=True)
        else:
            image = F.interpolate(image, scale_factor=tuple((side + 0.1) / GRID for side in grid), mode="bicubic")
        return torch.cat([before, image.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed["proj"](pixels)
        positions = self.positions(x.shape[-2:])
        x, cls = x.flatten(2).transpose(1, 2), self.cls_token.expand(len(x), 1, -1)
        if not self.class_position:
            positions = F.pad(positions, (0, 0, 1, 0))  # DeiT-III adds them before the class token is there
        x = torch.cat([cls, x], dim=1) + positions
        if self.registers:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        for block in self.blocks:
            x = block(x)
        if self.mean:
            return self.head(self.fc_norm(x[:, 1:].mean(1)))
        x = self.norm(x)
        return self.head(x[:, 0]) if self.classes else x
