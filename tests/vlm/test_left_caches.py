"""The cache of a pruned call after its pruning: refused where it would be misread, gone on from where it is not."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch

import salience
from salience.core.transformers_names import cache_of_output, passed_cache

FLOAT32 = 1e-5  # float32 sums in another order, logits of order one
GREEDY = {"do_sample": False, "max_new_tokens": 3, "min_new_tokens": 3, "suppress_tokens": [0, 3]}
NEW = torch.tensor([[7, 8, 9]])
REFUSED = r"filled from a pruned prompt and can be continued only while its model is pruned"


@torch.no_grad()
def filled(model: Any, batch: Any, method: Any = "uniform", *, door: str = "forward", **options: Any) -> Any:
    """The cache that a pruned call leaves, the pruning over."""
    options = {"keep": 0.25, **options}
    with salience.prune(model, method, **options):
        if door == "forward":
            return cache_of_output(model(**batch, use_cache=True))
        if door == "tuple":
            return cache_of_output(model(**batch, use_cache=True, return_dict=False))
        return cache_of_output(model.generate(**batch, **GREEDY, return_dict_in_generate=True))


def a_copy(cache: Any) -> Any:
    return copy.deepcopy(cache)


def a_shallow_copy(cache: Any) -> Any:
    return copy.copy(cache)


def pickled(cache: Any) -> Any:
    return pickle.loads(pickle.dumps(cache))


def saved(cache: Any) -> Any:
    file = io.BytesIO()
    torch.save(cache, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def cropped(cache: Any) -> Any:
    cache.crop(-1)
    return cache


def itself(cache: Any) -> Any:
    return cache


@pytest.mark.parametrize("method", ["uniform", "fastv", "pyramiddrop", "sparsevlm"])
@pytest.mark.parametrize("door", ["forward", "generate", "tuple"])
@torch.no_grad()
def test_a_second_turn_after_the_pruning_is_refused(model: Any, make_batch: Any, method: str, door: str) -> None:
    batch = make_batch([1])
    cache = filled(model, batch, method, door=door)
    held = [layer.keys.clone() for layer in cache.layers]
    ids = torch.cat([batch["input_ids"], NEW], dim=1)
    with pytest.raises(ValueError, match=REFUSED):
        model(input_ids=NEW, **passed_cache(model, cache))
    with pytest.raises(ValueError, match=REFUSED):
        model.generate(input_ids=ids, **passed_cache(model, cache), **GREEDY)
    with pytest.raises(ValueError, match=REFUSED):
        model.model.language_model(input_ids=NEW, **passed_cache(model.model.language_model, cache))
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(cache.layers, held, strict=True))  # none is spoilt


@pytest.mark.parametrize("method", ["uniform", "fastv"])
@pytest.mark.parametrize("made", [itself, a_copy, a_shallow_copy, pickled, saved, cropped])
@torch.no_grad()
def test_copies_refuse_and_go_on_as_it_does(model: Any, make_batch: Any, method: str, made: Any) -> None:
    cache = filled(model, make_batch([1]), method)
    with salience.prune(model, method, keep=0.25):
        longer = copy.deepcopy(cache)
        model(input_ids=NEW[:, :1], **passed_cache(model, longer))  # so that there is something to crop
        theirs = made(copy.deepcopy(longer))
        with pytest.raises(ValueError, match=REFUSED):
            theirs.update(torch.zeros(1), torch.zeros(1), 0)
        got = model(input_ids=NEW[:, 1:], **passed_cache(model, theirs)).logits
        same = cache if made is cropped else longer
        wanted = model(input_ids=NEW[:, 1:], **passed_cache(model, same)).logits
    assert torch.equal(got, wanted)
    with pytest.raises(ValueError, match=REFUSED):
        model(input_ids=NEW, **passed_cache(model, theirs))


@pytest.mark.parametrize("before", ["uniform", "fastv", "pyramiddrop"])
@pytest.mark.parametrize("after", ["random", "uniform", "sparsevlm"])
@torch.no_grad()
def test_a_later_pruning_goes_on_whatever_its_method(model: Any, make_batch: Any, before: str, after: str) -> None:
    """A cache knows its missing tokens: the method, ratio and positions of later turns change nothing."""
    batch = make_batch([1, 2])
    new = NEW.expand(2, -1)
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 3, dtype=torch.int64)], dim=1)
    with salience.prune(model, before, keep=0.25):
        cache = cache_of_output(model(**batch, use_cache=True))
        later = copy.deepcopy(cache)
        wanted = model(input_ids=new, attention_mask=mask, **passed_cache(model, cache)).logits
    positions = {} if after == "sparsevlm" else {"positions": "compact"}
    with salience.prune(model, after, keep=0.5, **positions):
        got = model(input_ids=new, attention_mask=mask, **passed_cache(model, later)).logits
    assert torch.equal(got, wanted)


@torch.no_grad()
def test_another_models_cache_is_refused(make_model: Any, make_batch: Any) -> None:
    one, other, batch = make_model(), make_model(), make_batch([1])
    for parameter in other.parameters():
        parameter.add_(0.01)
    cache = filled(one, batch)
    with pytest.raises(ValueError, match=REFUSED):
        other(input_ids=NEW, **passed_cache(other, cache))
    with salience.prune(other, "uniform", keep=0.25):
        for call in (other, other.generate):
            with pytest.raises(ValueError, match="the pruned cache was filled by another model"):
                call(input_ids=NEW, **passed_cache(other, cache))
    twin = copy.deepcopy(one)
    with salience.prune(one, "uniform", keep=0.5):
        wanted = one(input_ids=NEW, **passed_cache(one, copy.deepcopy(cache))).logits
    with salience.prune(twin, "uniform", keep=0.5):  # the same weights
        assert torch.equal(twin(input_ids=NEW, **passed_cache(twin, cache)).logits, wanted)


@pytest.mark.parametrize("method", ["uniform", "fastv"])
@torch.no_grad()
def test_where_nothing_was_dropped_anyone_goes_on(model: Any, make_batch: Any, method: str) -> None:
    batch = make_batch([1])
    cache = filled(model, batch, method, keep=1.0)
    whole = {**batch, "input_ids": torch.cat([batch["input_ids"], NEW], dim=1)}
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    got = model(input_ids=NEW, **passed_cache(model, cache)).logits
    torch.testing.assert_close(got, model(**whole).logits[:, -3:], atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("emptied", ["cropped", "reset"])
@pytest.mark.parametrize("method", ["uniform", "fastv"])
@torch.no_grad()
def test_an_emptied_cache_begins_anew(model: Any, make_batch: Any, method: str, emptied: str) -> None:
    """Of the sequence before nothing is left, neither for the model alone nor for a later pruning."""
    batch, text = make_batch([1]), torch.tensor([[4, 5, 6, 7]])

    def empty() -> Any:
        cache = filled(model, batch, method)
        cache.crop(-cache.get_seq_length()) if emptied == "cropped" and method == "uniform" else cache.reset()
        return cache

    wanted = model(input_ids=text).logits
    cache = empty()
    assert torch.equal(model(input_ids=text, **passed_cache(model, cache)).logits, wanted)
    again = model(input_ids=NEW, **passed_cache(model, cache)).logits
    longer = model(input_ids=torch.cat([text, NEW], dim=1)).logits[:, -3:]
    torch.testing.assert_close(again, longer, atol=FLOAT32, rtol=0)

    cache = empty()
    with salience.prune(model, "random", keep=0.5):
        fresh = cache_of_output(model(**batch, use_cache=True))
        model(**batch, **passed_cache(model, cache))
        wanted, got = (model(input_ids=NEW, **passed_cache(model, each)).logits for each in (fresh, cache))
    assert torch.equal(got, wanted)


@torch.no_grad()
def test_layers_cropped_to_one_length_are_refused(model: Any, make_batch: Any) -> None:
    """Layers of unequal lengths that were cut to one have lost text in some of them alone."""
    with salience.prune(model, "fastv", keep=0.25):
        cache = cache_of_output(model(**make_batch([1]), use_cache=True))
        for _ in range(3):
            model(input_ids=NEW, **passed_cache(model, cache))
        first = cache.layers[0]
        first.keys, first.values = first.keys[..., :-2, :], first.values[..., :-2, :]
        with pytest.raises(ValueError, match=r"was cropped unevenly: layer 1 has \d+ columns, not \d+"):
            model(input_ids=NEW, **passed_cache(model, cache))


@torch.no_grad()
def test_rows_of_a_pruned_cache_stay_in_their_order(model: Any, make_batch: Any) -> None:
    """The notes on a cache are by row: moving its rows would leave each with another one's."""
    cache = filled(model, make_batch([1, 2]))
    for move in (
        lambda: cache.reorder_cache(torch.tensor([1, 0])),
        lambda: cache.batch_select_indices(torch.tensor([1])),
        lambda: cache.batch_repeat_interleave(2),
    ):
        with pytest.raises(ValueError, match=REFUSED):
            move()


@pytest.mark.parametrize("method", ["uniform", "fastv"])
@torch.no_grad()
def test_a_callers_cache_is_noted_though_the_call_fails(model: Any, make_batch: Any, method: str) -> None:
    """A criterion that raises after the prompt leaves the caller's own cache filled."""
    from transformers import DynamicCache, StoppingCriteriaList

    def stop(ids: Any, scores: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    cache = DynamicCache()
    with salience.prune(model, method, keep=0.25), pytest.raises(KeyboardInterrupt):
        model.generate(
            **make_batch([1]), **passed_cache(model, cache), stopping_criteria=StoppingCriteriaList([stop]), **GREEDY
        )
    assert cache.get_seq_length() > 0
    with pytest.raises(ValueError, match=REFUSED):
        model(input_ids=NEW, **passed_cache(model, cache))


@torch.no_grad()
def test_beams_and_returned_sequences_leave_guarded_caches(model: Any, make_batch: Any) -> None:
    for options in ({"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}):
        for method in ("uniform", "fastv"):
            with salience.prune(model, method, keep=0.25):
                out = model.generate(**make_batch([1]), **{**GREEDY, **options}, return_dict_in_generate=True)
            cache = cache_of_output(out)
            with pytest.raises(ValueError, match=REFUSED):
                model(input_ids=NEW.expand(2, -1), **passed_cache(model, cache))


@torch.no_grad()
def test_a_fused_model_refuses_it_too(build_hybrid: Any) -> None:
    """Fused mixers read the cache's layers themselves."""
    from salience.core.cache_guard import guard

    model, ids = build_hybrid()
    with salience.fuse(model):
        cache = cache_of_output(model(input_ids=ids, use_cache=True))
        guard(cache)
        with pytest.raises(ValueError, match=REFUSED):
            model(input_ids=ids[:, :1], **passed_cache(model, cache))
    with pytest.raises(ValueError, match=REFUSED):
        model(input_ids=ids[:, :1], **passed_cache(model, cache))


@pytest.fixture(params=["mamba", "jamba"])
def build_hybrid(request: pytest.FixtureRequest) -> Any:
    import transformers

    sizes = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 2}

    def build() -> Any:
        if request.param == "mamba":
            config = transformers.MambaConfig(**sizes, state_size=4, time_step_rank=2)
        else:
            config = transformers.JambaConfig(
                **sizes, intermediate_size=16, num_attention_heads=2, num_key_value_heads=2, mamba_d_state=4,
                mamba_dt_rank=2, attn_layer_period=2, attn_layer_offset=1, num_experts=1, num_experts_per_tok=1,
            )  # fmt: skip
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        return model, torch.randint(1, 24, (1, 5))

    return build
