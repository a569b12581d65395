"""Packed questions: many questions behind one picture in one run, exactly as if each were asked alone.

A picture's row is [prefix][k visual tokens][question 1][question 2]... Each question attends to the prefix, the visual
tokens and itself (causally), and its positions start behind the picture's. So the prefix is computed once.

Glossary: B pictures, each with k visual tokens; p prefix length; n visual tokens before pruning; L row length;
A answer tokens of all questions of all pictures together; V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salience.lab.evaluate.prompts import Prompt, common_prefix
from salience.vlm.families import Adapter
from salience.vlm.families.llava import LlavaAdapter


def can_pack(adapter: Adapter) -> bool:
    """Whether a model's questions can be packed, as with LLaVA-1.5.

    Needed: one rectangle of visual tokens for a picture, in one place of the prompt; positions along one axis; causal
    attention.
    """
    return type(adapter) is LlavaAdapter  # families derived from it have newlines, tiles, or other positions


@dataclass(frozen=True, kw_only=True, eq=False)
class Pack:
    """Rows ready for the language model, all on the CPU.

    ids: (B, L) int64, 0 where a visual token or padding stands   visual: the columns p..p+k
    positions: (B, L) int64   mask: (B, 1, L, L) bool, True where a row attends
    places: (A, 2) int64, the row and column whose logits predict each answer token   targets: (A,) int64
    owners: (A, 3) int64: picture, question, step of each answer token
    spans: for each picture, each question's (first column, last column of the prompt)
    """

    ids: Tensor
    visual: slice
    positions: Tensor
    mask: Tensor
    places: Tensor
    targets: Tensor
    owners: Tensor
    spans: tuple[tuple[tuple[int, int], ...], ...]


def pack(questions: Sequence[Sequence[Prompt]], kept: Tensor, n: int, *, positions: str = "original") -> Pack:
    """Lay out the questions of B pictures that keep equally many tokens.

    Args:    questions: for each picture its prompts   kept: (B, k) int64, rising   n: visual tokens before pruning
             positions: "original" (a kept token keeps its place) or "compact" (places close up)
    Raises:  ValueError when there is no question, prefixes differ, or positions is neither
    """
    if positions not in ("original", "compact"):
        raise ValueError(f"positions must be 'original' or 'compact', not {positions!r}.")
    if not questions or not all(questions):
        raise ValueError("questions must hold at least one prompt for every picture.")
    prefix = common_prefix([prompt for picture in questions for prompt in picture])
    p, (rows, k) = len(prefix), kept.shape
    start = p + k
    length = start + max(sum(_width(prompt) for prompt in picture) for picture in questions)
    ids = torch.zeros(rows, length, dtype=torch.int64)
    ids[:, :p] = torch.tensor(prefix, dtype=torch.int64)
    places_of = torch.zeros(rows, length, dtype=torch.int64)
    places_of[:, :p] = torch.arange(p)
    places_of[:, p:start] = p + (kept if positions == "original" else torch.arange(k).expand(rows, k))
    behind = p + (n if positions == "original" else k)
    block = torch.full((rows, length), -1, dtype=torch.int64)  # -1: prefix and picture, which everybody sees
    places, targets, owners, spans = [], [], [], []
    for row, picture in enumerate(questions):
        at, spanned = start, []
        for number, prompt in enumerate(picture):
            width = _width(prompt)
            ids[row, at : at + width] = torch.tensor(prompt.suffix + prompt.answer[:-1])
            places_of[row, at : at + width] = behind + torch.arange(width)
            block[row, at : at + width] = number
            last = at + len(prompt.suffix) - 1  # the answer's first token is read off here
            spanned.append((at, last))
            for step, token in enumerate(prompt.answer):
                places.append((row, last + step))
                targets.append(token)
                owners.append((row, number, step))
            at += width
        block[row, at:] = len(picture) + 1  # padding sees the prefix and itself, and nobody sees it
        spans.append(tuple(spanned))
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = (block[:, None, :] == -1) | (block[:, None, :] == block[:, :, None])  # (B, L, L)
    return Pack(
        ids=ids,
        visual=slice(p, start),
        positions=places_of,
        mask=(same & causal)[:, None],
        places=torch.tensor(places),
        targets=torch.tensor(targets),
        owners=torch.tensor(owners),
        spans=tuple(spans),
    )


def _width(prompt: Prompt) -> int:
    """Columns a question takes: the answer's last token is predicted but never read."""
    return len(prompt.suffix) + len(prompt.answer) - 1


def run(adapter: Adapter, packed: Pack, visual: Tensor) -> Tensor:
    """The language model over the pack, with its head where an answer token is predicted.

    Args:    visual: (B, k, d_llm), projected
    Returns: logits (A, V) float32
    """
    device, dtype = visual.device, visual.dtype
    embeddings = adapter.model.get_input_embeddings()(packed.ids.to(device))  # (B, L, d_llm)
    embeddings[:, packed.visual] = visual
    allowed = packed.mask.to(device)
    # Additive, because the eager kernel adds its mask and the fused one accepts either.
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, torch.finfo(dtype).min)
    hidden = adapter.language_model(
        inputs_embeds=embeddings, attention_mask=mask, position_ids=packed.positions.to(device), use_cache=False
    ).last_hidden_state
    places = packed.places.to(device)
    logits: Tensor = adapter.lm_head(hidden[places[:, 0], places[:, 1]])
    return logits.float()
