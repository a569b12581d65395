"""Generation of a MambaLM equals transformers' token for token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from salience import MambaLM


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
    "to a stop": {"eos_token_id": list(range(1, 24))},
}


@pytest.mark.parametrize("way", WAYS)
def test_token_for_token(theirs: Any, ours: MambaLM, ids: Any, way: str) -> None:
    tokens = ids(2, 6)
    options = {"attention_mask": torch.ones_like(tokens), **WAYS[way]}
    assert torch.equal(generate(ours, tokens, **options), generate(theirs, tokens, **options))


@pytest.mark.parametrize("way", ["greedy", "sampling", "beams"])
def test_a_left_padded_batch(theirs: Any, ours: MambaLM, ids: Any, way: str) -> None:
    tokens, mask = ids(3, 8), torch.ones(3, 8, dtype=torch.long)
    mask[0, :3], mask[1, :7] = 0, 0
    tokens[mask == 0] = 0
    options = {"attention_mask": mask, **WAYS[way]}
    got = generate(ours, tokens, **options)
    assert torch.equal(got, generate(theirs, tokens, **options))
    if way == "greedy":
        for row in range(3):
            alone = generate(ours, tokens[row, mask[row].bool()][None])
            assert torch.equal(got[row, 8:], alone[0, -10:])


def test_streaming(ours: MambaLM, ids: Any) -> None:
    class Streamer:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def put(self, value: Tensor) -> None:
            self.seen.extend(value.flatten().tolist())

        def end(self) -> None: ...

    tokens, streamer = ids(1, 5), Streamer()
    assert generate(ours, tokens, streamer=streamer)[0].tolist() == streamer.seen


def test_scores_and_a_dictionary(theirs: Any, ours: MambaLM, ids: Any) -> None:
    options = {"return_dict_in_generate": True, "output_scores": True}
    got, wanted = (generate(model, ids(2, 4), **options) for model in (ours, theirs))
    assert torch.equal(got.sequences, wanted.sequences) and len(got.scores) == 10  # type: ignore[attr-defined]


def test_the_model_is_left_as_it_was(ours: MambaLM, ids: Any) -> None:
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.train()
    generate(ours, ids(2, 4))
    assert ours.training and all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_what_a_state_cannot_do_is_refused(ours: MambaLM, ids: Any) -> None:
    with pytest.raises(ValueError, match="cache_implementation must be None: a Mamba has a state and no 'static'"):
        generate(ours, ids(1, 4), cache_implementation="static")
