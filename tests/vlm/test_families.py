"""Every family (the last five by the fallback) equals its own whole sequence with the dropped tokens masked."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.core.transformers_names import cache_of_output, passed_cache
from salience.vlm.families import adapter_for

FAMILIES = (
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "smolvlm",
    "idefics3", "internvl", "paligemma", "gemma3", "llama4", "ovis2", "lfm2_vl", "kimi_k25", "minicpmv4_6",
    "aya_vision", "mistral3",
)  # fmt: skip

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5

NEVER = [0, 3, 6]  # padding, image, video: a random model might say them, and a call without a cache would read them


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny_family: Any) -> Any:
    return tiny_family(request.param)


@pytest.fixture(scope="module")
def model(family: Any) -> Any:
    return family.model()


@pytest.fixture(scope="module")
def scorer(model: Any) -> Any:
    torch.manual_seed(3)
    return salience.Scorer(adapter_for(model).d_features)


@pytest.fixture(params=["uniform", "random", "saliency"])
def method(request: pytest.FixtureRequest, scorer: Any) -> Any:
    return scorer if request.param == "saliency" else request.param


@pytest.fixture(scope="module", params=["one", "two"])
def batch(request: pytest.FixtureRequest, family: Any) -> dict[str, Any]:
    """Two rows, of one and two pictures or of one each; the shorter is padded on the left."""
    batch: dict[str, Any] = family.batch([1, 2] if request.param == "two" else [1, 1])
    return batch


@functools.cache
def _as_counted(kind: str) -> tuple[int, int]:
    """First positions of forward and generate: PaliGemma's forward begins at 1, its generate adds that itself."""
    return (1, 0) if kind == "paligemma" else (0, 0)


def positions_of(model: Any, batch: Mapping[str, Any], *, generating: bool) -> Tensor:
    """The whole prompt's positions, as the model would count them without ours."""
    mask = batch["attention_mask"]
    counted = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
    if hasattr(model.base_model, "get_rope_index"):
        axes, _ = model.base_model.get_rope_index(
            batch["input_ids"], batch["mm_token_type_ids"], batch["image_grid_thw"], attention_mask=mask
        )
        return torch.cat([counted[None], axes]) if generating else axes
    forward, generate = _as_counted(model.config.model_type)
    return counted + generate if generating else forward + torch.arange(mask.shape[1]).expand_as(mask)


def masked(model: Any, batch: dict[str, Any], pruned: Any, *, generating: bool) -> dict[str, Any]:
    """The oracle's arguments: the whole sequence, what the trace says is gone masked."""
    ids = batch["input_ids"]
    stays = torch.zeros_like(ids, dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    mask = batch["attention_mask"].masked_fill(~stays, 0)
    return {**batch, "attention_mask": mask, "position_ids": positions_of(model, batch, generating=generating)}


def expanded(model: Any, given: dict[str, Any], mode: dict[str, Any]) -> dict[str, Any]:
    """The oracle's arguments where generate runs a prompt several times, for models that mix up its pictures then.

    Unpruned GLM repeats pictures A, B as A, A, B, B and unpruned Llama4 not at all: they are handed in by prompt.
    """
    if not {"num_beams", "num_return_sequences"} & mode.keys():
        return given
    ids, adapter = given["input_ids"], adapter_for(model)
    if adapter.joins_rows:
        pixels = {name: given.pop(name) for name in ("pixel_values", "image_grid_thw")}
        output = model.get_image_features(**pixels, return_dict=True)
        output.pooler_output = list(torch.split(torch.cat(list(output.pooler_output)), (ids == 3).sum(1).tolist()))
        return {**given, "mm_encoder_outputs": {"image": output}}
    if model.config.model_type == "llama4":
        projected = adapter.encode(given.pop("pixel_values")).projected()
        return {**given, "inputs_embeds": adapter.embed(ids, projected).detach()}
    return given


def pairs(pruned: Any, full: Tensor, short: Tensor, mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each row, the oracle's and the pruned logits where text or a kept token stands."""
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (mask[row, columns.clamp_min(0)] == 1)
        yield full[row, columns[real]], short[row, real]


@pytest.mark.parametrize("keep", [0.5, 0.25])
@torch.no_grad()
def test_forward_equals_masked_sequence(model: Any, batch: Any, method: Any, keep: float) -> None:
    with salience.prune(model, method, keep=keep) as pruned:
        short = model(**batch).logits
    full = model(**masked(model, batch, pruned, generating=False)).logits
    assert short.shape[1] < full.shape[1]
    for wanted, got in pairs(pruned, full, short, batch["attention_mask"]):
        torch.testing.assert_close(got, wanted, atol=FLOAT32, rtol=0)
    for image in pruned.trace.images:  # each view its own share, so none starves
        assert image.kept.numel() == max(1, int(keep * image.grid.n + 0.5))


@pytest.mark.parametrize("mode", [{}, {"num_beams": 2, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_generate_equals_masked_sequence(model: Any, batch: Any, mode: dict[str, Any]) -> None:
    options = {**mode, "do_sample": False, "max_new_tokens": 5, "min_new_tokens": 5, "suppress_tokens": NEVER}
    with salience.prune(model, "random", keep=0.25, seed=1) as pruned:
        got = model.generate(**batch, **options)
    wanted = model.generate(**expanded(model, masked(model, batch, pruned, generating=True), mode), **options)
    assert torch.equal(got, wanted)
    prompt = batch["input_ids"].repeat_interleave(got.shape[0] // 2, 0)
    assert torch.equal(got[:, : prompt.shape[1]], prompt)


@pytest.mark.parametrize("positions", ["original", "compact"])
@torch.no_grad()
def test_all_tokens_are_bit_identical(model: Any, batch: Any, positions: Any) -> None:
    options = {
        "do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": NEVER, "output_logits": True,
        "return_dict_in_generate": True,
    }  # fmt: skip
    wanted, said = model(**batch).logits, model.generate(**batch, **options)
    with salience.prune(model, "uniform", keep=1, positions=positions):
        assert torch.equal(model(**batch).logits, wanted)
        got = model.generate(**batch, **options)
    assert torch.equal(got.sequences, said.sequences)
    assert all(torch.equal(a, b) for a, b in zip(got.logits, said.logits, strict=True))


@torch.no_grad()
def test_pruning_and_positions_are_far_more_than_the_tolerance(model: Any, family: Any) -> None:
    """Were the tiny model blind to dropped tokens, or to positions, the comparisons here would hold by themselves."""
    batch, logits = family.batch([1, 2]), {}
    logits["unpruned"] = model(**batch).logits[:, -1]
    for positions in ("original", "compact"):
        with salience.prune(model, "random", keep=0.25, positions=positions, seed=1):  # type: ignore[arg-type]
            logits[positions] = model(**batch).logits[:, -1]
    for a, b in (("unpruned", "original"), ("unpruned", "compact"), ("original", "compact")):
        assert (logits[a] - logits[b]).abs().max() > 100 * FLOAT32


@pytest.mark.parametrize(("layout", "side"), [([1, 2], "right"), ([2, 1, 2], "left"), ([1, 0], "left")], ids=str)
@torch.no_grad()
def test_other_layouts(model: Any, family: Any, layout: list[int], side: str) -> None:
    batch = family.batch(layout, side=side)
    with salience.prune(model, "random", keep=0.5) as pruned:
        short = model(**batch).logits
    full = model(**masked(model, batch, pruned, generating=False)).logits
    for wanted, got in pairs(pruned, full, short, batch["attention_mask"]):
        torch.testing.assert_close(got, wanted, atol=FLOAT32, rtol=0)


def test_leaving(family: Any, photograph: Any) -> None:
    model, batch = family.model(), family.batch([1, 2])
    before = photograph(model)
    with salience.prune(model, "random", keep=0.5):
        with torch.no_grad():
            model(**batch)
        model.generate(**batch, max_new_tokens=2)
    assert photograph(model) == before


@torch.no_grad()
def test_text_alone_passes_through(model: Any, family: Any) -> None:
    """Bit for bit what the model says, also behind a call with pictures."""
    batch = family.batch([1])
    words = {"input_ids": torch.tensor([[9, 10, 11], [12, 13, 14]]), "attention_mask": torch.ones(2, 3).long()}
    options = {"do_sample": False, "max_new_tokens": 3, "min_new_tokens": 3, "suppress_tokens": [0, 3, 6]}
    wanted, ids = model(**words).logits, model.generate(**words, **options)
    with salience.prune(model, "uniform", keep=0.5) as pruned:
        model.generate(**batch, **options)
        trace = pruned.trace
        assert torch.equal(model(**words).logits, wanted)
        assert torch.equal(model.generate(**words, **options), ids)
        assert pruned.trace is trace


@pytest.mark.parametrize("door", ["forward", "generate"])
class TestRefused:
    def test_image_tokens_that_do_not_match(self, model: Any, family: Any, door: str) -> None:
        batch = family.batch([1, 1])
        at = (batch["input_ids"][0] == 3).nonzero()[-1]
        batch["input_ids"][0, at] = 9
        with salience.prune(model, "uniform", keep=0.5), pytest.raises(ValueError, match="the prompt must hold") as e:
            getattr(model, door)(**batch)
        one_sentence(e)

    def test_video(self, model: Any, family: Any, door: str) -> None:
        if "video" in adapter_for(model).token_ids:
            pytest.skip("tests/vlm/test_video.py")
        batch = {**family.batch([1]), "pixel_values_videos": torch.zeros(1, 2, 3, 28, 28)}
        with salience.prune(model, "uniform", keep=0.5), pytest.raises(ValueError, match="pixel_values_videos") as e:
            getattr(model, door)(**batch)
        one_sentence(e)


def test_cls_attention_where_none_can_be_read(model: Any) -> None:
    if adapter_for(model).tower_attention is not None:
        pytest.skip("this one has it, or a substitute")
    with pytest.raises(ValueError, match="use 'uniform', 'random' or a scorer") as caught:
        salience.prune(model, "cls-attention", keep=0.5)
    one_sentence(caught)


def one_sentence(caught: Any) -> None:
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ". " not in text.rstrip(".")


MODES = {
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_generate_in_other_modes(model: Any, family: Any, scorer: Any, mode: dict[str, Any]) -> None:
    """With a budget that gives every view its own count, so that nothing has one size."""
    batch, counted = family.batch([1, 2]), []
    options = {"do_sample": False, **mode, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": NEVER}
    with salience.prune(model, scorer, mass=0.6) as pruned:
        torch.manual_seed(7)
        got = model.generate(**batch, **options)
        counted = [image.kept.numel() for image in pruned.trace.images]
    assert len(set(counted)) > 1
    torch.manual_seed(7)
    wanted = model.generate(**expanded(model, masked(model, batch, pruned, generating=True), mode), **options)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("positions", ["original", "compact"])
@torch.no_grad()
def test_second_turn_equals_one_long_prompt(model: Any, family: Any, positions: Any) -> None:
    """Going on from a pruned cache, by generate and by forward, equals pruning the longer prompt at once."""
    batch = family.batch([1, 2])
    options = {"do_sample": False, "max_new_tokens": 3, "min_new_tokens": 3, "suppress_tokens": NEVER}
    with salience.prune(model, "uniform", keep=0.5, positions=positions):
        one = model.generate(**batch, **options, return_dict_in_generate=True)
        ids = torch.cat([one.sequences, torch.tensor([[9, 10, 11]]).expand(2, -1)], dim=1)
        longer = {**batch, "input_ids": ids}
        for name, value in batch.items():
            if name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
                more = torch.full((2, ids.shape[1] - value.shape[1]), int(name == "attention_mask"))
                longer[name] = torch.cat([value, more], dim=1)
        if model.config.model_type == "paligemma":  # what is generated is its suffix, which attends backwards only
            longer["token_type_ids"][:, batch["input_ids"].shape[1] :] = 1
        wanted = model.generate(**longer, **options)
        text = {k: v for k, v in longer.items() if k in ("input_ids", "attention_mask")}
        got = model.generate(**text, **passed_cache(model, cache_of_output(one)), **options)
        assert torch.equal(got, wanted)

        whole = model(**longer).logits[:, -2:]
        start = cache_of_output(model(**batch, use_cache=True))
        new = ids[:, batch["input_ids"].shape[1] :]
        types = {k: v[:, -new.shape[1] :] for k, v in longer.items() if k in ("token_type_ids", "mm_token_type_ids")}
        turn = model(input_ids=new, attention_mask=longer["attention_mask"], **passed_cache(model, start), **types)
    torch.testing.assert_close(turn.logits[:, -2:], whole, atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_bfloat16(family: Any, attention: str) -> None:
    """All tokens bit for bit; fewer within a dozen roundings of the masked whole sequence."""
    model, batch = family.model(torch.bfloat16), family.batch([1, 2])
    model.set_attn_implementation(attention)
    batch = {k: v.bfloat16() if v.is_floating_point() else v for k, v in batch.items()}
    wanted = model(**batch).logits
    with salience.prune(model, "uniform", keep=1):
        assert torch.equal(model(**batch).logits, wanted)
    with salience.prune(model, "uniform", keep=0.5) as pruned:
        short = model(**batch).logits.float()
    full = model(**masked(model, batch, pruned, generating=False)).logits.float()
    for wanted, got in pairs(pruned, full, short, batch["attention_mask"]):
        # 8 bits: a rounding moves a number by up to 2**-9 of itself, and a dozen of them follow one another
        assert (got - wanted).abs().max() <= 12 * 2**-9 * wanted.abs().max()


def test_a_training_step_has_the_masked_ones_gradient(family: Any) -> None:
    """Labels go along; the word behind a picture is left out, the token that predicts it may be gone."""
    batch = family.batch([1, 2])
    ids = batch["input_ids"]
    behind = torch.nn.functional.pad(ids == 3, (1, 0))[:, :-1]
    labels = ids.masked_fill((batch["attention_mask"] == 0) | (ids == 3) | behind, -100)
    gradients = []
    for way in ("pruned", "masked"):
        model = family.model()
        if way == "pruned":
            with salience.prune(model, "uniform", keep=0.5) as pruned:
                loss = model(**batch, labels=labels).loss
        else:
            loss = model(**masked(model, batch, pruned, generating=False), labels=labels).loss
        loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None and "vis" not in n})
    assert gradients[0].keys() == gradients[1].keys()
    for name, got in gradients[0].items():
        # float32 sums of other lengths, through two layers and back: relative to the largest entry
        assert (got - gradients[1][name]).abs().max() <= 1e-4 * gradients[1][name].abs().max().clamp_min(1e-3), name
