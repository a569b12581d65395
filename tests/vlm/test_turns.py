"""Going on from a pruned cache equals the masked sequence, or is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.core.transformers_names import cache_of_output, passed_cache

FLOAT32 = 1e-5  # as in test_forward: float32 sums in another order, logits of order one

# a random model might say the padding token, which a caller without a mask could not tell from padding
FIRST = {
    "max_new_tokens": 4, "min_new_tokens": 4, "return_dict_in_generate": True, "do_sample": False,
    "suppress_tokens": [0, 3],
}  # fmt: skip


def first_turn(model: Any, batch: dict[str, Tensor], **options: Any) -> Any:
    return model.generate(**batch, **{**FIRST, **options})


def longer(batch: dict[str, Tensor], sequences: Tensor) -> tuple[Tensor, Tensor]:
    """The whole sequence with three words of a second question, and its mask."""
    times = sequences.shape[0] // batch["attention_mask"].shape[0]
    ids = torch.cat([sequences, torch.tensor([[7, 8, 9]]).expand(sequences.shape[0], -1)], dim=1)
    mask = batch["attention_mask"].repeat_interleave(times, 0)
    return ids, torch.cat([mask, torch.ones(mask.shape[0], ids.shape[1] - mask.shape[1], dtype=mask.dtype)], dim=1)


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("layout", [[1], [1, 2], [2, 1, 1]], ids=str)
@pytest.mark.parametrize("passed", ["everything", "everything, no mask", "only what is new"])
def test_second_generate(
    model: Any, make_batch: Any, oracle: Any, layout: list[int], positions: Any, passed: str
) -> None:
    batch = make_batch(layout)
    with salience.prune(model, "random", keep=0.3, positions=positions, seed=1) as pruned:
        one = first_turn(model, batch)
        ids, mask = longer(batch, one.sequences)
        options: dict[str, Any] = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5}
        if passed == "only what is new":
            new = ids[:, -4:]  # the last word of the first answer is not in the cache yet
            two = model.generate(
                input_ids=new, attention_mask=mask, **passed_cache(model, cache_of_output(one)), **options
            )
            two = torch.cat([ids[:, :-4], two], dim=1)
        else:
            given = {"attention_mask": mask} if passed == "everything" else {}
            two = model.generate(input_ids=ids, **passed_cache(model, cache_of_output(one)), **given, **options)
    reference = oracle(model=model, batch=batch, pruned=pruned, positions=positions)
    full = first_turn_of_oracle(reference)
    assert torch.equal(full.sequences, one.sequences)
    dropped = torch.nn.functional.pad(reference.drop(), (0, ids.shape[1] - reference.drop().shape[1]))
    position_ids = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
    if positions == "compact":
        position_ids = position_ids - dropped.cumsum(1)
    wanted = model.generate(
        input_ids=ids, attention_mask=mask.masked_fill(dropped, 0), position_ids=position_ids,
        **passed_cache(model, cache_of_output(full)), **options,
    )  # fmt: skip
    assert torch.equal(two, wanted)


def first_turn_of_oracle(reference: Any) -> Any:
    return reference.generate(**FIRST)


def test_second_generate_after_returned_sequences(model: Any, make_batch: Any) -> None:
    """Each returned sequence has its own row of the cache; going on from it equals going on from nothing."""
    batch = make_batch([1, 2])
    with salience.prune(model, "cls-attention", tokens=5):
        one = first_turn(model, batch, do_sample=True, num_return_sequences=2)
        ids, mask = longer(batch, one.sequences)
        two = model.generate(
            input_ids=ids,
            attention_mask=mask,
            **passed_cache(model, cache_of_output(one)),
            do_sample=False,
            max_new_tokens=5,
        )
        pictures = batch["pixel_values"][[0, 0, 1, 2, 1, 2]]
        anew = model.generate(
            input_ids=ids, attention_mask=mask, pixel_values=pictures, do_sample=False, max_new_tokens=5
        )
    assert torch.equal(two, anew)


def test_a_copied_cache_and_a_caller_s_own(model: Any, make_batch: Any) -> None:
    from transformers import DynamicCache

    batch, own = make_batch([1]), DynamicCache()
    with salience.prune(model, "cls-attention", tokens=5):
        sequences = model.generate(
            **batch, **passed_cache(model, own), do_sample=False, max_new_tokens=4, min_new_tokens=4
        )
        ids, mask = longer(batch, sequences)
        options = {"input_ids": ids, "attention_mask": mask, "do_sample": False, "max_new_tokens": 5}
        from_copy = model.generate(**passed_cache(model, copy.deepcopy(own)), **options)
        from_own = model.generate(**passed_cache(model, own), **options)
        anew = model.generate(pixel_values=batch["pixel_values"], **options)
    assert torch.equal(from_copy, anew)
    assert torch.equal(from_own, anew)


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_forward_token_by_token(
    model: Any, make_batch: Any, oracle: Any, positions: Any, masked: bool, side: str
) -> None:
    batch = make_batch([1, 2], side=side)
    new = torch.tensor([[7, 8], [9, 10]])
    width = batch["input_ids"].shape[1]
    with torch.no_grad(), salience.prune(model, "random", keep=0.3, positions=positions, seed=1) as pruned:
        cache = cache_of_output(model(**batch, use_cache=True))
        logits = []
        for step in range(2):
            mask = torch.cat([batch["attention_mask"], torch.ones(2, step + 1, dtype=torch.long)], dim=1)
            out = model(
                input_ids=new[:, step : step + 1], **passed_cache(model, cache), attention_mask=mask if masked else None
            )
            logits.append(out.logits[:, 0])
    reference = oracle(model=model, batch=batch, pruned=pruned, positions=positions)
    full = cache_of_output(reference.forward(use_cache=True))
    dropped = reference.drop().sum(1, keepdim=True) if positions == "compact" else torch.zeros(2, 1, dtype=torch.long)
    with torch.no_grad():
        wanted = model(
            input_ids=new, **passed_cache(model, full), position_ids=torch.arange(width, width + 2)[None] - dropped,
            attention_mask=torch.cat([reference.mask(), torch.ones(2, 2, dtype=torch.long)], dim=1),
        ).logits  # fmt: skip
    torch.testing.assert_close(torch.stack(logits, 1), wanted, atol=FLOAT32, rtol=0)


def test_a_cache_filled_without_pruning_is_left_alone(model: Any, make_batch: Any) -> None:
    batch = make_batch([1])
    ids, mask = longer(batch, first_turn(model, batch).sequences)
    options = {"input_ids": ids, "attention_mask": mask, "do_sample": False, "max_new_tokens": 4}
    wanted = model.generate(**passed_cache(model, cache_of_output(first_turn(model, batch))), **options)
    cache = cache_of_output(first_turn(model, batch))
    with salience.prune(model, "cls-attention", tokens=5):
        got = model.generate(**passed_cache(model, cache), **options)
    assert torch.equal(got, wanted)


class TestRefused:
    @pytest.fixture
    def turn(self, model: Any, make_batch: Any) -> Any:
        batch = make_batch([1, 1])
        with salience.prune(model, "cls-attention", tokens=5):
            one = first_turn(model, batch)
            ids, mask = longer(batch, one.sequences)
            yield batch, cache_of_output(one), ids, mask

    @pytest.mark.parametrize("door", ["forward", "generate"])
    def test_new_pictures(self, model: Any, turn: Any, door: str) -> None:
        batch, cache, ids, mask = turn
        with pytest.raises(ValueError, match=r"first turn only: pass no pixel_values"):
            getattr(model, door)(
                input_ids=ids, attention_mask=mask, **passed_cache(model, cache), pixel_values=batch["pixel_values"]
            )

    def test_new_image_tokens(self, model: Any, turn: Any) -> None:
        _, cache, ids, _ = turn
        ids = torch.cat([ids, torch.full((2, 16), 3)], dim=1)
        with pytest.raises(ValueError, match="the new tokens hold image tokens"):
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **passed_cache(model, cache))
        with pytest.raises(ValueError, match="the new tokens hold image tokens"):
            model(input_ids=torch.full((2, 16), 3), **passed_cache(model, cache))

    def test_another_prompt(self, model: Any, turn: Any) -> None:
        _, cache, ids, mask = turn
        ids = ids.clone()
        ids[0, 0] += 1
        with pytest.raises(ValueError, match="must begin with the very prompt"):
            model.generate(input_ids=ids, attention_mask=mask, **passed_cache(model, cache))

    def test_other_rows(self, model: Any, turn: Any) -> None:
        _, cache, ids, mask = turn
        with pytest.raises(ValueError, match="has 2 rows, but input_ids has 1"):
            model.generate(input_ids=ids[:1], attention_mask=mask[:1], **passed_cache(model, cache))

    def test_a_cache_cropped_into_the_prompt(self, model: Any, turn: Any) -> None:
        _, cache, ids, mask = turn
        cache.crop(6 - cache.get_seq_length())
        with pytest.raises(ValueError, match="cropped into its prompt, to 6 of"):
            model.generate(input_ids=ids, attention_mask=mask, **passed_cache(model, cache))
        with pytest.raises(ValueError, match="cropped into its prompt, to 6 of"):
            model(input_ids=ids[:, -1:], **passed_cache(model, cache))

    def test_nothing_new(self, model: Any, turn: Any) -> None:
        _, cache, ids, mask = turn
        with pytest.raises(ValueError, match="takes the whole sequence"):
            model.generate(input_ids=ids[:, :5], attention_mask=mask[:, :5], **passed_cache(model, cache))

    def test_a_mask_of_the_wrong_width(self, model: Any, turn: Any) -> None:
        _, cache, ids, mask = turn
        with pytest.raises(ValueError, match=r"attention_mask must be \d+ wide"):
            model(input_ids=ids[:, -1:], attention_mask=mask[:, :7], **passed_cache(model, cache))

    def test_embeddings(self, model: Any, turn: Any) -> None:
        _, cache, ids, _ = turn
        with pytest.raises(ValueError, match="needs input_ids, not inputs_embeds"):
            model(inputs_embeds=model.get_input_embeddings()(ids[:, -1:]), **passed_cache(model, cache))

    def test_the_cache_of_a_beam_search(self, model: Any, make_batch: Any) -> None:
        batch = make_batch([1])
        with salience.prune(model, "cls-attention", tokens=5):
            one = first_turn(model, batch, num_beams=2)
            ids, mask = longer(batch, one.sequences)
            with pytest.raises(ValueError, match="rows shuffled"):
                model.generate(input_ids=ids, attention_mask=mask, **passed_cache(model, cache_of_output(one)))
