"""Qwen2-VL: positions of time, height and width, counted on the whole prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import salience


@pytest.fixture(scope="module")
def family(tiny_family: Any) -> Any:
    return tiny_family("qwen2_vl")


@pytest.fixture(scope="module")
def model(family: Any) -> Any:
    return family.model()


def positions_seen(model: Any, run: Any) -> torch.Tensor:
    """The (3 or 4, B, L) positions that the language model gets in a call's first forward."""
    seen: list[torch.Tensor] = []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    run()
    handle.remove()
    return seen[0]


@torch.no_grad()
def test_positions_are_the_whole_prompts(model: Any, family: Any) -> None:
    batch = family.batch([1, 2])
    axes, _ = model.model.get_rope_index(
        batch["input_ids"], batch["mm_token_type_ids"], batch["image_grid_thw"], attention_mask=batch["attention_mask"]
    )
    with salience.prune(model, "uniform", keep=0.25) as pruned:
        got = positions_seen(model, lambda: model(**batch))
    for row, columns in enumerate(pruned.trace.columns):
        kept = columns >= 0
        assert torch.equal(got[:, row, kept], axes[:, row, columns[kept]])


@torch.no_grad()
def test_the_texts_axis_has_no_gaps_in_generate(model: Any, family: Any) -> None:
    """With gaps, kernels would take the row for several packed sequences."""
    batch = family.batch([1, 2])
    with salience.prune(model, "uniform", keep=0.25) as pruned:
        got = positions_seen(model, lambda: model.generate(**batch, max_new_tokens=1))
    assert got.shape[0] == 4
    for row, columns in enumerate(pruned.trace.columns):
        text = got[0, row, (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)]
        assert text.tolist() == list(range(len(text)))


@pytest.mark.parametrize("positions", ["original", "compact"])
@torch.no_grad()
def test_rope_deltas_are_the_last_position_less_the_tokens(model: Any, family: Any, positions: Any) -> None:
    batch = family.batch([1, 2])
    with salience.prune(model, "uniform", keep=0.25, positions=positions) as pruned:
        axes = positions_seen(model, lambda: model(**batch))
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        assert int(model.model.rope_deltas[row]) == int(axes[:, row, real].max()) + 1 - int(real.sum())


def test_compact_closes_rows_and_columns_and_what_follows(model: Any, family: Any) -> None:
    """A picture of 3 x 4 tokens at 5 of which rows 0 and 2, columns 1 and 3 stay; text before and behind."""
    from salience.ops.axes import kept_axes
    from salience.ops.tokens import remaining_columns

    t, h, w = torch.meshgrid(torch.arange(1), torch.arange(3), torch.arange(4), indexing="ij")
    image = torch.stack([t, h, w]).reshape(3, -1) + 2
    axes = torch.cat([torch.arange(2).expand(3, -1), image, torch.arange(6, 9).expand(3, -1)], dim=1)[:, None]
    mask = torch.ones(1, 17, dtype=torch.long)
    drop = torch.ones(1, 17, dtype=torch.bool)
    drop[0, [0, 1, 14, 15, 16, 2 + 1, 2 + 3, 2 + 8 + 3]] = False
    columns = remaining_columns(mask, drop, side="left")
    left = torch.ones(1, 8, dtype=torch.long)
    visual = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 0]]).bool()
    kept, ends, moved = kept_axes(axes, columns, left, visual, full_mask=mask, compact=True)
    assert kept[:, 0].tolist() == [[0, 1, 2, 2, 2, 4, 5, 6], [0, 1, 2, 2, 3, 4, 5, 6], [0, 1, 2, 3, 3, 4, 5, 6]]
    assert (ends.tolist(), moved.tolist()) == ([7], [2])


def test_flash_attention_is_shown_no_gaps(model: Any, family: Any) -> None:
    """A row with gaps, which other families refuse: no kernel runs, the language model stops the call first."""
    config, batch = model.model.language_model.config, family.batch([1])
    before = config._attn_implementation

    def stop(module: Any, args: Any) -> None:
        raise RuntimeError("the language model is reached")

    handle = model.model.language_model.register_forward_pre_hook(stop)
    config._attn_implementation_internal = "flash_attention_2"
    try:
        with salience.prune(model, "uniform", keep=0.5), pytest.raises(RuntimeError, match="is reached"):
            model(**batch)
    finally:
        config._attn_implementation_internal = before
        handle.remove()


@pytest.mark.parametrize("missing", ["image_grid_thw", "mm_token_type_ids"])
def test_what_the_processor_gives_is_asked_for(model: Any, family: Any, missing: str) -> None:
    batch = family.batch([1])
    del batch[missing]
    with salience.prune(model, "uniform", keep=0.5), pytest.raises(ValueError, match=f"{missing} is missing"):
        model(**batch)


def test_patches_that_do_not_match_the_grid(model: Any, family: Any) -> None:
    batch = family.batch([1])
    batch["pixel_values"] = batch["pixel_values"][:-4]
    with (
        salience.prune(model, "uniform", keep=0.5),
        pytest.raises(ValueError, match="each of the 48 patches"),
    ):
        model(**batch)


@torch.no_grad()
def test_more_tokens_than_a_small_picture_has(model: Any, family: Any) -> None:
    """Pictures of any size: `tokens` is limited to the tokens of a picture, and the trace says so."""
    with salience.prune(model, "uniform", tokens=8) as pruned:
        model(**family.batch([1, 2]))
    assert [(image.grid.n, image.kept.numel()) for image in pruned.trace.images] == [(12, 8), (6, 6), (10, 8)]
