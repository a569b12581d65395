"""Layers that count columns (windows, chunks, convolutions, recurrences) equal the masked whole sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience
from salience.core.transformers_names import cache_of_output, passed_cache
from salience.vlm.families import adapter_for
from salience.vlm.methods.fastv import FastV

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5

NEVER = [0, 3, 6]  # padding, image, video: a random model might say them, and a call without a cache would read them

# Family -> what its text config gets: windows shorter than a picture with its text, and longer ones than a picture.
WINDOWS = {
    "gemma3": ({"sliding_window": 5}, {"sliding_window": 12}),
    "aya_vision": ({"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},),
    "mistral3": ({"sliding_window": 6},),
    "llama4": ({"attention_chunk_size": 7}, {"attention_chunk_size": 20}),
}
CASES = [(name, setting) for name, settings in WINDOWS.items() for setting in settings]


def built(tiny_family: Any, name: str, setting: dict[str, Any]) -> Any:
    model = tiny_family(name).model()
    for key, value in setting.items():
        setattr(model.config.get_text_config(), key, value)
    return model


def expanded(model: Any, given: dict[str, Any], mode: dict[str, Any]) -> dict[str, Any]:
    """The oracle's arguments for beams: Llama4's own generate does not repeat its pictures for them."""
    if model.config.model_type != "llama4" or "num_beams" not in mode:
        return given
    adapter = adapter_for(model)
    projected = adapter.encode(given.pop("pixel_values")).projected()
    return {**given, "inputs_embeds": adapter.embed(given["input_ids"], projected).detach()}


def masked(model: Any, batch: dict[str, Any], pruned: Any, *, generating: bool) -> dict[str, Any]:
    ids, mask = batch["input_ids"], batch["attention_mask"]
    stays = torch.zeros_like(ids, dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    positions = adapter_for(model).position_ids(batch, mask, generating=generating)
    return {**batch, "attention_mask": mask.masked_fill(~stays, 0), "position_ids": positions}


def compare(model: Any, batch: dict[str, Any]) -> float:
    """The largest difference between pruned and masked logits, of forward; `generate` must agree to the token."""
    with torch.no_grad():
        with salience.prune(model, "random", keep=0.4, seed=1) as pruned:
            short = model(**batch).logits
        full = model(**masked(model, batch, pruned, generating=False)).logits
    worst = 0.0
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        worst = max(worst, float((short[row, real] - full[row, columns[real]]).abs().max()))
    return worst


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("name", "setting"), CASES, ids=str)
def test_windows_of_forward(tiny_family: Any, name: str, setting: dict[str, Any], side: str, attention: str) -> None:
    model = built(tiny_family, name, setting)
    model.set_attn_implementation(attention)
    assert compare(model, tiny_family(name).batch([1, 2], side=side)) <= FLOAT32


MODES = {
    "greedy": {}, "beams": {"num_beams": 2, "num_return_sequences": 2}, "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize(("name", "setting"), CASES, ids=str)
def test_windows_of_generate(tiny_family: Any, name: str, setting: dict[str, Any], mode: dict[str, Any]) -> None:
    """More new tokens than a window is long, so that decoding passes the prompt's gaps."""
    model, batch = built(tiny_family, name, setting), tiny_family(name).batch([1, 2])
    options = {
        **mode, "do_sample": False, "max_new_tokens": 9, "min_new_tokens": 9, "suppress_tokens": NEVER,
        "output_logits": True, "return_dict_in_generate": True,
    }  # fmt: skip
    with salience.prune(model, "random", keep=0.4, seed=1) as pruned:
        got = model.generate(**batch, **options)
    wanted = model.generate(**expanded(model, masked(model, batch, pruned, generating=True), mode), **options)
    assert torch.equal(got.sequences, wanted.sequences)
    for a, b in zip(got.logits, wanted.logits, strict=True):
        torch.testing.assert_close(a, b, atol=FLOAT32, rtol=0)


@pytest.mark.parametrize(("name", "setting"), CASES, ids=str)
def test_a_second_turn_equals_one_long_prompt(tiny_family: Any, name: str, setting: dict[str, Any]) -> None:
    model, batch = built(tiny_family, name, setting), tiny_family(name).batch([1, 2])
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "suppress_tokens": NEVER}
    with salience.prune(model, "uniform", keep=0.4):
        one = model.generate(**batch, **options, return_dict_in_generate=True)
        ids = torch.cat([one.sequences, torch.tensor([[9, 10, 11]]).expand(2, -1)], dim=1)
        longer = {**batch, "input_ids": ids}
        for key in ("attention_mask", "token_type_ids"):
            if key in batch:
                more = torch.full((2, ids.shape[1] - batch[key].shape[1]), int(key == "attention_mask"))
                longer[key] = torch.cat([batch[key], more], dim=1)
        wanted = model.generate(**longer, **options)
        text = {key: longer[key] for key in ("input_ids", "attention_mask")}
        got = model.generate(**text, **passed_cache(model, cache_of_output(one)), **options)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("floor_scale", [4, 9])
def test_queries_scaled_by_column(tiny_family: Any, floor_scale: int) -> None:
    """Llama4 scales the queries of layers without rotary embedding by the log of their column."""
    model, batch = tiny_family("llama4").model(), tiny_family("llama4").batch([1, 2])
    attention = model.language_model.model.layers[1].self_attn
    assert not attention.use_rope
    attention.floor_scale, attention.attn_scale = floor_scale, 1.0  # the default, .1, would hardly show
    assert compare(model, batch) <= FLOAT32
    options = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5, "suppress_tokens": NEVER}
    with salience.prune(model, "random", keep=0.4, seed=1) as pruned:
        got = model.generate(**batch, **options, output_logits=True, return_dict_in_generate=True)
    wanted = model.generate(
        **masked(model, batch, pruned, generating=True), **options, output_logits=True, return_dict_in_generate=True
    )
    for a, b in zip(got.logits, wanted.logits, strict=True):
        torch.testing.assert_close(a, b, atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("types", [["full_attention", "sliding_attention"], ["sliding_attention", "full_attention"]])
def test_windows_of_a_method_inside_the_language_model(tiny_family: Any, types: list[str], in_llm_oracle: Any) -> None:
    model = built(tiny_family, "gemma3", {"sliding_window": 5})
    text = model.config.get_text_config()
    text.layer_types = types
    for layer, kind in zip(model.model.language_model.layers, types, strict=True):
        layer.layer_type = layer.self_attn.layer_type = kind
        layer.self_attn.is_sliding = kind == "sliding_attention"
    batch = tiny_family("gemma3").batch([1, 2])
    with torch.no_grad():
        with salience.prune(model, FastV(layer=1), keep=0.4) as pruned:
            short = model(**batch).logits
        with in_llm_oracle(model, batch, pruned):
            full = model(**batch).logits
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        torch.testing.assert_close(short[row, real], full[row, columns[real]], atol=FLOAT32, rtol=0)


@torch.no_grad()
def test_a_prompt_within_the_window_runs_as_before(tiny_family: Any) -> None:
    """No hook and no mask of ours: the layers are handed what the model makes."""
    model, batch = built(tiny_family, "gemma3", {"sliding_window": 200}), tiny_family("gemma3").batch([1, 2])
    layer, seen = model.model.language_model.layers[0], []
    watched = layer.register_forward_pre_hook(lambda *_: seen.append(len(layer._forward_pre_hooks)))
    for window in (200, 5):
        model.config.get_text_config().sliding_window = window
        with salience.prune(model, "uniform", keep=0.4):
            model(**batch)
    watched.remove()
    assert seen == [1, 2]
    assert not layer._forward_pre_hooks


class TestRefused:
    def test_another_attention_kernel(self, tiny_family: Any) -> None:
        model, batch = built(tiny_family, "mistral3", {"sliding_window": 6}), tiny_family("mistral3").batch([1, 1])
        model.model.language_model.config._attn_implementation_internal = "flash_attention_2"
        with (
            salience.prune(model, "uniform", keep=0.4),
            pytest.raises(ValueError, match="a window of 6 tokens is measured in the whole prompt") as caught,
        ):
            model(**batch)
        one_sentence(caught)

    def test_layers_that_choose_by_place(self, tiny_family: Any) -> None:
        model = tiny_family("llava").model()
        model.config.get_text_config().layer_types = ["compressed_sparse_attention"] * 2
        with pytest.raises(ValueError, match="it has 'compressed_sparse_attention' layers") as caught:
            salience.prune(model, "uniform", keep=0.4)
        one_sentence(caught)

    def test_a_convolution_that_is_not_known(self, tiny_family: Any) -> None:
        model = tiny_family("llava").model()
        model.model.language_model.layers[1].mixer = torch.nn.Conv1d(32, 32, 3)
        with pytest.raises(ValueError, match="Conv1d in its layers combines neighbouring tokens") as caught:
            salience.prune(model, "uniform", keep=0.4)
        one_sentence(caught)

    def test_recurrent_layers_whose_mask_is_out_of_reach(self, tiny_family: Any) -> None:
        model = tiny_family("llava").model()
        model.config.get_text_config().layer_types = ["full_attention", "linear_attention"]
        with pytest.raises(ValueError, match="'linear_attention' layers whose padding cannot be masked") as caught:
            salience.prune(model, "uniform", keep=0.4)
        one_sentence(caught)

    def test_a_recurrence_prefilled_in_pieces(self, tiny_family: Any) -> None:
        model, batch = tiny_family("lfm2_vl").model(), tiny_family("lfm2_vl").batch([1, 1])
        with (
            salience.prune(model, "uniform", keep=0.4),
            pytest.raises(ValueError, match="leave prefill_chunk_size out") as caught,
        ):
            model.generate(**batch, max_new_tokens=2, prefill_chunk_size=8)
        one_sentence(caught)

    def test_a_recurrence_that_checkpointing_runs_again(self, tiny_family: Any) -> None:
        """In the backward pass, when nothing of the call is on the model any more."""
        model, batch = tiny_family("lfm2_vl").model(), tiny_family("lfm2_vl").batch([1, 1])
        model.train()
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        with salience.prune(model, "uniform", keep=0.4):
            with pytest.raises(ValueError, match="gradient checkpointing runs layers once more") as caught:
                model(**batch)
            one_sentence(caught)
            with torch.no_grad():
                model(**batch)


class TestRecurrences:
    """Convolutions and linear attention; `test_families.py` holds them against the masked sequence."""

    @pytest.mark.parametrize("name", ["lfm2_vl", "qwen3_5"])
    @torch.no_grad()
    def test_compact_is_the_sequence_that_never_had_the_tokens(self, tiny_family: Any, name: str) -> None:
        family = tiny_family(name)
        model, batch = family.model(), family.batch([1])
        seen: list[Any] = []
        language: Any = adapter_for(model).language_model
        handle = language.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs), with_kwargs=True)
        with salience.prune(model, "random", keep=0.4, positions="compact", seed=1) as pruned:
            short = model(**batch).logits
        handle.remove()
        assert "recurrences" not in pruned.explain()
        given = {key: seen[0][key] for key in ("inputs_embeds", "position_ids")}
        whole = language(**given, attention_mask=None, use_cache=True).last_hidden_state
        torch.testing.assert_close(adapter_for(model).lm_head(whole), short, atol=FLOAT32, rtol=0)

    @pytest.mark.parametrize("name", ["lfm2_vl", "qwen3_5"])
    def test_explain_says_so(self, tiny_family: Any, name: str) -> None:
        with salience.prune(tiny_family(name).model(), "uniform", keep=0.4) as pruned:
            assert "Its convolutions and recurrences run over the whole length" in pruned.explain()


def test_explain_tells_of_windows(tiny_family: Any) -> None:
    with salience.prune(tiny_family("gemma3").model(), "uniform", keep=0.4) as pruned:
        assert "Windows and chunks of its attention are measured in the whole prompt." in pruned.explain()


def one_sentence(caught: Any) -> None:
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ". " not in text.rstrip(".")
