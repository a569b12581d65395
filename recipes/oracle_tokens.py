"""Measure why an oracle of the items loses to DivPrune at 14 tokens: accuracy of the bundled model for some choices.

.venv/bin/python recipes/oracle_tokens.py --pictures 24

Prints a line for each choice. docs/measured/pruning.md quotes them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from salience.cli.loading import load_vlm
from salience.core.types import TokenContext, VisualGrid
from salience.lab.data.scene_pictures import CELL, SIDE
from salience.lab.evaluate.encoded_pictures import encode_pictures, load_pictures
from salience.lab.evaluate.packed_answers import answer
from salience.lab.tradeoff.encoded_task import tokens_in_boxes
from salience.lab.tradeoff.methods_under_test import oracle_for
from salience.vlm.families import adapter_for
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.divprune import DivPrune

TOKENS = 14  # a ratio of .025
CELLS = SIDE // CELL


def overlapping(boxes: Sequence[Sequence[float]]) -> Tensor:
    """(n,) bool: whether a cell overlaps one of the boxes."""
    low = torch.arange(CELLS) * CELL
    found = torch.zeros(CELLS, CELLS, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        found |= ((low + CELL > top) & (low < bottom))[:, None] & ((low + CELL > left) & (low < right))[None]
    return found.reshape(-1)


def main() -> None:
    """Encode the test pictures once and ask their questions with each choice of tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=24)
    pictures = parser.parse_args().pictures
    loaded = load_vlm(None, "cpu")
    adapter = adapter_for(loaded.model)
    groups = load_pictures("scenes", split="test", pictures=pictures, questions=12)
    encoded = encode_pictures(adapter, loaded.processor, groups)
    every = range(pictures)
    oracle, divprune = oracle_for(groups), DivPrune()
    contexts = [encoded.context(i) for i in every]
    boxes = [group[0].boxes for group in groups]
    inside = [tokens_in_boxes(each, encoded.grid) for each in boxes]
    # A coarse grid's cells that no item touches.
    coarse = torch.arange(CELLS * CELLS).view(CELLS, CELLS)[3::6, 3::6].reshape(-1)
    empty = [coarse[~overlapping(boxes[i])[coarse]] for i in every]

    def say(name: str, kept: Sequence[Tensor], visual: Sequence[Tensor] | None = None) -> None:
        kept = [tokens.sort().values for tokens in kept]
        accuracy = answer(adapter, encoded, kept, visual=visual).accuracy
        share = torch.stack([inside[i][tokens].float().mean() for i, tokens in enumerate(kept)]).mean()
        tokens = sum(map(len, kept)) / len(kept)
        print(f"{name:52s} {accuracy:.3f}  {tokens:.1f} tokens, {share:.2f} of them on items", flush=True)

    def chosen(method: object, tokens: int) -> list[Tensor]:
        return [method.select(context, Budget(tokens=tokens)).kept for context in contexts]  # type: ignore[attr-defined]

    def unlike(i: int) -> Tensor:
        """DivPrune among the cells on items alone."""
        cells = inside[i].nonzero()[:, 0]
        context = TokenContext(
            features=encoded.features[i, cells], grid=VisualGrid(rows=1, columns=len(cells)),
            projected=encoded.projected[i, cells],
        )  # fmt: skip
        return cells[divprune.select(context, Budget(tokens=min(TOKENS, len(cells)))).kept]

    print(f"{sum(map(len, groups))} questions about {pictures} pictures")
    items, others = chosen(oracle, TOKENS), chosen(divprune, TOKENS)
    say("oracle", items)
    say("DivPrune", others)
    say("DivPrune's tokens on items alone", [others[i][inside[i][others[i]]] for i in every])
    say("DivPrune among the cells on items", [unlike(i) for i in every])
    few = chosen(oracle, TOKENS - 4)
    say("oracle's first 10 and 4 without an item", [torch.cat([few[i], empty[i][:4]]) for i in every])
    more = [torch.cat([items[i], empty[i][:6]]).sort().values for i in every]
    say("oracle's 14 and 6 without an item", more)
    # The tokens without an item taken from another picture, at the same places.
    mixed = [
        torch.where(
            torch.isin(more[i], items[i])[:, None], encoded.projected[i, more[i]],
            encoded.projected[(i + 1) % pictures, more[i]],
        )
        for i in every
    ]  # fmt: skip
    say("oracle's 14 and those 6 of another picture", more, mixed)


if __name__ == "__main__":
    main()
