"""generate under pruning equals generate on the whole sequence with the dropped tokens masked, in every mode."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.core.transformers_names import cache_of_output

MODES = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 1.5, "top_k": 0},
    "beams": {"num_beams": 3, "do_sample": False},
    "beam sampling": {"num_beams": 2, "do_sample": True},
    "returned sequences": {"do_sample": True, "num_return_sequences": 3},
    "returned beams": {"num_beams": 4, "num_return_sequences": 2, "do_sample": False},
    "no cache": {"do_sample": False, "use_cache": False},
    "static cache": {"do_sample": False, "cache_implementation": "static"},
    "chunked prefill": {"do_sample": False, "prefill_chunk_size": 7},
    "repetition penalty": {"do_sample": False, "repetition_penalty": 1.3},
    "guidance": {"do_sample": False, "guidance_scale": 1.5},  # whose processor calls the model on a text of its own
}


def seeded(generate: Any, **options: Any) -> Any:
    torch.manual_seed(11)
    # a random model might say the image token, which without a cache would ask for one more picture
    return generate(max_new_tokens=6, min_new_tokens=4, suppress_tokens=[3], **options)


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("layout", [[1], [1, 1], [1, 2]], ids=str)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_equals_masked_sequence(
    model: Any, make_batch: Any, oracle: Any, mode: dict[str, Any], layout: list[int], positions: Any
) -> None:
    batch = make_batch(layout)
    with salience.prune(model, "random", keep=0.3, positions=positions, seed=1) as pruned:
        got = seeded(model.generate, **batch, **mode)
    wanted = seeded(oracle(model=model, batch=batch, pruned=pruned, positions=positions).generate, **mode)
    assert torch.equal(got, wanted)
    times = got.shape[0] // len(layout)
    prompt = batch["input_ids"].repeat_interleave(times, 0)
    assert torch.equal(got[:, : prompt.shape[1]], prompt)  # whole, so that callers can slice it off
    assert got.shape[1] > prompt.shape[1]


@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_equals_masked_sequence_in_bfloat16(make_model: Any, make_batch: Any, oracle: Any, mode: str) -> None:
    """The scores, not the tokens: 8 bits turn a near tie either way."""
    model, batch = make_model(torch.bfloat16), make_batch([1, 2])
    options = {**MODES[mode], "return_dict_in_generate": True, "output_logits": True}
    with salience.prune(model, "cls-attention", keep=0.3) as pruned:
        got = seeded(model.generate, **batch, **options)
    wanted = seeded(oracle(model=model, batch=batch, pruned=pruned, positions="original").generate, **options)
    a, b = got.logits[0].float(), wanted.logits[0].float()
    assert (a - b).abs().max() <= 12 * 2**-9 * b.abs().max()  # a dozen roundings of 2**-9 each
    assert torch.equal(
        got.sequences[:, : batch["input_ids"].shape[1]], wanted.sequences[:, : batch["input_ids"].shape[1]]
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_longest_row_becomes_the_shortest(model: Any, make_batch: Any, oracle: Any, side: str) -> None:
    """New padding must not come between a row's last word and what is generated, wherever the old padding is."""
    batch = make_batch([2, 1, 1], side=side, more=[6, 20, 0])
    assert batch["attention_mask"][0].all()
    with salience.prune(model, "random", keep=0.3, seed=4) as pruned:
        got = model.generate(**batch, do_sample=False, max_new_tokens=5)
    wanted = oracle(model=model, batch=batch, pruned=pruned, positions="original").generate(
        do_sample=False, max_new_tokens=5
    )
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("budget", [{"keep": 1.0}, {"tokens": 16}, {"mass": 1}], ids=str)
@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_all_tokens_give_the_same_tokens(
    model: Any, make_batch: Any, mode: dict[str, Any], positions: Any, budget: dict[str, Any]
) -> None:
    batch = make_batch([1, 2])
    options = {**mode, "return_dict_in_generate": True, "output_logits": True}
    wanted = seeded(model.generate, **batch, **options)
    with salience.prune(model, "cls-attention", positions=positions, **budget) as pruned:
        got = seeded(model.generate, **batch, **options)
    assert torch.equal(got.sequences, wanted.sequences)
    assert all(torch.equal(a, b) for a, b in zip(got.logits, wanted.logits, strict=True))
    assert [image.kept.numel() for image in pruned.trace.images] == [16, 16, 16]


def test_cache_is_as_short_as_the_prompt(model: Any, make_batch: Any) -> None:
    batch = make_batch([1, 2])
    with salience.prune(model, "cls-attention", tokens=4) as pruned:
        out = model.generate(**batch, max_new_tokens=3, min_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    assert cache_of_output(out).get_seq_length() == pruned.trace.columns[0].shape[0] + 2
    assert out.sequences.shape[1] == batch["input_ids"].shape[1] + 3


class Listener:
    """A streamer that remembers."""

    def __init__(self) -> None:
        self.heard: list[Tensor] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        self.heard.append(value)

    def end(self) -> None:
        self.ended = True


@pytest.mark.parametrize("keep", [0.3, 1])
def test_streaming(model: Any, make_batch: Any, keep: float) -> None:
    batch, listener = make_batch([1]), Listener()
    with salience.prune(model, "cls-attention", keep=keep):
        out = model.generate(**batch, streamer=listener, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert torch.equal(listener.heard[0], batch["input_ids"])
    assert torch.cat([part.reshape(-1) for part in listener.heard]).tolist() == out[0].tolist()
    assert listener.ended


@pytest.mark.parametrize("where", ["argument", "config", "model"])
def test_lengths_count_the_whole_prompt(make_model: Any, make_batch: Any, where: str) -> None:
    from transformers import GenerationConfig

    model, batch = make_model(), make_batch([1, 2])
    prompt = batch["input_ids"].shape[1]
    lengths = {"max_length": prompt + 5, "min_length": prompt + 5}  # so exactly five, whatever the model says
    options: dict[str, Any] = {}
    if where == "argument":
        options = dict(lengths)
    elif where == "config":
        options = {"generation_config": GenerationConfig(**lengths, pad_token_id=0, eos_token_id=1)}
    else:
        model.generation_config.update(**lengths)
    before = model.generation_config.to_dict()
    with salience.prune(model, "cls-attention", tokens=4):
        out = model.generate(**batch, do_sample=False, **options)
    assert out.shape[1] == prompt + 5
    assert model.generation_config.to_dict() == before
    if where == "config":
        assert options["generation_config"].max_length == prompt + 5


def test_callers_criteria_and_processors_see_the_whole_prompt(model: Any, make_batch: Any) -> None:
    from transformers import LogitsProcessorList, MaxLengthCriteria, StoppingCriteriaList

    batch = make_batch([1, 2])
    prompt = batch["input_ids"]
    seen: list[Tensor] = []

    def stop(input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        seen.append(input_ids)
        return torch.full((input_ids.shape[0],), input_ids.shape[1] >= prompt.shape[1] + 3)

    def process(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(input_ids)
        return scores

    def allowed(row: int, input_ids: Tensor) -> list[int]:
        seen.append(input_ids[None])
        return list(range(10, 20))

    with salience.prune(model, "cls-attention", tokens=4):
        out = model.generate(
            **batch, do_sample=False, max_new_tokens=9, min_new_tokens=9,
            stopping_criteria=StoppingCriteriaList([stop]), logits_processor=LogitsProcessorList([process]),
            prefix_allowed_tokens_fn=allowed,
        )  # fmt: skip
        own = StoppingCriteriaList([MaxLengthCriteria(max_length=prompt.shape[1] + 2)])
        bounded = model.generate(**batch, do_sample=False, max_new_tokens=9, min_new_tokens=2, stopping_criteria=own)
    assert out.shape[1] == prompt.shape[1] + 3
    assert bounded.shape[1] == prompt.shape[1] + 2
    for ids in seen:
        whole = prompt if ids.shape[0] == 2 else prompt[int(torch.equal(ids[0, :4], prompt[1, :4]))][None]
        assert torch.equal(ids[:, : prompt.shape[1]], whole)


def test_mask_is_inferred_from_padding_as_generate_does(model: Any, make_batch: Any) -> None:
    batch = make_batch([1, 2])
    with salience.prune(model, "cls-attention", tokens=4):
        wanted = model.generate(**batch, do_sample=False, max_new_tokens=4)
        got = model.generate(batch["input_ids"], pixel_values=batch["pixel_values"], do_sample=False, max_new_tokens=4)
    assert torch.equal(got, wanted)


def test_same_seed_same_tokens(model: Any, make_batch: Any) -> None:
    batch = make_batch([1, 1])
    kept = []
    for seed in (5, 5, 6):
        with salience.prune(model, "random", tokens=4, seed=seed) as pruned:
            model.generate(**batch, max_new_tokens=1)
        kept.append([image.kept.tolist() for image in pruned.trace.images])
    assert kept[0] == kept[1] != kept[2]
    assert kept[0][0] != kept[0][1]  # another picture, another draw


def test_assistant_model(model: Any, make_model: Any, make_batch: Any, oracle: Any) -> None:
    """Speculative decoding with the model as its own assistant: the same tokens as plain greedy decoding."""
    batch = make_batch([1])
    with salience.prune(model, "random", keep=0.3, seed=1):
        wanted = model.generate(**batch, do_sample=False, max_new_tokens=6, min_new_tokens=6)
        got = model.generate(**batch, do_sample=False, max_new_tokens=6, min_new_tokens=6, assistant_model=make_model())
    assert torch.equal(got, wanted)


def test_custom_generate_returns_what_it_likes(make_model: Any, make_batch: Any) -> None:
    """Ids that go on from the prompt get the whole one back, wherever they are; the rest is nobody's business."""
    model, batch = make_model(), make_batch([1, 2])

    def greedy(model: Any, input_ids: Any, **options: Any) -> Any:
        more = torch.full((len(input_ids), 2), 7)
        ids = torch.cat([input_ids, more], dim=1)
        return {"tuple": (ids, "said", torch.ones(2, 1), [ids, None]), "ids": ids, "more": more, "none": None}[kind]

    wanted = torch.cat([batch["input_ids"], torch.full((2, 2), 7)], dim=1)
    with salience.prune(model, "uniform", keep=0.5):
        for kind in ("tuple", "ids", "more", "none"):
            got = model.generate(**batch, custom_generate=greedy, max_new_tokens=2)
            if kind == "tuple":
                assert torch.equal(got[0], wanted)
                assert got[1] == "said"
                assert torch.equal(got[2], torch.ones(2, 1))
                assert torch.equal(got[3][0], wanted)
            elif kind == "none":
                assert got is None
            else:
                assert torch.equal(got, wanted if kind == "ids" else torch.full((2, 2), 7))


def test_a_processor_that_calls_the_model_is_told_to_take_a_copy(model: Any, make_batch: Any) -> None:
    """Its call is none of generate's own steps; a copy has the same weights and is not pruned."""
    from transformers import LogitsProcessor, LogitsProcessorList

    words = torch.tensor([[9, 10]])
    seen: list[Tensor] = []

    class Calls(LogitsProcessor):  # type: ignore[misc]
        def __init__(self, called: Any) -> None:
            self.called = called

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            seen.append(self.called(input_ids=words).logits)
            return scores

    with torch.no_grad():
        wanted = model(input_ids=words).logits
    batch = make_batch([1])
    with salience.prune(model, "uniform", keep=0.3):
        alone = seeded(model.generate, **batch, do_sample=False)
        with pytest.raises(ValueError, match=r"give it copy\.copy\(model\), which has the same weights"):
            seeded(model.generate, **batch, do_sample=False, logits_processor=LogitsProcessorList([Calls(model)]))
        processors = LogitsProcessorList([Calls(copy.copy(model))])
        assert torch.equal(seeded(model.generate, **batch, do_sample=False, logits_processor=processors), alone)
    assert seen
    assert all(torch.equal(each, wanted) for each in seen)
