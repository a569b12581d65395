"""Described scenes: training data of the language model without pictures.

A described scene is a list of cells of the 24 x 24 grid, each either empty or part of an item; a cell's embedding is
the sum of the embeddings of its properties: digit, colour, the row and column of the item's middle (of the cell itself
where it is empty) and whether the cell holds that middle. Scenes are made sparse (24 cells and more) because the
questions cost the same behind few cells as behind many; nothing is dropped from a picture here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from vocabulary import ASSISTANT, BOS, EOS, IDS, PAD, USER, question_ids

from salience.lab.data.scene_pictures import CELL, COLOURS, SIDE, Item, place
from salience.lab.data.scenes import Question, ask_about

GRID, NONE_DIGIT, NONE_COLOUR = 24, 10, len(COLOURS)
FIRST = 2  # position of the first visual token: behind <s> and USER:
AFTER = FIRST + GRID * GRID  # position of a question's first token, whatever was left out


class Description(nn.Module):
    """Embedding tables of a cell's properties; forward (B, n, 5) of indices -> (B, n, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (NONE_DIGIT + 1, NONE_COLOUR + 1, GRID, GRID, 2)
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, said: Tensor) -> Tensor:
        return torch.stack([table(said[..., n]) for n, table in enumerate(self.tables)]).sum(0)


def said_of(items: tuple[Item, ...], owner: np.ndarray) -> np.ndarray:
    """Properties of each cell: (576, 5). owner (576,): the item a cell belongs to, or -1."""
    cells = np.arange(GRID * GRID)
    said = np.stack([np.full(GRID * GRID, NONE_DIGIT), np.full(GRID * GRID, NONE_COLOUR), cells // GRID,
                     cells % GRID, np.zeros(GRID * GRID, dtype=int)], 1)  # fmt: skip
    for n, item in enumerate(items):
        row, column = (min(GRID - 1, int(v // CELL)) for v in item.centre[::-1])
        said[owner == n] = (item.digit, COLOURS.index(item.colour), row, column, 0)
        if owner[row * GRID + column] == n:
            said[row * GRID + column, 4] = 1
    return said


@dataclass(frozen=True, kw_only=True)
class Batch:
    """said (B, n, 5), cells (B, n) raster indices padded with -1; the questions, packed (B, q)."""

    said: Tensor
    cells: Tensor
    ids: Tensor
    positions: Tensor
    block: Tensor
    answers: Tensor  # (B, q): the token to predict there, or -100
    weights: Tensor


def pack(asked: list[list[Question]], count_weight: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Questions with answers, one behind another: ids, positions, block number, answer to predict, its weight."""
    rows = []
    for questions in asked:
        ids, positions, block, answers, weights = [], [], [], [], []
        for n, question in enumerate(questions):
            own = [*question_ids(question.text), IDS[question.answer]]
            ids += own
            positions += range(AFTER, AFTER + len(own))
            block += [n] * len(own)
            answers += [-100] * (len(own) - 2) + [IDS[question.answer], EOS]
            weights += [0.0] * (len(own) - 2) + [count_weight if question.kind == "count" else 1.0, 0.05]
        rows.append((ids, positions, block, answers, weights))
    longest = -(-max(len(row[0]) for row in rows) // 16) * 16  # few lengths: every new shape costs a kernel's set-up
    fills = (PAD, AFTER, -1, -100, 0.0)
    return tuple(  # type: ignore[return-value]
        torch.tensor([list(row[k]) + [fills[k]] * (longest - len(row[k])) for row in rows]) for k in range(5)
    )


def describe(
    rng: np.random.Generator, cells: int, most: int = 8, questions: int = 16
) -> tuple[np.ndarray, np.ndarray, list[Question]]:
    """One described scene: said (cells, 5), raster indices (cells,), questions."""
    boxes: list[tuple[int, int, int, int]] = []
    items = []
    for colour in rng.permutation(len(COLOURS))[: int(rng.integers(1, most + 1))]:
        height, width = int(rng.integers(26, 60)), int(rng.integers(14, 56))
        box = place(rng, boxes, (height, width), SIDE)
        if box is not None:
            boxes.append(box)
            items.append(Item(digit=int(rng.integers(10)), colour=COLOURS[colour], box=box))
    owner = np.full(GRID * GRID, -1)
    shown: list[int] = []
    budget = max(1, cells // (2 * len(items)))
    for n, item in enumerate(items):
        left, top, right, bottom = (v / CELL for v in item.box)
        rows = np.arange(int(top), min(GRID, int(np.ceil(bottom))))
        columns = np.arange(int(left), min(GRID, int(np.ceil(right))))
        own = (rows[:, None] * GRID + columns).reshape(-1)
        own = own[rng.random(len(own)) < 0.8] if len(own) > 2 else own
        own = own[owner[own] == -1]
        owner[own] = n
        shown += list(rng.permutation(own)[: min(len(own), int(rng.integers(1, budget + 1)))])
    empty = rng.permutation(np.flatnonzero(owner == -1))[: cells - len(shown)]
    kept = np.sort(np.concatenate([np.array(shown, dtype=int), empty]))[: GRID * GRID]
    present = set(owner[kept]) - {-1}
    # An item none of whose cells was shown is not in the scene: the questions are about what is.
    stay = tuple(item for n, item in enumerate(items) if n in present)
    said = said_of(tuple(items), owner)[kept]
    return said, kept, ask_about(stay, rng, questions, int(rng.integers(5)))


def collate(scenes: list[tuple[np.ndarray, np.ndarray, list[Question]]], count_weight: float) -> Batch:
    longest = -(-max(len(kept) for _, kept, _ in scenes) // 32) * 32
    said = torch.zeros(len(scenes), longest, 5, dtype=torch.long)
    cells = torch.full((len(scenes), longest), -1)
    for n, (what, kept, _) in enumerate(scenes):
        said[n, : len(kept)], cells[n, : len(kept)] = torch.from_numpy(what), torch.from_numpy(kept)
    ids, positions, block, answers, weights = pack([q for _, _, q in scenes], count_weight)
    return Batch(said=said, cells=cells, ids=ids, positions=positions, block=block, answers=answers, weights=weights)


PREFIX = (BOS, USER)
__all__ = [
    "AFTER",
    "ASSISTANT",
    "FIRST",
    "GRID",
    "PREFIX",
    "Batch",
    "Description",
    "collate",
    "describe",
    "pack",
    "said_of",
]
