"""Stage 0a: the vision tower, alone, on dense labels.

Every cell of the 24 x 24 grid learns which digit and colour its item has, where the item's middle lies, and whether it
holds that middle; [CLS] learns which (digit, colour) pairs are in the picture. Windows grow from 6 x 6 cells with one
digit to the whole picture. Run: python recipes/tower.py --out build/recipe  (resumes from its last checkpoint).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from checkpoints import load_checkpoint, log_line, save_checkpoint
from optim import MuonAdamW, cosine
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from salience.lab.data.scene_pictures import CELL, COLOURS, Layout, draw_picture

GRID, WIDTH, HEADS, LAYERS = 24, 192, 6, 5
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
INKED = 0.06  # share of a cell that must be ink for the cell to count as part of an item


@dataclass(frozen=True, kw_only=True)
class Stage:
    cells: int
    items: tuple[int, int]
    strokes: tuple[int, int]
    batch: int
    fresh: int
    steps: int
    peak: float
    floor: float


STAGES = (
    Stage(cells=6, items=(1, 1), strokes=(0, 2), batch=128, fresh=64, steps=900, peak=2e-3, floor=0.5),
    Stage(cells=8, items=(1, 3), strokes=(0, 2), batch=96, fresh=40, steps=900, peak=1.5e-3, floor=0.45),
    Stage(cells=12, items=(2, 5), strokes=(1, 4), batch=40, fresh=16, steps=700, peak=1e-3, floor=0.4),
    Stage(cells=24, items=(4, 8), strokes=(4, 9), batch=8, fresh=4, steps=600, peak=6e-4, floor=0.02),
)


def tower_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        image_size=GRID * CELL, patch_size=CELL, hidden_act="gelu_pytorch_tanh", projection_dim=WIDTH,
    )  # fmt: skip


class Heads(nn.Module):
    """Heads for the tower's training labels, discarded afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.dense = nn.Linear(WIDTH, 10 + len(COLOURS) + 1 + 1 + 2)
        self.pairs = nn.Linear(WIDTH, 10 * len(COLOURS))
        self.final_pairs = nn.Linear(WIDTH, 10 * len(COLOURS))


def _dct_filters() -> Tensor:
    """192 filters: the 8 x 8 lowest two-dimensional cosines in each of three colour axes. (192, 3, 14, 14)"""
    at = (torch.arange(CELL) + 0.5) / CELL
    waves = torch.stack([torch.cos(math.pi * k * at) for k in range(8)]) * math.sqrt(2 / CELL)
    waves[0] /= math.sqrt(2)
    planes = torch.einsum("iy,jx->ijyx", waves, waves)
    planes[0, 0] *= 0.25  # brightness alone would drown the rest
    axes = torch.tensor([[1.0, 1, 1], [1, 0, -1], [0.5, -1, 0.5]])
    axes = axes / axes.norm(dim=1, keepdim=True)
    return torch.einsum("ijyx,ac->ijacyx", planes, axes).reshape(192, 3, CELL, CELL) * 0.5


def _sincos() -> Tensor:
    """Initial two-dimensional sine-cosine positions. (577, 192), the first row ([CLS]) zero."""
    rates = 1.0 / 30 ** (torch.arange(WIDTH // 4) / (WIDTH // 4))
    angles = torch.arange(GRID)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = line[:, None].expand(-1, GRID, -1), line[None].expand(GRID, -1, -1)
    return torch.cat([torch.zeros(1, WIDTH), torch.cat([rows, columns], -1).reshape(GRID * GRID, WIDTH)])


@torch.no_grad()
def initialise(tower: CLIPVisionModel, seed: int) -> None:
    """Cosine filters, sine-cosine positions, and queries equal to keys, so that attention starts at similar patches."""
    torch.manual_seed(seed)
    tower.embeddings.patch_embedding.weight.copy_(_dct_filters())
    tower.embeddings.position_embedding.weight.copy_(_sincos())
    tower.embeddings.class_embedding.normal_(0, 1)
    for layer in tower.encoder.layers:
        attention, size = layer.self_attn, WIDTH // HEADS
        rows = torch.cat([torch.linalg.qr(torch.randn(WIDTH, size))[0].T * 0.9 for _ in range(HEADS)])
        attention.q_proj.weight.copy_(rows)
        attention.k_proj.weight.copy_(rows)
        attention.v_proj.weight.normal_(0, WIDTH**-0.5)
        attention.out_proj.weight.normal_(0, 0.5 * WIDTH**-0.5)
        layer.mlp.fc1.weight.normal_(0, WIDTH**-0.5)
        layer.mlp.fc2.weight.normal_(0, 0.5 * (4 * WIDTH) ** -0.5)
        for name, value in layer.named_parameters():
            if name.endswith("bias"):
                value.zero_()


def block(layer: nn.Module, hidden: Tensor) -> Tensor:
    """One CLIP encoder layer; attention by plain products, which in bfloat16 on a CPU is the faster way to train."""
    batch, n, _ = hidden.shape
    own, seen = layer.self_attn, layer.layer_norm1(hidden)
    weight = torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight])
    bias = torch.cat([own.q_proj.bias, own.k_proj.bias, own.v_proj.bias])
    q, k, v = F.linear(seen, weight, bias).view(batch, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4).contiguous()
    logits = (q * (WIDTH // HEADS) ** -0.5) @ k.transpose(-1, -2)
    share = logits.float().softmax(-1).to(v.dtype) if n < 100 else logits.softmax(-1)
    hidden = hidden + own.out_proj((share @ v).transpose(1, 2).reshape(batch, n, WIDTH))
    return hidden + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.layer_norm2(hidden)), approximate="tanh"))


def encode(tower: CLIPVisionModel, pixels: Tensor, places: Tensor, depth: int) -> Tensor:
    """Hidden states after `depth` layers. pixels (B, 3, S, S) normalised, places (B, cells) in the 24 x 24 table."""
    patches = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    first = tower.embeddings.class_embedding.expand(len(pixels), 1, -1)
    table = tower.embeddings.position_embedding.weight
    at = table[torch.cat([torch.zeros(len(pixels), 1, dtype=torch.long), places + 1], 1)]
    hidden = tower.pre_layrnorm(torch.cat([first, patches], 1) + at)
    for layer in tower.encoder.layers[:depth]:
        hidden = block(layer, hidden)
    return hidden


def labels(picture, cells: int) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
    """Dense labels of a picture: digit and colour per cell (-1 nothing, -2 left out), offset, centre, pairs."""
    digit, colour = torch.full((cells * cells,), -1), torch.full((cells * cells,), -1)
    offset, centre = torch.zeros(cells * cells, 2), torch.zeros(cells * cells)
    pairs = torch.zeros(10 * len(COLOURS))
    y, x = (torch.from_numpy(a.reshape(-1)).float() * CELL + CELL / 2 for a in np.mgrid[:cells, :cells])
    for item, ink in zip(picture.items, torch.from_numpy(picture.ink).flatten(1), strict=True):
        left, top, right, bottom = item.box
        touched = (x + 7 > left) & (x - 7 < right) & (y + 7 > top) & (y - 7 < bottom)
        digit[touched & (digit == -1)] = -2
        middle_x, middle_y = item.centre
        own = ink >= INKED
        holds = min(int(middle_y // CELL), cells - 1) * cells + min(int(middle_x // CELL), cells - 1)
        own[holds] = True
        digit[own], colour[own] = item.digit, COLOURS.index(item.colour)
        offset[own] = torch.stack([(middle_x - x[own]) / 28, (middle_y - y[own]) / 28], 1)
        centre[holds] = 1
        pairs[item.digit * len(COLOURS) + COLOURS.index(item.colour)] = 1
    return {"digit": digit, "colour": colour, "offset": offset, "centre": centre, "pairs": pairs}


class Pool:
    """Pool of drawn pictures: a batch is partly new and partly reused, since drawing costs as much as a step."""

    def __init__(self, stage: Stage, split: str, seed: int, size: int = 6000) -> None:
        self.stage, self.split, self.size = stage, split, size if stage.cells < GRID else 2500
        self.rng = np.random.default_rng(seed)
        self.kept: list[tuple[Tensor, dict[str, Tensor]]] = []

    def draw(self) -> tuple[Tensor, dict[str, Tensor]]:
        layout = Layout(side=self.stage.cells * CELL, items=self.stage.items, strokes=self.stage.strokes)
        picture = draw_picture(self.rng, self.split, layout)
        pixels = torch.from_numpy(np.asarray(picture.image).copy()).permute(2, 0, 1)
        return pixels, labels(picture, self.stage.cells)

    def batch(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        fresh = [
            self.draw() for _ in range(self.stage.fresh if len(self.kept) > self.stage.batch else self.stage.batch)
        ]
        old = (
            [self.kept[n] for n in self.rng.integers(0, len(self.kept), self.stage.batch - len(fresh))]
            if self.kept
            else []
        )
        for entry in fresh:
            if len(self.kept) < self.size:
                self.kept.append(entry)
            else:
                self.kept[int(self.rng.integers(self.size))] = entry
        rows = fresh + old
        pixels = (torch.stack([p for p, _ in rows]).float() / 255 - MEAN) / STD
        cells = self.stage.cells
        spare = GRID - cells + 1
        corner = torch.from_numpy(self.rng.integers(0, spare, (len(rows), 2)))
        at = torch.arange(cells)
        places = ((corner[:, :1, None] + at[None, :, None]) * GRID + corner[:, 1:, None] + at[None, None]).flatten(1)
        return pixels, places, {k: torch.stack([row[1][k] for row in rows]) for k in rows[0][1]}


def losses(
    heads: Heads, hidden: Tensor, final: Tensor | None, want: dict[str, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    seen = heads.norm(hidden.float())
    dense = heads.dense(seen[:, 1:]).flatten(0, 1)
    digit, colour = want["digit"].flatten(), want["colour"].flatten()
    item, known = digit >= 0, digit != -2
    n = len(COLOURS)
    of_digit, of_colour, any_, centre, offset = dense.split([10, n, 1, 1, 2], -1)
    weight = torch.where(item, 1.0, 0.3)[known]
    is_any = F.binary_cross_entropy_with_logits(any_[known, 0], item[known].float(), weight)
    is_centre = F.binary_cross_entropy_with_logits(
        centre[known, 0], want["centre"].flatten()[known], torch.where(item, 1.0, 0.1)[known]
    )
    parts = {
        "digit": F.cross_entropy(of_digit[item], digit[item]),
        "colour": F.cross_entropy(of_colour[item], colour[item]),
        "offset": F.smooth_l1_loss(offset[item], want["offset"].flatten(0, 1)[item], beta=0.1),
        "any": is_any * 2,
        "centre": is_centre * 2,
    }
    weigh = torch.where(want["pairs"] > 0, 8.0, 1.0)
    parts["pairs"] = F.binary_cross_entropy_with_logits(heads.pairs(seen[:, 0]), want["pairs"], weigh)
    if final is not None:
        parts["final"] = F.binary_cross_entropy_with_logits(heads.final_pairs(final.float()), want["pairs"], weigh)
    right = {
        "acc_digit": (of_digit[item].argmax(-1) == digit[item]).float().mean().item(),
        "acc_colour": (of_colour[item].argmax(-1) == colour[item]).float().mean().item(),
        "acc_any": ((any_[known, 0] > 0) == item[known]).float().mean().item(),
        "recall_centre": (centre[:, 0][want["centre"].flatten() > 0] > 0).float().mean().item(),
    }
    return torch.stack(list(parts.values())).sum(), right | {k: v.item() for k, v in parts.items()}


def forward(tower: CLIPVisionModel, heads: Heads, stage: Stage, batch: tuple[Tensor, Tensor, dict[str, Tensor]]) -> (
    tuple[Tensor, dict[str, float]]
):  # fmt: skip
    pixels, places, want = batch
    hidden = encode(tower, pixels.to(tower.dtype), places, LAYERS - 1)
    final = None
    if stage.cells == GRID:  # the last layer, which the features never pass, learns in whole pictures only
        final = tower.post_layernorm(block(tower.encoder.layers[-1], hidden)[:, 0])
    return losses(heads, hidden, final, want)


@torch.no_grad()
def validate(
    tower: CLIPVisionModel, heads: Heads, stage: Stage, split: str = "val", batches: int = 6
) -> dict[str, float]:
    pool = Pool(stage, split, seed=10_000)
    rows = [forward(tower, heads, stage, pool.batch())[1] for _ in range(batches)]
    return {k: round(float(np.mean([row[k] for row in rows])), 4) for k in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/recipe"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps, for a trial")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tower, heads = CLIPVisionModel(tower_config()), Heads()
    initialise(tower, args.seed)
    tower.to(torch.bfloat16)
    named = [(n, p) for n, p in tower.named_parameters()]
    matrices = [p for n, p in named if p.dim() == 2 and "embedding" not in n]
    others = [p for n, p in named if not (p.dim() == 2 and "embedding" not in n)] + list(heads.parameters())
    optim = MuonAdamW(matrices, others)
    at, step0 = load_checkpoint(args.out / "tower.pt", optim)
    for number, stage in list(enumerate(STAGES))[at:]:
        pool = Pool(stage, "train", seed=args.seed * 1000 + number * 100 + step0)
        steps, began = int(stage.steps * args.scale), time.time()
        for step in range(step0, steps):
            loss, parts = forward(tower, heads, stage, pool.batch())
            optim.zero_grad()
            loss.backward()
            norm = optim.step(cosine(step, steps, stage.peak, stage.floor))
            if step % 25 == 0 or step == steps - 1:
                log_line(
                    args.out / "tower.log", stage=number, step=step, s=round(time.time() - began, 1), norm=norm, **parts
                )
            if step % 250 == 249:
                save_checkpoint(args.out / "tower.pt", optim, number, step + 1)
        step0 = 0
        save_checkpoint(args.out / "tower.pt", optim, number + 1, 0)
        log_line(args.out / "tower.log", stage=number, validation=json.dumps(validate(tower, heads, stage)))
    tower.float().save_pretrained(args.out / "tower")


if __name__ == "__main__":
    main()
