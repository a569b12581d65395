"""Train in LLaVA's two stages: the projector alone, then projector and language model on questions about pictures.

Stage 1 (alignment) regresses each projected cell onto the description of what is there, tower and language model
frozen. Stage 2 (instruction tuning) asks 16 questions behind each picture; in half the steps a uniformly random part of
the visual tokens is left out, and questions about an item none of whose cells is left are then not asked.
Run: python recipes/tune.py --out build/recipe  (after tower.py and language.py; it goes on from its last checkpoint).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from checkpoints import load_checkpoint, log_line, save_checkpoint
from describe import GRID, NONE_DIGIT, Batch, Description, pack, said_of
from language import accuracy
from optim import MuonAdamW, cosine
from reader import WIDTH, answer_logits, answer_loss
from torch import Tensor, nn
from tower import INKED, LAYERS, MEAN, STD, encode
from tower import WIDTH as TOWER_WIDTH
from transformers import CLIPVisionModel, LlamaForCausalLM

from salience.lab.data.scene_pictures import CELL, Item, draw_picture
from salience.lab.data.scenes import ask_about, picture_rng

ALIGN_STEPS, ALIGN_PEAK = 1500, 3e-3
TUNE_STEPS, TUNE_PEAK, TUNE_PICTURES = 650, 6e-4, 8
FEWEST = 40  # visual tokens that a step leaves at the least


class Projector(nn.Module):
    """LLaVA's two layers, under LLaVA's names."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(TOWER_WIDTH, WIDTH)
        self.linear_2 = nn.Linear(WIDTH, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(features)))


class Pictures:
    """Features of pictures of a split, encoded once and kept on disk: (n, 576, 192) bfloat16, and their items."""

    def __init__(self, out: Path, tower: CLIPVisionModel, split: str, n: int, seed: int) -> None:
        self.items: list[tuple[Item, ...]] = []
        owners = []
        path = out / f"features-{split}.pt"
        known = torch.load(path, weights_only=True) if path.exists() else None
        features = []
        places = torch.arange(GRID * GRID)[None]
        for number in range(n):
            picture = draw_picture(picture_rng(split, seed, number), split)
            self.items.append(picture.items)
            owners.append(owner_of(picture.items, picture.ink))
            if known is None:
                pixels = torch.from_numpy(np.asarray(picture.image).copy()).permute(2, 0, 1)[None].float() / 255
                with torch.inference_mode():
                    hidden = encode(tower, ((pixels - MEAN) / STD).bfloat16(), places, LAYERS - 1)
                features.append(hidden[0, 1:])
                if number % 250 == 0:
                    print(f"{split}: {number} of {n} pictures encoded", flush=True)
        self.features = torch.stack(features) if known is None else known
        if known is None:
            torch.save(self.features, path)
        self.owner = np.stack(owners)
        self.said = torch.from_numpy(np.stack([said_of(i, o) for i, o in zip(self.items, self.owner, strict=True)]))


def owner_of(items: tuple[Item, ...], ink: np.ndarray) -> np.ndarray:
    """(576,): the item whose ink a cell holds (its middle's cell included), -1 none, -2 inside a box but inkless."""
    owner = np.full(GRID * GRID, -1)
    y, x = (a.reshape(-1) * CELL + CELL / 2 for a in np.mgrid[:GRID, :GRID])
    for item in items:
        left, top, right, bottom = item.box
        owner[(owner == -1) & (x + 7 > left) & (x - 7 < right) & (y + 7 > top) & (y - 7 < bottom)] = -2
    for n, item in enumerate(items):
        owner[ink[n].reshape(-1) >= INKED] = n
        row, column = (min(GRID - 1, int(v // CELL)) for v in item.centre[::-1])
        owner[row * GRID + column] = n
    return owner


def draw(rng: np.random.Generator, pictures: Pictures, rows: np.ndarray, k: int) -> tuple[Tensor, Batch]:
    """Features (B, k, 192) of uniformly random cells of the pictures, with questions whose evidence is left."""
    cells = np.stack([np.sort(rng.permutation(GRID * GRID)[:k]) for _ in rows])
    asked = []
    for row, kept in zip(rows, cells, strict=True):
        seen = set(pictures.owner[row][kept].tolist())
        found = ask_about(pictures.items[row], rng, 24, int(rng.integers(5)))
        asked.append([q for q in found if k == GRID * GRID or all(n in seen for n in q.about)][:16])
    ids, positions, block, answers, weights = pack(asked, count_weight=3.0)
    index = torch.from_numpy(cells)
    features = torch.stack([pictures.features[int(r)][i] for r, i in zip(rows, index, strict=True)]).float()
    said = pictures.said[torch.from_numpy(rows)[:, None], index]
    return features, Batch(
        said=said, cells=index, ids=ids, positions=positions, block=block, answers=answers, weights=weights
    )


@torch.no_grad()
def validate(
    model: LlamaForCausalLM, projector: Projector, pictures: Pictures, k: int, n: int = 96
) -> dict[str, float]:
    rng, found = np.random.default_rng(5), []
    for start in range(0, n, 8):
        features, batch = draw(rng, pictures, np.arange(start, start + 8), k)
        logits, want, _ = answer_logits(model, projector(features), batch)
        found.append(accuracy(logits, want, batch))
    return {key: round(float(np.mean([f[key] for f in found if key in f])), 4) for key in found[0]}


def align(projector: Projector, said: Description, pictures: Pictures, out: Path, seed: int) -> None:
    named = list(projector.parameters())
    optim = MuonAdamW([], named, decay=0.0)
    _, step0 = load_checkpoint(out / "align.pt", optim)
    rng = np.random.default_rng([seed, 1, step0])
    owner = torch.from_numpy(pictures.owner)
    for step in range(step0, ALIGN_STEPS):
        rows = torch.from_numpy(rng.integers(0, len(pictures.items), 16))
        with torch.no_grad():
            want = said(pictures.said[rows])
        weight = torch.where(pictures.said[rows][..., 0] != NONE_DIGIT, 5.0, torch.where(owner[rows] == -2, 0.2, 1.0))
        gap = (projector(pictures.features[rows].float()) - want).square().mean(-1)
        loss = (gap * weight).sum() / weight.sum()
        optim.zero_grad()
        loss.backward()
        optim.step(cosine(step, ALIGN_STEPS, ALIGN_PEAK, 0.02))
        if step % 100 == 0 or step == ALIGN_STEPS - 1:
            log_line(out / "tune.log", stage="align", step=step, loss=loss.item() * 1000)
    save_checkpoint(out / "align.pt", optim, 1, ALIGN_STEPS)


def tune(model: LlamaForCausalLM, projector: Projector, train: Pictures, held: Pictures, out: Path, seed: int) -> None:
    layers = list(model.model.layers.parameters())
    matrices = [p for p in layers if p.dim() == 2]
    rest = [p for p in layers if p.dim() == 1] + [
        model.model.embed_tokens.weight,
        model.lm_head.weight,
        model.model.norm.weight,
    ]
    model.model.layers.to(torch.bfloat16)
    model.model.norm.to(torch.bfloat16)
    model.lm_head.to(torch.bfloat16)
    optim = MuonAdamW(matrices, rest + list(projector.parameters()))
    _, step0 = load_checkpoint(out / "tune.pt", optim)
    rng, began = np.random.default_rng([seed, 2, step0]), time.time()
    for step in range(step0, TUNE_STEPS):
        k = GRID * GRID if step % 2 else 32 * int(rng.integers(-(-FEWEST // 32), 16))
        many = TUNE_PICTURES if k > 320 else 2 * TUNE_PICTURES
        features, batch = draw(rng, train, rng.integers(0, len(train.items), many), k)
        logits, want, weight = answer_logits(model, projector(features), batch)
        loss = answer_loss(logits, want, weight)
        optim.zero_grad()
        loss.backward()
        norm = optim.step(cosine(step, TUNE_STEPS, TUNE_PEAK, 0.02))
        if step % 25 < 2:
            log_line(
                out / "tune.log",
                stage="tune",
                step=step,
                s=round(time.time() - began, 1),
                cells=k,
                norm=norm,
                loss=loss.item(),
                **accuracy(logits, want, batch),
            )
        if step % 100 == 99 or step == TUNE_STEPS - 1:
            save_checkpoint(out / "tune.pt", optim, 2, step + 1)
        if step % 200 == 199 or step == TUNE_STEPS - 1:
            for fewer in (576, 96):
                log_line(out / "tune.log", validation=json.dumps(validate(model, projector, held, fewer)), cells=fewer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/recipe"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=3000)
    args = parser.parse_args()
    tower = CLIPVisionModel.from_pretrained(args.out / "tower", dtype=torch.bfloat16).eval()
    model = LlamaForCausalLM.from_pretrained(args.out / "language", dtype=torch.float32)
    said = Description(WIDTH)
    said.load_state_dict(torch.load(args.out / "description.pt", weights_only=True))
    train = Pictures(args.out, tower, "train", args.pictures, seed=1)
    held = Pictures(args.out, tower, "val", 96, seed=1)
    torch.manual_seed(args.seed)
    projector = Projector()
    align(projector, said, train, args.out, args.seed)
    log_line(args.out / "tune.log", aligned=json.dumps(validate(model, projector, held, 576)))
    tune(model, projector, train, held, args.out, args.seed)
    model.float().save_pretrained(args.out / "tuned")
    torch.save(projector.state_dict(), args.out / "projector.pt")


if __name__ == "__main__":
    main()
