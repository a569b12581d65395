"""Stage 0b: the language model, alone, on described scenes.

Run: python recipes/language.py --out build/recipe  (resumes from its last checkpoint).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from checkpoints import load_checkpoint, log_line, save_checkpoint
from describe import Batch, Description, collate, describe
from optim import MuonAdamW, cosine
from reader import WIDTH, answer_logits, answer_loss, initialise, language_config
from torch import Tensor
from transformers import LlamaForCausalLM
from vocabulary import EOS, IDS


@dataclass(frozen=True, kw_only=True)
class Stage:
    cells: tuple[int, int]
    scenes: int
    steps: int
    peak: float
    floor: float


STAGES = (
    Stage(cells=(24, 100), scenes=16, steps=800, peak=1.5e-3, floor=0.5),
    Stage(cells=(24, 250), scenes=12, steps=300, peak=8e-4, floor=0.4),
    Stage(cells=(60, 576), scenes=6, steps=150, peak=3e-4, floor=0.05),
)


def draw(rng: np.random.Generator, stage: Stage) -> Batch:
    cells = int(rng.integers(stage.cells[0], stage.cells[1] + 1))
    return collate([describe(rng, cells) for _ in range(stage.scenes)], count_weight=3.0)


def accuracy(logits: Tensor, want: Tensor, batch: Batch) -> dict[str, float]:
    """Accuracy over all questions and by kind; the kind follows from the words before the answer."""
    answers = batch.answers[batch.answers != -100]
    first = want != EOS
    right = (logits.argmax(-1) == want)[first]
    kinds = []
    for row in range(len(batch.ids)):
        for n in range(int(batch.block[row].max()) + 1):
            ids = batch.ids[row][batch.block[row] == n].tolist()
            kinds.append(kind_of(ids))
    found = {"acc": right.float().mean().item()}
    assert len(kinds) == len(right) and len(answers) == len(want)
    for kind in sorted(set(kinds)):
        chosen = torch.tensor([k == kind for k in kinds])
        found[f"acc_{kind}"] = right[chosen].float().mean().item()
    return found


def kind_of(ids: list[int]) -> str:
    words = {IDS[w]: w for w in ("how", "there", "one", "colour")}
    named = {words[i] for i in ids if i in words}
    if "how" in named:
        return "count"
    if "there" in named:
        return "exists"
    if "one" in named:
        return "relation"
    return "colour" if "colour" in named else "digit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/recipe"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps, for a trial")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model, said = LlamaForCausalLM(language_config()), Description(WIDTH)
    initialise(model, args.seed)
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    others = [model.model.embed_tokens.weight, model.lm_head.weight, model.model.norm.weight, *said.parameters()]
    others += [p for p in model.model.layers.parameters() if p.dim() == 1]
    model.model.layers.to(torch.bfloat16)
    model.model.norm.to(torch.bfloat16)
    model.lm_head.to(torch.bfloat16)
    optim = MuonAdamW(matrices, others)
    at, step0 = load_checkpoint(args.out / "language.pt", optim)
    for number, stage in list(enumerate(STAGES))[at:]:
        rng = np.random.default_rng([args.seed, number, step0])
        steps, began = int(stage.steps * args.scale), time.time()
        for step in range(step0, steps):
            batch = draw(rng, stage)
            logits, want, weight = answer_logits(model, said(batch.said), batch)
            loss = answer_loss(logits, want, weight)
            optim.zero_grad()
            loss.backward()
            norm = optim.step(cosine(step, steps, stage.peak, stage.floor))
            if step % 25 == 0 or step == steps - 1:
                log_line(
                    args.out / "language.log",
                    stage=number,
                    step=step,
                    s=round(time.time() - began, 1),
                    cells=batch.cells.shape[1],
                    norm=norm,
                    loss=loss.item(),
                    **accuracy(logits, want, batch),
                )
            if step % 200 == 199:
                save_checkpoint(args.out / "language.pt", optim, number, step + 1)
        step0 = 0
        save_checkpoint(args.out / "language.pt", optim, number + 1, 0)
    model.float().save_pretrained(args.out / "language")
    torch.save(said.state_dict(), args.out / "description.pt")


if __name__ == "__main__":
    main()
