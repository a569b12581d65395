"""forward under pruning equals the whole sequence with the dropped tokens masked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience

LAYOUTS = {"one": [1], "equal": [1, 1], "unequal": [1, 2], "three": [2, 1, 2], "no picture in a row": [1, 0]}

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5


def kept_logits(pruned: Any, full: torch.Tensor, short: torch.Tensor, mask: torch.Tensor) -> Any:
    """Pairs (oracle's, pruned) of each row's logits at the columns that hold text or a kept token."""
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (mask[row, columns.clamp_min(0)] == 1)
        yield full[row, columns[real]], short[row, real]


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_equals_masked_sequence(
    model: Any, make_batch: Any, oracle: Any, layout: list[int], side: str, positions: Any
) -> None:
    batch = make_batch(layout, side=side)
    with torch.no_grad(), salience.prune(model, "random", keep=0.3, positions=positions, seed=1) as pruned:
        short = model(**batch).logits
    full = oracle(model=model, batch=batch, pruned=pruned, positions=positions).forward().logits
    for wanted, got in kept_logits(pruned, full, short, batch["attention_mask"]):
        torch.testing.assert_close(got, wanted, atol=FLOAT32, rtol=0)
    assert short.shape[1] == pruned.trace.columns[0].shape[0] < batch["input_ids"].shape[1]


@pytest.mark.parametrize("positions", ["original", "compact"])
def test_equals_masked_sequence_in_bfloat16(make_model: Any, make_batch: Any, oracle: Any, positions: Any) -> None:
    model, batch = make_model(torch.bfloat16), make_batch([1, 2])
    with torch.no_grad(), salience.prune(model, "cls-attention", keep=0.3, positions=positions) as pruned:
        short = model(**batch).logits.float()
    full = oracle(model=model, batch=batch, pruned=pruned, positions=positions).forward().logits.float()
    for wanted, got in kept_logits(pruned, full, short, batch["attention_mask"]):
        # 8 bits: a rounding moves a number by up to 2**-9 of itself, and a dozen of them follow one another
        assert (got - wanted).abs().max() <= 12 * 2**-9 * wanted.abs().max()


def test_pruning_is_far_more_than_the_tolerance(model: Any, make_batch: Any) -> None:
    """Were the tiny model blind to dropped tokens, or to positions, every comparison here would hold by itself."""
    batch = make_batch([1, 2])
    logits = {}
    with torch.no_grad():
        logits["unpruned"] = model(**batch).logits[:, -1]
        for positions in ("original", "compact"):
            with salience.prune(model, "random", keep=0.3, positions=positions, seed=1):  # type: ignore[arg-type]
                logits[positions] = model(**batch).logits[:, -1]
    for a, b in (("unpruned", "original"), ("unpruned", "compact"), ("original", "compact")):
        assert (logits[a] - logits[b]).abs().max() > 1000 * FLOAT32


@pytest.mark.parametrize("budget", [{"keep": 1}, {"tokens": 16}, {"mass": 1.0}], ids=str)
@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_all_tokens_give_the_same_bits(
    make_model: Any, make_batch: Any, budget: dict[str, Any], positions: Any, side: str, dtype: torch.dtype
) -> None:
    model, batch = make_model(dtype), make_batch([1, 2], side=side)
    with torch.no_grad():
        wanted = model(**batch).logits
        with salience.prune(model, "cls-attention", positions=positions, **budget) as pruned:
            got = model(**batch).logits
    assert torch.equal(got, wanted)
    assert [image.kept.tolist() for image in pruned.trace.images] == [list(range(16))] * 3
    assert all(columns.tolist() == list(range(batch["input_ids"].shape[1])) for columns in pruned.trace.columns)


def test_padding_every_row_has_stays(model: Any, make_batch: Any) -> None:
    batch = make_batch([1, 2])
    wide = {k: torch.nn.functional.pad(batch[k], (5, 0)) for k in ("input_ids", "attention_mask")}
    wide["pixel_values"] = batch["pixel_values"]
    with torch.no_grad():
        wanted = model(**wide).logits
        with salience.prune(model, "cls-attention", keep=1):
            assert torch.equal(model(**wide).logits, wanted)
        with salience.prune(model, "cls-attention", tokens=4) as pruned:
            short = model(**wide).logits
    assert short.shape[1] == wide["input_ids"].shape[1] - 24  # the longer row lost 2 * 12 tokens
    assert pruned.trace.columns[1][:5].tolist() == [0, 1, 2, 3, 4]


def test_trace_tells_what_was_kept(model: Any, make_batch: Any) -> None:
    batch = make_batch([1, 2])
    with torch.no_grad(), salience.prune(model, "cls-attention", tokens=5) as pruned:
        assert pruned.trace.images == ()
        model(**batch)
    assert len(pruned.trace.images) == 3
    assert len(pruned.trace.columns) == 2
    for image in pruned.trace.images:
        assert (image.grid.rows, image.grid.columns) == (4, 4)
        assert image.kept.dtype == torch.int64
        assert image.kept.device.type == "cpu"
        assert image.kept.tolist() == sorted(image.scores.topk(5).indices.tolist())
    slots = (batch["input_ids"][1] == 3).nonzero().flatten()  # both of the second row's pictures, 32 columns
    kept = torch.cat([pruned.trace.images[1].kept, pruned.trace.images[2].kept + 16])
    columns = pruned.trace.columns[1]
    assert columns[torch.isin(columns, slots)].tolist() == slots[kept].tolist()


def test_unequal_counts_of_a_mass_budget(model: Any, make_batch: Any, oracle: Any) -> None:
    batch = make_batch([1, 1, 2], seed=3)
    with torch.no_grad(), salience.prune(model, "cls-attention", mass=0.35) as pruned:
        short = model(**batch).logits
    assert len({image.kept.numel() for image in pruned.trace.images}) > 1
    full = oracle(model=model, batch=batch, pruned=pruned, positions="original").forward().logits
    for wanted, got in kept_logits(pruned, full, short, batch["attention_mask"]):
        torch.testing.assert_close(got, wanted, atol=FLOAT32, rtol=0)
    for image in pruned.trace.images:
        shares = image.scores / image.scores.sum()
        assert shares[image.kept].sum() >= 0.35 - 1e-6  # a float32 sum of 16 shares
        assert shares[image.kept].sum() - shares[image.kept].min() < 0.35


def test_labels_are_pruned_along(model: Any, make_batch: Any, oracle: Any) -> None:
    batch = make_batch([1, 2])
    labels = batch["input_ids"].masked_fill((batch["input_ids"] == 3) | (batch["attention_mask"] == 0), -100)
    with torch.no_grad(), salience.prune(model, "random", keep=0.5, seed=2) as pruned:
        out = model(**batch, labels=labels)
    expected = torch.nn.functional.pad(labels, (0, 1), value=-100)  # column -1 reads the fill
    kept = torch.stack([row[columns] for row, columns in zip(expected, pruned.trace.columns, strict=True)])
    loss = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), kept[:, 1:].flatten())
    torch.testing.assert_close(out.loss, loss, atol=1e-6, rtol=0)  # one mean over the same float32 numbers


def test_gradients_reach_projector_through_kept_rows(make_model: Any, make_batch: Any) -> None:
    model, batch = make_model(), make_batch([1])
    with salience.prune(model, "random", keep=0.25):
        model(**batch).logits.sum().backward()
    assert model.model.multi_modal_projector.linear_1.weight.grad.abs().sum() > 0


def test_projector_runs_on_kept_rows_only(model: Any, make_batch: Any) -> None:
    seen: list[int] = []
    handle = model.model.multi_modal_projector.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].numel() // args[0].shape[-1])
    )
    with torch.no_grad(), salience.prune(model, "cls-attention", tokens=4):
        model(**make_batch([1, 2]))
    handle.remove()
    assert seen == [12]


def test_tuple_outputs_and_positional_arguments(model: Any, make_batch: Any) -> None:
    batch = make_batch([1])
    with torch.no_grad(), salience.prune(model, "cls-attention", tokens=4):
        wanted = model(**batch).logits
        got = model(batch["input_ids"], batch["pixel_values"], return_dict=False)[0]
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_without_a_cache_and_without_a_mask(make_model: Any, make_batch: Any, oracle: Any, attention: str) -> None:
    """With neither, transformers would read positions with gaps as several packed sequences."""
    model, batch = make_model(attention=attention), make_batch([1])
    with torch.no_grad(), salience.prune(model, "random", keep=0.3) as pruned:
        short = model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"], use_cache=False).logits
    full = oracle(model=model, batch=batch, pruned=pruned, positions="original").forward().logits
    for wanted, got in kept_logits(pruned, full, short, batch["attention_mask"]):
        torch.testing.assert_close(got, wanted, atol=FLOAT32, rtol=0)


def test_several_feature_layers(tiny_llava: Any, make_batch: Any) -> None:
    from transformers import LlavaForConditionalGeneration

    config = tiny_llava(side=56, layers=3).config
    config.vision_feature_layer = [-2, -1, 0]
    model = LlavaForConditionalGeneration(config).eval()
    batch = make_batch([1, 2])
    with torch.no_grad():
        wanted = model(**batch).logits
        with salience.prune(model, "random", keep=1):
            assert torch.equal(model(**batch).logits, wanted)
        with salience.prune(model, "random", keep=0.25) as pruned:
            model(**batch)
    assert [image.kept.numel() for image in pruned.trace.images] == [4, 4, 4]
