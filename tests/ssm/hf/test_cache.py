"""A fused model with transformers' own cache: steps, chunks, mixed use, and what the cache then holds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.core.transformers_names import passed_cache


def mamba_layers(cache: Any) -> list[Any]:
    return [layer for layer in cache.layers if getattr(layer, "recurrent_states", None) is not None]


def chunked(run: Any, model: Any, tokens: Tensor, cache: Any, lengths: list[int], **options: Any) -> Tensor:
    return torch.cat([run(model, part, cache, **options) for part in tokens.split(lengths, dim=1)], dim=1)


@torch.no_grad()
def test_the_cache_holds_what_transformers_holds(
    model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any
) -> None:
    for length in (1, 3, 4, 9):
        tokens, ours, theirs = ids(2, length), new_cache(model), new_cache(model)
        for more in (ids(2, 1), ids(2, 1) + 1):
            near(logits(fused, tokens, ours), logits(model, tokens, theirs))
            for mine, other in zip(mamba_layers(ours), mamba_layers(theirs), strict=True):
                near(mine.conv_states[0], other.conv_states[0])
                near(mine.recurrent_states[0], other.recurrent_states[0])
            tokens = more


@torch.no_grad()
def test_steps_are_in_place(fused: Any, ids: Any, logits: Any, new_cache: Any) -> None:
    cache = new_cache(fused)
    logits(fused, ids(2, 5), cache)
    kept = [(layer.conv_states[0], layer.recurrent_states[0]) for layer in mamba_layers(cache)]
    values = [state.clone() for _, state in kept]
    logits(fused, ids(2, 1), cache)
    for layer, (conv, state), before in zip(mamba_layers(cache), kept, values, strict=True):
        assert layer.conv_states[0] is conv and layer.recurrent_states[0] is state
        assert not torch.equal(state, before)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[6, 6], [1] * 12, [2, 1, 1, 3, 5], [1, 11], [9, 1, 2], [3, 3, 3, 3]])
def test_chunks_equal_the_whole(
    model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any, lengths: list[int]
) -> None:
    tokens = ids(2, 12)
    near(chunked(logits, fused, tokens, new_cache(fused), lengths), logits(model, tokens))


@torch.no_grad()
def test_transformers_restarts_where_we_continue(model: Any, ids: Any, logits: Any, new_cache: Any) -> None:
    tokens = ids(2, 12)
    theirs = chunked(logits, model, tokens, new_cache(model), [6, 6])
    assert float((theirs - logits(model, tokens)).abs().max()) > 1e-3  # when this fails, transformers has mended it


@torch.no_grad()
def test_mixed_use_of_one_cache(model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any) -> None:
    tokens = ids(2, 10)
    wanted = logits(model, tokens)
    for order in ([model, fused, model, fused, fused], [fused, model, fused, model, model]):
        cache, parts = new_cache(model), tokens.split([6, 1, 1, 1, 1], dim=1)
        got = [logits(each, part, cache) for each, part in zip(order, parts, strict=True)]
        near(torch.cat(got, dim=1), wanted)


@torch.no_grad()
def test_a_cache_that_was_reset_starts_anew(
    model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any
) -> None:
    cache, tokens = new_cache(model), ids(2, 7)
    for more in (ids(2, 5), ids(2, 1)):
        logits(fused, more, cache)
    cache.reset()
    near(chunked(logits, fused, tokens, cache, [5, 1, 1]), logits(model, tokens))


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", ["mamba", "falcon_mamba"], indirect=True
)  # attention sees positions, which padding moves
@pytest.mark.parametrize("side", ["left", "right", "inner"])
@pytest.mark.parametrize("lengths", [[12], [5, 7], [3, 3, 3, 3], [2, 10], [1] * 12])
def test_padded_chunks_and_then_steps_equal_the_rows_alone(
    model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any, side: str, lengths: list[int]
) -> None:
    tokens, mask = ids(3, 12), torch.ones(3, 12, dtype=torch.long)
    gaps = {
        "left": [slice(0, 5), slice(0, 10)],
        "right": [slice(5, 12), slice(2, 12)],
        "inner": [slice(4, 9), [0, 6, 11]],
    }
    for row, gap in enumerate(gaps[side]):
        mask[row, gap] = 0
    tokens[mask == 0] = 0
    cache, after = new_cache(model), ids(3, 4)
    got, start = [], 0
    for length in lengths:
        part = slice(start, start + length)
        got.append(logits(fused, tokens[:, part], cache, attention_mask=mask[:, part]))
        start += length
    got.extend(logits(fused, after[:, i : i + 1], cache) for i in range(3))
    got.append(logits(fused, after[:, 3:], cache, attention_mask=torch.cat([mask, torch.ones_like(after)], dim=1)))
    together, there = torch.cat(got, dim=1), torch.cat([mask, torch.ones_like(after)], dim=1).bool()
    for row in range(3):
        whole = torch.cat([tokens[row], after[row]])[there[row]]
        near(together[row, there[row]][None], logits(model, whole[None]))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["jamba", "zamba"], indirect=True)
def test_left_padded_prefill_and_steps(
    model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any
) -> None:
    tokens, mask = ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    ours, theirs = new_cache(model), new_cache(model)
    for part in (slice(0, 6), slice(6, 7), slice(7, 8), slice(8, 9)):
        options = {"attention_mask": mask[:, : part.stop], "position_ids": (mask.cumsum(1) - 1).clamp_min(0)[:, part]}
        near(logits(fused, tokens[:, part], ours, **options), logits(model, tokens[:, part], theirs, **options))


@torch.no_grad()
def test_reordering_for_beams(model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any) -> None:
    tokens, beams = ids(3, 6), torch.tensor([2, 0, 0])
    ours, theirs = new_cache(model), new_cache(model)
    for cache, each in ((ours, fused), (theirs, model)):
        logits(each, tokens, cache)
        cache.reorder_cache(beams)
    for more in (ids(3, 1), ids(3, 1) + 2):
        near(logits(fused, more, ours), logits(model, more, theirs))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba"], indirect=True)
def test_a_cache_that_records_its_past(
    model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any
) -> None:
    tokens, cache = ids(2, 12), new_cache(model)
    first = logits(fused, tokens[:, :5], cache)
    cache.activate_past_recording()
    rest = chunked(logits, fused, tokens[:, 5:], cache, [1, 1, 3, 2])
    near(torch.cat([first, rest], dim=1), logits(model, tokens))
    assert all(layer.conv_states[0].shape[-1] == 4 + 7 for layer in mamba_layers(cache))  # as transformers keeps them


@torch.no_grad()
def test_states_in_half_precision(model: Any, ids: Any, logits: Any, near: Any, new_cache: Any) -> None:
    half = copy.deepcopy(model).bfloat16()
    tokens = ids(2, 9)
    with salience.fuse(half):
        cache = new_cache(half)
        got = chunked(logits, half, tokens, cache, [6, 1, 1, 1]).float()
        assert all(layer.recurrent_states[0].dtype == torch.float32 for layer in mamba_layers(cache))
        # bfloat16 has 8 bits, and layers of it stand between the state and the logits
        near(got, logits(half, tokens).float(), 0.05)


def test_steps_that_need_gradients(model: Any, fused: Any, ids: Any, logits: Any, near: Any, new_cache: Any) -> None:
    tokens = ids(2, 8)
    wanted = logits(model, tokens)
    wanted.square().sum().backward()
    near(got := chunked(logits, fused, tokens, new_cache(model), [3, 1, 1, 3]), wanted)
    got.square().sum().backward()  # through the cache, which transformers cannot
    for (name, mine), theirs in zip(fused.named_parameters(), model.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None, name
        near(mine.grad, theirs.grad, 1e-4)  # sums of many products of either sign


@torch.no_grad()
def test_an_attention_layer_of_the_cache_is_a_sentence(build: Any, ids: Any) -> None:
    from transformers import DynamicCache

    model = build("jamba")
    cache = DynamicCache(config=model.config)
    cache.layers[0] = cache.layers[1]
    with salience.fuse(model), pytest.raises(ValueError, match="cache has a DynamicLayer at layer 0"):
        model(input_ids=ids(1, 3), **passed_cache(model, cache))


@torch.no_grad()
def test_a_mask_shorter_than_the_tokens(build: Any, ids: Any, logits: Any, new_cache: Any) -> None:
    model = build("mamba")
    cache = new_cache(model)
    said = r"attention_mask must be \(2, 3\) or longer by the tokens that the cache holds, not \(2, 2\)"
    with salience.fuse(model):
        logits(model, ids(2, 5), cache)
        with pytest.raises(ValueError, match=said):
            logits(model, ids(2, 3), cache, attention_mask=torch.ones(2, 2))
