"""Pruning whatever a release of transformers calls the cache; a cache that is lost on the way is an error."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import salience
from salience.core.transformers_names import CACHE_NAMES, cache_in, cache_of_output

GREEDY = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": [0, 3]}


@pytest.mark.parametrize("method", ["uniform", "fastv"])
@torch.no_grad()
def test_the_cache_goes_by_any_name(model: Any, make_batch: Any, method: str) -> None:
    batch, new = make_batch([1]), torch.tensor([[7, 8]])
    ids = torch.cat([batch["input_ids"], new], dim=1)
    turns, said = [], []
    with salience.prune(model, method, keep=0.25):
        filled = cache_of_output(model(**batch, use_cache=True))
        for name in CACHE_NAMES:
            turns.append(model(input_ids=new, **{name: copy.deepcopy(filled)}).logits)
            mask = torch.ones_like(ids)
            named = {name: copy.deepcopy(filled)}
            said.append(model.generate(input_ids=ids, attention_mask=mask, **named, **GREEDY))
        whole = model(input_ids=ids, attention_mask=mask, pixel_values=batch["pixel_values"]).logits[:, -2:]
    if method == "uniform":  # the last token's attention, which the others rank by, is another one's in a longer prompt
        torch.testing.assert_close(turns[0], whole, atol=1e-5, rtol=0)  # float32 sums in another order
    assert all(torch.equal(turn, turns[0]) for turn in turns)
    assert all(torch.equal(words, said[0]) for words in said)


@pytest.mark.parametrize("method", ["uniform", "fastv"])
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_a_step_without_its_cache_is_an_error(
    model: Any, make_batch: Any, monkeypatch: pytest.MonkeyPatch, method: str, keep: float
) -> None:
    """As where a release hands it on in a way that nobody here knows: its one token is no prompt."""
    prepare = model.prepare_inputs_for_generation

    def without_cache(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made = prepare(*args, **kwargs)
        lost = cache_in(made)
        return {name: value for name, value in made.items() if value is not lost or lost.get_seq_length() == 0}

    monkeypatch.setattr(model, "prepare_inputs_for_generation", without_cache)
    with (
        salience.prune(model, method, keep=keep),
        pytest.raises(ValueError, match="a decoding step came without the cache of its prompt: transformers 5"),
    ):
        model.generate(**make_batch([1]), **GREEDY)


def test_a_prompt_without_its_pictures_is_an_error(
    model: Any, make_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a prefill in chunks of transformers 5.22, which loses them: placeholders are no words."""
    prepare = model.prepare_inputs_for_generation

    def without_pictures(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made = prepare(*args, **kwargs)
        return {name: value for name, value in made.items() if name != "mm_encoder_outputs"}

    monkeypatch.setattr(model, "prepare_inputs_for_generation", without_pictures)
    with (
        salience.prune(model, "uniform", keep=0.5),
        pytest.raises(ValueError, match=r"a part of the prompt came without its pictures, which transformers 5.* lost"),
    ):
        model.generate(**make_batch([1]), **GREEDY)


def test_a_model_whose_forward_takes_no_pictures_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded pictures under an unknown name would be swallowed, and the prompt read without them."""

    def forward(self: Any, input_ids: Any = None, cache: Any = None, encoder_outputs: Any = None, **kwargs: Any) -> Any:
        raise AssertionError("never called")

    monkeypatch.setattr(type(model), "forward", forward)
    with pytest.raises(ValueError, match=r"the forward of .* must take mm_encoder_outputs"):
        salience.prune(model, "uniform", keep=0.5)


def test_an_untested_release_is_refused_when_pruning(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers, "__version__", "5.99.0")
    monkeypatch.delenv("SALIENCE_UNTESTED_TRANSFORMERS", raising=False)
    with pytest.raises(ValueError, match=r"transformers 5\.99\.0 was not tested with this salience"):
        salience.prune(model, "uniform", keep=0.5)
    monkeypatch.setenv("SALIENCE_UNTESTED_TRANSFORMERS", "1")
    salience.prune(model, "uniform", keep=0.5).undo()
