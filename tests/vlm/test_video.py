"""Videos, alone and beside pictures: each frame its own budget, and all equals the masked whole sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import salience

IMAGE, OPEN, CLOSE, VIDEO = 3, 4, 5, 6
NEVER = [0, IMAGE, VIDEO]

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "llava_onevision"])
def family(request: pytest.FixtureRequest, tiny_family: Any) -> Any:
    return tiny_family(request.param)


@pytest.fixture(scope="module")
def model(family: Any) -> Any:
    return family.model()


def qwen(name: str, generator: torch.Generator) -> tuple[dict[str, Any], list[list[int]]]:
    """Two videos of three and two frames, 3 x 4 and 2 x 3 tokens each, and the ids that stand for them."""
    grids, ids = [(3, 6, 8), (2, 4, 6)], []
    for t, h, w in grids:
        frame = [VIDEO] * (h * w // 4)
        ids.append([OPEN, *frame, CLOSE, 9] * t if name in ("qwen3_vl", "qwen3_5") else [OPEN, *frame * t, CLOSE])
    patches = sum(t * h * w for t, h, w in grids)
    pixels = torch.randn(patches, 3 * 2 * 14 * 14, generator=generator)
    return {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor(grids)}, ids


def onevision(generator: torch.Generator) -> tuple[dict[str, Any], list[list[int]]]:
    """Two videos of three frames, four tokens each, and a newline behind the last."""
    return {"pixel_values_videos": torch.randn(2, 3, 3, 42, 42, generator=generator)}, [[VIDEO] * 13] * 2


def with_videos(family: Any, *, pictures: bool) -> dict[str, Any]:
    """Two rows, a video in each and, if asked for, two pictures in the second before its video."""
    generator = torch.Generator().manual_seed(1)
    extra, videos = onevision(generator) if family.name == "llava_onevision" else qwen(family.name, generator)
    batch: dict[str, Any] = family.batch([0, 2]) if pictures else family.batch([0, 0])
    rows = [row[mask == 1].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    rows = [[*row, *video, 10 + i, 11, 12] for i, (row, video) in enumerate(zip(rows, videos, strict=True))]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    batch = {k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask", "mm_token_type_ids")}
    batch |= {"input_ids": ids, "attention_mask": mask, **extra}
    if family.name != "llava_onevision":
        batch["mm_token_type_ids"] = (ids == IMAGE).long() + 2 * (ids == VIDEO).long()
    if family.name == "qwen2_5_vl":
        batch["second_per_grid_ts"] = torch.tensor([0.5, 1.0])
    return batch


@pytest.fixture(params=[False, True], ids=["videos", "videos and pictures"])
def batch(request: pytest.FixtureRequest, family: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    original = family.collect
    monkeypatch.setattr(family, "collect", lambda rows: original(rows) if any(rows) else {})
    return with_videos(family, pictures=request.param)


def masked(model: Any, batch: dict[str, Any], pruned: Any, *, generating: bool) -> dict[str, Any]:
    """The whole sequence, what the trace says is gone masked, positions as the model counts them."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    stays = torch.zeros_like(ids, dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    counted = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
    positions: Tensor = counted if generating else torch.arange(mask.shape[1]).expand_as(mask)
    if hasattr(model.model, "get_rope_index"):
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        grids = {name: batch[name] for name in names if name in batch}
        axes, _ = model.model.get_rope_index(ids, batch["mm_token_type_ids"], attention_mask=mask, **grids)
        positions = torch.cat([counted[None], axes]) if generating else axes
    return {**batch, "attention_mask": mask.masked_fill(~stays, 0), "position_ids": positions}


@torch.no_grad()
def test_forward_equals_masked_sequence(model: Any, batch: Any) -> None:
    with salience.prune(model, "random", keep=0.25) as pruned:
        short = model(**batch).logits
    full = model(**masked(model, batch, pruned, generating=False)).logits
    assert short.shape[1] < full.shape[1]
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        torch.testing.assert_close(short[row, real], full[row, columns[real]], atol=FLOAT32, rtol=0)
    for image in pruned.trace.images:
        assert image.kept.numel() == max(1, int(0.25 * image.grid.n + 0.5))


@pytest.mark.parametrize("mode", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_generate_equals_masked_sequence(model: Any, batch: Any, mode: dict[str, Any]) -> None:
    options = {**mode, "do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": NEVER}
    with salience.prune(model, "random", keep=0.25, seed=1) as pruned:
        got = model.generate(**batch, **options)
    assert torch.equal(got, model.generate(**masked(model, batch, pruned, generating=True), **options))


@pytest.mark.parametrize("positions", ["original", "compact"])
@torch.no_grad()
def test_all_tokens_are_bit_identical(model: Any, batch: Any, positions: Any) -> None:
    options = {"do_sample": False, "max_new_tokens": 3, "min_new_tokens": 3, "suppress_tokens": NEVER}
    wanted, said = model(**batch).logits, model.generate(**batch, **options)
    with salience.prune(model, "uniform", keep=1, positions=positions):
        assert torch.equal(model(**batch).logits, wanted)
        assert torch.equal(model.generate(**batch, **options), said)


@pytest.mark.parametrize("method", ["temporal", "cls-attention", "prumerge+"])
@torch.no_grad()
def test_other_methods(model: Any, family: Any, batch: Any, method: str) -> None:
    """Each video as many tokens as its frames would have, wherever they are; the masked sequence where none merge."""
    with salience.prune(model, method, keep=0.25) as pruned:
        short = model(**batch).logits
    kept: dict[int, list[int]] = {}
    for image in pruned.trace.images:
        assert len(image.kept) >= 1
        kept.setdefault(image.picture, []).append(len(image.kept))
    for counts, n in zip(
        list(kept.values())[-2:], (4, 4) if family.name == "llava_onevision" else (12, 6), strict=True
    ):
        assert sum(counts) == len(counts) * max(1, int(0.25 * n + 0.5))
    assert ("uniform grid" in pruned.trace.substitute) == (method == "temporal" and "pixel_values" in batch)
    if method == "prumerge+":
        return
    full = model(**masked(model, batch, pruned, generating=False)).logits
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        torch.testing.assert_close(short[row, real], full[row, columns[real]], atol=FLOAT32, rtol=0)


@torch.no_grad()
def test_a_view_is_a_frame(model: Any, family: Any, batch: Any) -> None:
    with salience.prune(model, "uniform", keep=1) as pruned:
        model(**batch)
    frames = [image.grid for image in pruned.trace.images][-6 if family.name == "llava_onevision" else -5 :]
    shapes = [(2, 2)] * 6 if family.name == "llava_onevision" else [(3, 4)] * 3 + [(2, 3)] * 2
    assert [(grid.rows, grid.columns) for grid in frames] == shapes
    videos = [image.picture for image in pruned.trace.images][-len(frames) :]
    assert videos == sorted(videos)
    assert len(set(videos)) == 2


@torch.no_grad()
def test_frames_smaller_than_tokens_stay_whole(model: Any, family: Any, batch: Any) -> None:
    if family.name == "llava_onevision":
        return  # its frames are all of one size
    with salience.prune(model, "temporal", tokens=8) as pruned:
        model(**batch)
    frames = [len(image.kept) for image in pruned.trace.images][-5:]
    assert (sum(frames[:3]), frames[3:]) == (24, [6, 6])


def test_video_tokens_that_do_not_match(model: Any, batch: Any) -> None:
    ids = batch["input_ids"].clone()
    ids[0, (ids[0] == VIDEO).nonzero()[0]] = 9
    with salience.prune(model, "uniform", keep=0.5), pytest.raises(ValueError, match="video tokens") as caught:
        model(**{**batch, "input_ids": ids})
    assert ". " not in str(caught.value).rstrip(".")
