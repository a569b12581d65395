"""Generation of a fused model equals transformers' token for token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor


def generate(model: Any, tokens: Tensor, **options: Any) -> Tensor:
    torch.manual_seed(0)
    given = {"max_new_tokens": 10, "do_sample": False, **options}
    out: Tensor = model.generate(input_ids=tokens, **given)
    return out


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 0},
    "several samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "beams that sample": {"num_beams": 2, "do_sample": True},
    "without a cache": {"use_cache": False},
}


@pytest.mark.parametrize("way", WAYS)
def test_token_for_token(model: Any, fused: Any, ids: Any, way: str) -> None:
    tokens = ids(2, 6)
    mask = torch.ones_like(tokens)
    options = {"attention_mask": mask, **WAYS[way]}
    assert torch.equal(generate(fused, tokens, **options), generate(model, tokens, **options))


@pytest.mark.parametrize("way", ["greedy", "sampling", "beams"])
def test_a_left_padded_batch(model: Any, fused: Any, ids: Any, way: str) -> None:
    tokens, mask = ids(3, 8), torch.ones(3, 8, dtype=torch.long)
    mask[0, :3], mask[1, :7] = 0, 0
    tokens[mask == 0] = 0
    options = {"attention_mask": mask, **WAYS[way]}
    got = generate(fused, tokens, **options)
    assert torch.equal(got, generate(model, tokens, **options))
    if way == "greedy":
        for row in range(3):
            alone = generate(fused, tokens[row, mask[row].bool()][None])
            assert torch.equal(got[row, 8:], alone[0, -10:])


def test_a_prompt_of_one_token(model: Any, fused: Any, ids: Any) -> None:
    tokens = ids(2, 1)
    assert torch.equal(generate(fused, tokens), generate(model, tokens))


def test_streaming(fused: Any, ids: Any) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def put(self, value: Tensor) -> None:
            self.seen.extend(value.flatten().tolist())

        def end(self) -> None: ...

    tokens, streamer = ids(1, 5), Streamer()
    assert generate(fused, tokens, streamer=streamer)[0].tolist() == streamer.seen


def guided(model: Any, tokens: Tensor, **options: Any) -> Tensor:
    given = {"max_new_tokens": 6, "do_sample": False, "guidance_scale": 1.7, "attention_mask": torch.ones_like(tokens)}
    out: Tensor = model.generate(input_ids=tokens, negative_prompt_ids=tokens.flip(1)[:, :4], **{**given, **options})
    return out


def test_guidance_is_right_or_refused(model: Any, fused: Any, ids: Any) -> None:
    """transformers before 5.24 loses the cache of what guidance holds against, of Mamba and FalconMamba."""
    tokens = ids(2, 6)
    wanted = guided(model, tokens, use_cache=False)
    assert torch.equal(guided(fused, tokens, use_cache=False), wanted)
    try:
        got = guided(fused, tokens)
    except ValueError as error:
        assert "with it: with guidance_scale pass use_cache=False, and no inputs_embeds" in str(error)
        assert fused.config.model_type in ("mamba", "falcon_mamba")
    else:
        assert torch.equal(got, wanted)
