"""Generation of a MambaLM equals transformers' token for token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from salience import MambaLM

from .conftest import near


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
    for name in ("static", "offloaded", "quantized"):
        with pytest.raises(ValueError, match=f"cache_implementation must be None or 'dynamic': .* no '{name}' cache"):
            generate(ours, ids(1, 4), cache_implementation=name)
    with pytest.raises(ValueError, match="output_attentions must be left out"):
        generate(ours, ids(1, 4), output_attentions=True)
    with pytest.raises(ValueError, match="prefill_chunk_size must be left out"):
        generate(ours, ids(1, 4), prefill_chunk_size=2)
    with pytest.raises(ValueError, match="num_beams must be 1 with guidance_scale"):
        generate(ours, ids(1, 4), guidance_scale=1.5, num_beams=2)
    with pytest.raises(ValueError, match="guidance_scale needs negative_prompt_ids"):
        ours.generate(inputs_embeds=torch.randn(1, 4, 20), guidance_scale=1.5, max_new_tokens=3)


OPTIONS: dict[str, dict[str, Any]] = {
    "dynamic": {"cache_implementation": "dynamic"},
    "bad words": {"bad_words_ids": [[5], [7, 8]]}, "suppressed": {"suppress_tokens": [1, 2, 3]},
    "suppressed first": {"begin_suppress_tokens": list(range(9))}, "repetition": {"repetition_penalty": 1.5},
    "n-grams": {"no_repeat_ngram_size": 2}, "n-grams of the prompt": {"encoder_no_repeat_ngram_size": 2},
    "of the prompt": {"encoder_repetition_penalty": 1.5}, "bias": {"sequence_bias": [[[5], 3.0]]},
    "first": {"forced_bos_token_id": 4}, "last": {"forced_eos_token_id": 4},
    "decay": {"exponential_decay_length_penalty": (2, 1.5), "eos_token_id": 3},
    "at least": {"min_length": 14, "eos_token_id": list(range(40))},
    "new at least": {"min_new_tokens": 5, "eos_token_id": list(range(40))},
    "at most": {"max_length": 9, "max_new_tokens": None},
    "short beams": {"num_beams": 3, "length_penalty": 0.3, "early_stopping": True, "eos_token_id": [1, 2, 3, 4, 5]},
    "allowed": {"prefix_allowed_tokens_fn": lambda row, ids: [1, 2, 3]},
    "warm": {"do_sample": True, "temperature": 0.5, "top_k": 5, "top_p": 0.8, "min_p": 0.01},
    "typical": {"do_sample": True, "typical_p": 0.5}, "cut off": {"do_sample": True, "epsilon_cutoff": 0.01},
    "eta": {"do_sample": True, "eta_cutoff": 0.01}, "entropy": {"do_sample": True, "top_h": 0.5},
    "valid": {"remove_invalid_values": True, "renormalize_logits": True},
    "watermark": {"watermarking_config": {"bias": 2.5, "seeding_scheme": "selfhash"}},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_every_other_option_is_followed(theirs: Any, ours: MambaLM, ids: Any, name: str) -> None:
    tokens = ids(2, 6)
    options = {"attention_mask": torch.ones_like(tokens), **OPTIONS[name]}
    assert torch.equal(generate(ours, tokens, **options), generate(theirs, tokens, **options))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("negative", ["none", "ids", "padded"])
def test_guidance(theirs: Any, ours: MambaLM, ids: Any, cached: bool, sampled: bool, negative: str) -> None:
    """As transformers without a cache: with one its Mamba before 5.24 reads the other prompt's last token alone."""
    tokens = ids(2, 6)
    options: dict[str, Any] = {"guidance_scale": 1.7, "do_sample": sampled, "attention_mask": torch.ones_like(tokens)}
    if negative != "none":
        options["negative_prompt_ids"] = tokens.flip(1)[:, :4]
    if negative == "padded":
        options["negative_prompt_attention_mask"] = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    wanted = generate(theirs, tokens, use_cache=False, **options)
    assert not torch.equal(wanted, generate(theirs, tokens, **{**options, "guidance_scale": 1.0}))
    assert torch.equal(generate(ours, tokens, use_cache=cached, **options), wanted)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 2}, {"num_return_sequences": 2,
                                     "do_sample": True}], ids=str)  # fmt: skip
def test_hidden_states(theirs: Any, ours: MambaLM, ids: Any, options: dict[str, Any]) -> None:
    given = {"output_hidden_states": True, "return_dict_in_generate": True, **options}
    got, wanted = (generate(model, ids(2, 4), **given) for model in (ours, theirs))
    assert torch.equal(got.sequences, wanted.sequences)  # type: ignore[attr-defined]
    pairs = list(zip(got.hidden_states, wanted.hidden_states, strict=True))  # type: ignore[attr-defined]
    assert len(pairs) == 10
    for mine, others in pairs:
        for one, other in zip(mine, others, strict=True):
            near(one, other)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"use_cache": False}], ids=str)
@pytest.mark.parametrize("both", [True, False])
def test_a_prompt_of_embeddings(theirs: Any, ours: MambaLM, ids: Any, options: dict[str, Any], both: bool) -> None:
    tokens, mask = ids(2, 6), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    said = []
    for model in (ours, theirs):
        embedded = model.backbone.embeddings(tokens).detach()
        prompt = {"inputs_embeds": embedded, **({"input_ids": tokens} if both else {})}
        torch.manual_seed(0)
        said.append(model.generate(**prompt, attention_mask=mask, max_new_tokens=8, **{"do_sample": False, **options}))
    assert torch.equal(*said)
    if not options:
        own = generate(ours, tokens, attention_mask=mask, max_new_tokens=8)
        assert torch.equal(said[0][:, -8:], own[:, -8:])


@torch.no_grad()
def test_forward_of_embeddings_and_hidden_states(theirs: Any, ours: MambaLM, ids: Any) -> None:
    tokens = ids(2, 6)
    embedded = ours.backbone.embeddings(tokens)
    out = ours(inputs_embeds=embedded, output_hidden_states=True)
    wanted = theirs(tokens, output_hidden_states=True)
    near(out.logits, wanted.logits)
    for one, other in zip(out.hidden_states, wanted.hidden_states, strict=True):
        near(one, other)
    assert torch.equal(embedded, ours.backbone.embeddings(tokens))
    for given, came in (({}, "neither of them"), ({"input_ids": tokens, "inputs_embeds": embedded}, "both")):
        with pytest.raises(ValueError, match=f"either input_ids or inputs_embeds must be given, not {came}"):
            ours(**given)
    with pytest.raises(ValueError, match=r"inputs_embeds must be \(B, L, 20\)"):
        ours(inputs_embeds=torch.randn(2, 6, 21))
