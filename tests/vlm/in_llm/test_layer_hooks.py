"""Methods inside the language model equal the whole sequence whose later layers do not see the dropped tokens."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import salience
from salience.core.transformers_names import cache_of_output, passed_cache
from salience.vlm.methods.compose import then, union
from salience.vlm.methods.divprune import DivPrune
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.pyramiddrop import PyramidDrop
from salience.vlm.methods.sparsevlm import SparseVLM
from salience.vlm.methods.uniform import Uniform

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5

NEVER = [0, 3, 6]  # padding, image, video: what a random model says must be text
GREEDY = {"do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5, "suppress_tokens": NEVER}

METHODS = {
    "fastv": FastV(layer=2),
    "pyramiddrop": PyramidDrop(),
    "sparsevlm": SparseVLM(depths=(0.2, 0.4, 0.8), recycled=0.6, merged=0.5),  # enough to merge among sixteen tokens
    "then": then(DivPrune(), PyramidDrop(), keep=0.75),
}


@pytest.fixture(scope="module")
def fresh(tiny_llava: Callable[..., Any]) -> Callable[[], Any]:
    """`fresh()` -> a model of five layers, so that three stages have layers between them."""

    def make() -> Any:
        model = tiny_llava(side=56, layers=5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 2:  # from the initial .02: attention far from uniform, logits of order one
                    parameter.mul_(2 if "vision_tower" in name else 6)
        return model

    return make


@pytest.fixture(scope="module")
def model(fresh: Callable[[], Any]) -> Any:
    return fresh()


@pytest.fixture(params=METHODS.values(), ids=METHODS)
def method(request: pytest.FixtureRequest) -> Any:
    return request.param


def entered(batch: dict[str, Any], pruned: Any) -> dict[str, Any]:
    """The whole sequence's arguments; what never entered the language model is masked, positions stay."""
    ids, mask = batch["input_ids"], batch["attention_mask"].clone()
    rows, columns = torch.nonzero(ids == 3).T
    stays = torch.cat([torch.zeros(16, dtype=torch.bool).index_fill(0, i.entered, True) for i in pruned.trace.images])
    mask[rows[~stays], columns[~stays]] = 0
    return {**batch, "attention_mask": mask}


def positions(batch: dict[str, Any], *, generating: bool) -> torch.Tensor:
    mask = batch["attention_mask"]
    counted = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
    return counted if generating else torch.arange(mask.shape[1]).expand_as(mask)


@pytest.mark.parametrize(
    "layout", [([1, 2], "left"), ([2, 1, 2], "right"), ([1, 0], "left"), ([1, 1], "left")], ids=str
)
@torch.no_grad()
def test_forward(model: Any, make_batch: Any, in_llm_oracle: Any, method: Any, layout: Any) -> None:
    batch = make_batch(layout[0], side=layout[1], more=[2] * len(layout[0]))
    with salience.prune(model, method, keep=0.25) as pruned:
        out = model(**batch, use_cache=True)
    with in_llm_oracle(model, batch, pruned):
        full = model(**entered(batch, pruned), position_ids=positions(batch, generating=False)).logits
    assert out.logits.shape[1] < full.shape[1]
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        torch.testing.assert_close(out.logits[row, real], full[row, columns[real]], atol=FLOAT32, rtol=0)
    assert all(len(image.kept) == 4 for image in pruned.trace.images)
    lengths = [layer.keys.shape[-2] for layer in cache_of_output(out).layers]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == out.logits.shape[1]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", [{}, {"num_beams": 2, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_generate(
    model: Any, make_batch: Any, in_llm_oracle: Any, method: Any, mode: dict[str, Any], attention: str
) -> None:
    batch = make_batch([1, 2])
    model.set_attn_implementation(attention)
    try:
        with salience.prune(model, method, keep=0.25) as pruned:
            got = model.generate(**batch, **GREEDY, **mode)
        with in_llm_oracle(model, batch, pruned):
            whole = entered(batch, pruned)
            wanted = model.generate(**whole, position_ids=positions(batch, generating=True), **GREEDY, **mode)
    finally:
        model.set_attn_implementation("sdpa")
    assert torch.equal(got, wanted)


@torch.no_grad()
def test_dropping_is_far_more_than_the_tolerance(model: Any, make_batch: Any, method: Any) -> None:
    """Were the model blind to what goes, the comparisons here would hold by themselves."""
    batch = make_batch([1, 2])
    whole = model(**batch).logits[:, -1]
    with salience.prune(model, method, keep=0.25):
        assert (model(**batch).logits[:, -1] - whole).abs().max() > 1000 * FLOAT32


@torch.no_grad()
def test_all_tokens_are_bit_identical(model: Any, make_batch: Any, method: Any) -> None:
    batch, options = make_batch([1, 2]), {**GREEDY, "output_logits": True, "return_dict_in_generate": True}
    wanted, said = model(**batch).logits, model.generate(**batch, **options)
    with salience.prune(model, method, keep=1) as pruned:
        assert torch.equal(model(**batch).logits, wanted)
        got = model.generate(**batch, **options)
    assert torch.equal(got.sequences, said.sequences)
    assert all(torch.equal(a, b) for a, b in zip(got.logits, said.logits, strict=True))
    assert all(len(image.kept) == 16 for image in pruned.trace.images)


def test_sampling_and_counts(model: Any, make_batch: Any, in_llm_oracle: Any) -> None:
    """A mass: each picture finds its own count, so that rows are padded anew."""
    batch, options = make_batch([1, 1, 2], seed=2), {**GREEDY, "do_sample": True, "num_return_sequences": 2}
    torch.manual_seed(4)
    with salience.prune(model, FastV(layer=1), mass=0.5) as pruned:
        got = model.generate(**batch, **options)
    torch.manual_seed(4)
    with in_llm_oracle(model, batch, pruned):
        wanted = model.generate(**batch, **options)
    assert torch.equal(got, wanted)
    assert len({len(image.kept) for image in pruned.trace.images}) > 1


@torch.no_grad()
def test_second_turn(model: Any, make_batch: Any, in_llm_oracle: Any, method: Any) -> None:
    """Several tokens at once behind a pruned cache, by forward and by generate."""
    batch, more = make_batch([1, 2]), torch.tensor([[9, 10, 11]]).expand(2, -1)
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 3, dtype=torch.int64)], dim=1)
    with salience.prune(model, method, keep=0.25) as pruned:
        cache = cache_of_output(model(**batch, use_cache=True))
        again = copy.deepcopy(cache)
        got = model(input_ids=more, attention_mask=mask, **passed_cache(model, cache)).logits
        ids = torch.cat([batch["input_ids"], more], dim=1)
        said = model.generate(input_ids=ids, attention_mask=mask, **passed_cache(model, again), **GREEDY)
    with in_llm_oracle(model, batch, pruned):
        whole = entered(batch, pruned)
        seen = torch.cat([whole["attention_mask"], torch.ones(2, 3, dtype=torch.int64)], dim=1)
        cache = cache_of_output(model(**whole, position_ids=positions(batch, generating=False), use_cache=True))
        wanted = model(input_ids=more, attention_mask=seen, **passed_cache(model, cache)).logits
        assert torch.equal(said[:, : ids.shape[1]], ids)
        cache.crop(-3)
        spoken = model.generate(
            input_ids=ids, attention_mask=seen, **passed_cache(model, cache),
            position_ids=positions({"attention_mask": mask}, generating=True), **GREEDY,
        )  # fmt: skip
    torch.testing.assert_close(got, wanted, atol=FLOAT32, rtol=0)
    assert torch.equal(said, spoken)


@torch.no_grad()
def test_windows(in_llm_oracle: Any, tiny_family: Any) -> None:
    """Layers with a window far shorter than the prompt: distance is the whole prompt's, prefill and later."""
    from transformers import Gemma3TextConfig

    family = tiny_family("gemma3")
    model = family.model()
    for types in (["sliding_attention", "full_attention"], ["full_attention", "sliding_attention"]):
        text: Gemma3TextConfig = model.config.text_config
        text.layer_types, text.sliding_window = types, 12
        language = model.model.language_model
        for layer, kind in zip(language.layers, types, strict=True):
            layer.self_attn.layer_type, layer.self_attn.sliding_window = kind, 12 if "sliding" in kind else None
            layer.self_attn.is_sliding = "sliding" in kind
        batch = family.batch([1, 2])
        with salience.prune(model, FastV(layer=1), keep=0.5) as pruned:
            short = model(**batch).logits
            got = model.generate(**batch, **GREEDY)
        with in_llm_oracle(model, batch, pruned):
            full = model(**batch).logits
            wanted = model.generate(**batch, **GREEDY)
        for row, columns in enumerate(pruned.trace.columns):
            real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
            torch.testing.assert_close(short[row, real], full[row, columns[real]], atol=FLOAT32, rtol=0)
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "paligemma", "llava_next", "aya_vision"])
def test_generate_on_other_families(tiny_family: Any, in_llm_oracle: Any, name: str) -> None:
    family = tiny_family(name)
    model, batch = family.model(), family.batch([1, 2])
    with salience.prune(model, "sparsevlm", keep=0.5) as pruned:
        got = model.generate(**batch, **GREEDY)
    with in_llm_oracle(model, batch, pruned):
        wanted = model.generate(**batch, **GREEDY)
    assert torch.equal(got, wanted)


class TestLeaving:
    def test_nothing_is_left_behind(self, fresh: Any, make_batch: Any, photograph: Any, method: Any) -> None:
        model, batch = fresh(), make_batch([1, 2])
        before = photograph(model)
        with salience.prune(model, method, keep=0.25):
            with torch.no_grad():
                model(**batch)
            model.generate(**batch, max_new_tokens=2)
        assert photograph(model) == before

    @pytest.mark.parametrize("door", ["forward", "generate"])
    def test_after_an_exception(self, fresh: Any, make_batch: Any, photograph: Any, door: str) -> None:
        model, batch, calls = fresh(), make_batch([1]), []

        def fail(*_: Any) -> None:
            calls.append(1)
            if len(calls) == (1 if door == "forward" else 2):  # in the prefill; behind it
                raise RuntimeError("broken on purpose")

        handle = model.model.language_model.layers[3].mlp.register_forward_pre_hook(fail)
        before = photograph(model)
        with pytest.raises(RuntimeError, match="on purpose"), salience.prune(model, FastV(), keep=0.25):
            getattr(model, door)(**batch, **(GREEDY if door == "generate" else {}))
        assert photograph(model) == before
        handle.remove()


class TestRefused:
    """One sentence each, and it says what to do."""

    def check(self, call: Callable[[], Any], match: str) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            call()
        text = str(caught.value)
        assert text.endswith(".")
        assert ". " not in text
        assert "\n" not in text

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"cache_implementation": "static"}, "StaticCache does not hold: use the default cache"),
            ({"use_cache": False}, "leave use_cache on"),
            ({"prefill_chunk_size": 4}, "leave prefill_chunk_size out"),
        ],
        ids=lambda x: "" if isinstance(x, str) else next(iter(x)),
    )
    def test_generate(self, model: Any, make_batch: Any, options: dict[str, Any], match: str) -> None:
        with salience.prune(model, "fastv", keep=0.25):
            self.check(lambda: model.generate(**make_batch([1]), max_new_tokens=2, **options), match)

    def test_labels(self, model: Any, make_batch: Any) -> None:
        batch = make_batch([1])
        with salience.prune(model, "fastv", keep=0.25):
            self.check(lambda: model(**batch, labels=batch["input_ids"]), "take the loss from logits")

    def test_compact_positions(self, model: Any) -> None:
        prune = functools.partial(salience.prune, model, "pyramiddrop", keep=0.5, positions="compact")
        self.check(prune, "positions can't be 'compact'")

    def test_too_few_layers(self, model: Any) -> None:
        self.check(lambda: salience.prune(model, FastV(layer=5), keep=0.5), "the language model has 5: use FastV")

    def test_a_language_model_of_another_kind(self, model: Any) -> None:
        from salience.vlm.in_llm.llm_layers import LLMLayers

        self.check(lambda: LLMLayers(model.model.vision_tower), "in Llama-like layers only")

    def test_mass_in_several_stages(self, model: Any) -> None:
        self.check(lambda: salience.prune(model, "pyramiddrop", mass=0.5), "needs a method with scores")

    def test_union_and_first_of_then(self) -> None:
        self.check(lambda: union(FastV(), Uniform()), "not part of a `union`")
        self.check(lambda: then(FastV(), Uniform(), keep=0.5), "only be the second of `then`")

    def test_cropped_cache(self, model: Any, make_batch: Any) -> None:
        with torch.no_grad(), salience.prune(model, "fastv", keep=0.25):
            cache = cache_of_output(model(**make_batch([1]), use_cache=True))
            cache.crop(-2)
            ids, mask = torch.tensor([[9]]), torch.ones(1, 22, dtype=torch.int64)
            self.check(lambda: model(input_ids=ids, attention_mask=mask, **passed_cache(model, cache)), "was cropped")


@torch.no_grad()
def test_choices_are_those_of_eager_attention(fresh: Any, make_batch: Any) -> None:
    """FastV by the attention of the layer before, PyramidDrop's first stage by that of the next, each picture alone."""
    model, batch = fresh(), make_batch([1, 2])
    model.set_attn_implementation("eager")
    attentions = model(**batch, output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    slots = torch.nonzero(batch["input_ids"] == 3).view(3, 16, 2)
    for method, layer in ((FastV(layer=2), 1), (PyramidDrop(depths=(0.4, 0.8)), 2)):
        with salience.prune(model, method, tokens=4) as pruned:
            model(**batch)
        for image, slot in zip(pruned.trace.images, slots, strict=True):
            row, columns = int(slot[0, 0]), slot[:, 1]
            paid = attentions[layer][row, :, -1, columns].mean(
                0
            )  # padded on the left: the last column is the last token
            kept = image.stages[0].kept
            assert sorted(kept.tolist()) == sorted(paid.topk(len(kept)).indices.tolist())


@torch.no_grad()
def test_trace(model: Any, make_batch: Any) -> None:
    batch = make_batch([1, 2])
    with salience.prune(model, then(Uniform(), PyramidDrop(depths=(0.4, 0.8)), keep=0.5), tokens=2) as pruned:
        model(**batch)
    for image in pruned.trace.images:
        assert image.counts(5) == [8, 8, 4, 4, 2]  # half enters; then each stage halves
        assert image.share(5) == pytest.approx(26 / 80)
        assert set(image.kept.tolist()) < set(image.stages[0].kept.tolist()) < set(image.entered.tolist())
    assert pruned.method.name == "uniform then pyramiddrop"
    with salience.prune(model, "fastv", keep=0.5) as pruned:
        model(**batch)
    image = pruned.trace.images[0]
    assert image.scores.shape == (16,)
    assert set(image.scores.topk(8).indices.tolist()) == set(image.kept.tolist())


def test_two_models_at_once(model: Any, make_batch: Any) -> None:
    """Hooks act on the calls of their own thread and model."""
    other, batch = copy.deepcopy(model), make_batch([1, 2])
    with torch.no_grad():
        whole = other(**batch).logits
        with salience.prune(model, "fastv", keep=0.25):
            short = model(**batch).logits
            assert torch.equal(other(**batch).logits, whole)
            with salience.prune(other, "fastv", keep=0.25):
                assert torch.equal(other(**batch).logits, short)
