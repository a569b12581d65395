"""Tune the bundled model's projector and language model for easy-VQA, an independent benchmark.

The vision tower stays as it was trained on digits. The tokenizer gets easy-VQA's words, in rows of the embeddings that
stood empty. Each step asks the questions of some training pictures behind a uniformly random share of their visual
tokens, mostly .1 to .25 of them: cheap, and without it the model would never have seen fewer. Pictures of the package's
test split are never opened; a few training pictures are held out to watch (nothing is chosen by them: the last step's
weights are the result). The package: pip install easy-vqa.
Run: python recipes/tune_easy_vqa.py --out build/easy-vqa  (it goes on from its last checkpoint)
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from checkpoints import load_checkpoint, log_line, save_checkpoint
from optim import MuonAdamW, cosine
from torch import Tensor

import salience
from salience.lab.data import vqa
from salience.lab.data.vqa import VqaSample
from salience.lab.data.vqa.layouts import easy_vqa
from salience.lab.evaluate.packing import Pack, pack, run
from salience.lab.evaluate.prompts import Prompt, encode_prompt
from salience.vlm.families import adapter_for

#: What the questions and answers say that the bundled model's vocabulary lacks.
NEW_WORDS = (
    "black brown circle color contain does gray image in not present rectangle shape teal triangle what"
).split()
#: Words whose embedding starts as that of another one, which means the same.
LIKE = {"color": "colour", "what": "which"}
PEAK, FLOOR = 5e-4, 0.02
QUESTIONS = 6  # of a picture, in a step
ALL_EVERY = 12  # every so many steps see all visual tokens, of a quarter as many pictures
SHARES = (0.1, 0.25)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """pictures: trained on   held: training pictures only watched   batch: pictures a step"""

    pictures: int = 900
    held: int = 100
    steps: int = 120
    batch: int = 16
    log_every: int = 10
    check_every: int = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """features (P, n, d) bfloat16, of the frozen tower   prompts: for each picture its questions"""

    features: Tensor
    prompts: Sequence[Sequence[Prompt]]


def begin(folder: Path) -> tuple[Any, Any]:
    """The bundled model and its processor, with easy-VQA's words. folder: takes the copy that they are read from."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(salience.bundled_model(), folder, ignore=shutil.ignore_patterns("salience", "README.md"))
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words: dict[str, int] = tokenizer["model"]["vocab"]
    words.update({word: len(words) + n for n, word in enumerate(NEW_WORDS)})
    path.write_text(json.dumps(tokenizer, indent=2))
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    if len(words) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(words))
    with torch.no_grad():
        for word, other in LIKE.items():
            for table in (model.get_input_embeddings().weight, model.lm_head.weight):
                table[words[word]] = table[words[other]]
    return model, AutoProcessor.from_pretrained(folder)


def training_groups(folder: Path, sizes: Sizes, seed: int) -> list[list[VqaSample]]:
    """The training split's questions by picture, in an order drawn by the seed: those held out, then the others."""
    samples = vqa.load_folder(folder / "train").samples
    groups = [list(group) for _, group in itertools.groupby(samples, key=lambda sample: sample.picture)]
    order = np.random.default_rng(seed).permutation(len(groups))[: sizes.held + sizes.pictures]
    return [groups[number] for number in order]


@torch.no_grad()
def encode(model: Any, processor: Any, groups: Sequence[Sequence[VqaSample]], path: Path) -> Encoded:
    """Every picture through the tower once, kept on disk."""
    adapter, features = adapter_for(model), []
    if path.exists():
        known: Tensor = torch.load(path, weights_only=True)
        features = list(known.split(1))
    for start in range(len(features), len(groups), 8):
        images = [group[0].image for group in groups[start : start + 8]]
        pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        features += list(adapter.encode(pixels).features.bfloat16().split(1))
        if start // 8 % 25 == 24 or start + 8 >= len(groups):
            aside = path.with_suffix(".tmp")
            torch.save(torch.cat(features), aside)
            aside.replace(path)
            print(f"{len(features)} of {len(groups)} pictures encoded", flush=True)
    prompts = [
        [encode_prompt(processor, s.question, s.answer, image_token_id=adapter.image_token_id) for s in group]
        for group in groups
    ]
    return Encoded(features=torch.cat(features[: len(groups)]), prompts=prompts)


def asked(
    model: Any, pictures: Encoded, rows: Sequence[int], k: int, rng: np.random.Generator, questions: int = QUESTIONS
) -> tuple[Tensor, Pack]:
    """Logits (A, V) of the answers' tokens behind k uniformly random visual tokens of each picture, and the targets."""
    n = pictures.features.shape[1]
    kept = torch.from_numpy(np.stack([np.sort(rng.permutation(n)[:k]) for _ in rows]))
    prompts = []
    for row in rows:
        own = pictures.prompts[row]
        prompts.append([own[number] for number in rng.permutation(len(own))[:questions]])
    features = torch.stack([pictures.features[row][cells] for row, cells in zip(rows, kept, strict=True)]).float()
    adapter = adapter_for(model)
    packed = pack(prompts, kept, n)
    return run(adapter, packed, adapter.project(features)), packed


def accuracy(logits: Tensor, packed: Pack) -> float:
    """Share of the answers whose single word is the most likely one."""
    first = packed.owners[:, 2] == 0
    return float((logits.argmax(-1) == packed.targets)[first].float().mean())


@torch.no_grad()
def validate(model: Any, held: Encoded, k: int) -> float:
    rng, found = np.random.default_rng(5), []
    for start in range(0, len(held.prompts), 10):
        rows = range(start, min(start + 10, len(held.prompts)))
        found.append(accuracy(*asked(model, held, rows, k, rng)))
    return float(np.mean(found))


def tune(model: Any, train: Encoded, held: Encoded, out: Path, sizes: Sizes, seed: int) -> None:
    """Train projector and language model; a step's draws depend on its number alone, so a resumed run is the same."""
    model.requires_grad_(False)
    parts = (model.model.multi_modal_projector, model.model.language_model, model.lm_head)
    learnt = [parameter.requires_grad_() for part in parts for parameter in part.parameters()]
    optim = MuonAdamW([], learnt)
    _, first = load_checkpoint(out / "tune.pt", optim)
    n, began = train.features.shape[1], time.process_time()
    for step in range(first, sizes.steps):
        rng = np.random.default_rng([seed, step])
        whole = step % ALL_EVERY == ALL_EVERY - 1
        k = n if whole else round(n * rng.uniform(*SHARES))
        rows = rng.integers(0, len(train.prompts), max(1, sizes.batch // (4 if whole else 1))).tolist()
        logits, packed = asked(model, train, rows, k, rng)
        loss = F.cross_entropy(logits, packed.targets)
        optim.zero_grad()
        loss.backward()
        norm = optim.step(cosine(step, sizes.steps, PEAK, FLOOR))
        if step % sizes.log_every < 2 or whole:
            spent = round(time.process_time() - began, 1)
            log_line(
                out / "tune.log", step=step, cpu_s=spent, cells=k, loss=loss.item(), norm=norm,
                accuracy=accuracy(logits.detach(), packed),
            )  # fmt: skip
        if step % sizes.check_every == sizes.check_every - 1 or step == sizes.steps - 1:
            save_checkpoint(out / "tune.pt", optim, 1, step + 1)
            for fewer in (n, n // 10):
                log_line(out / "tune.log", step=step, held_accuracy=validate(model, held, fewer), cells=fewer)


def make(data: Path, out: Path, sizes: Sizes, seed: int = 0) -> Path:
    """Train, from the last checkpoint if there is one. Returns: the folder that transformers loads."""
    work = out.with_name(out.name + ".unfinished")
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model, processor = begin(work / "start")
    groups = training_groups(data, sizes, seed)
    all_of = encode(model, processor, groups, work / "features.pt")
    held = Encoded(features=all_of.features[: sizes.held], prompts=all_of.prompts[: sizes.held])
    train = Encoded(features=all_of.features[sizes.held :], prompts=all_of.prompts[sizes.held :])
    tune(model, train, held, work, sizes, seed)
    model.save_pretrained(work / "done")
    processor.save_pretrained(work / "done")
    shutil.copy(work / "tune.log", work / "done" / "curve.jsonl")
    shutil.rmtree(out, ignore_errors=True)
    (work / "done").replace(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/easy-vqa"))
    parser.add_argument("--data", type=Path, help="the package's data folder, if it is not installed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=Sizes.pictures)
    parser.add_argument("--steps", type=int, default=Sizes.steps)
    args = parser.parse_args()
    sizes = Sizes(pictures=args.pictures, steps=args.steps)
    print(make(args.data or easy_vqa.folder(), args.out, sizes, args.seed))


if __name__ == "__main__":
    main()
