"""Temporal de-duplication against a loop, and what it leaves of videos that stand still or move."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from salience.core.types import TokenContext, VisualGrid
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.temporal import Temporal
from salience.vlm.methods.uniform import Uniform

GRID = VisualGrid(rows=3, columns=4)


def video(frames: Tensor, *, index: int = 0) -> list[TokenContext]:
    """(f, 12, d) -> its frames' contexts."""
    return [TokenContext(features=x, grid=GRID, image_index=index, frame=t) for t, x in enumerate(frames)]


def noise(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, 12, 6, generator=torch.Generator().manual_seed(seed))


def bayer() -> list[int]:
    """The twelve cells in the order in which Uniform takes them."""
    found: list[int] = []
    for count in range(1, 13):
        kept = Uniform().select(TokenContext(features=torch.zeros(12, 1), grid=GRID), Budget(tokens=count)).kept
        found += [cell for cell in kept.tolist() if cell not in found]
    return found


@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5, 0.75])
def test_by_a_loop(keep: float) -> None:
    x = noise(4)
    x[2, :7] = x[1, :7] + 0.1 * x[3, :7]  # most of the third frame is nearly the second
    place = bayer()
    news = {(0, cell): 1 - i / 12 for i, cell in enumerate(place)}
    for t in range(1, 4):
        for cell in range(12):
            a, b = x[t - 1, cell], x[t, cell]
            news[t, cell] = 1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
    chosen = {max((key for key in news if key[0] == t), key=lambda key: news[key]) for t in range(4)}
    count = 4 * max(1, math.floor(keep * 12 + 0.5))
    rest = sorted((key for key in news if key not in chosen), key=lambda key: -news[key])
    chosen |= set(rest[: count - 4])
    got = Temporal().select_all(video(x), Budget(keep=keep))
    assert [one.kept.tolist() for one in got] == [[cell for cell in range(12) if (t, cell) in chosen] for t in range(4)]
    for t, one in enumerate(got):
        assert one.scores is not None
        wanted = torch.tensor([news[t, cell] for cell in range(12)])
        torch.testing.assert_close(one.scores, wanted, atol=1e-5, rtol=0)  # float32 cosines against Python's


def test_of_a_still_video_the_first_frame_stays_whole() -> None:
    got = Temporal().select_all(video(noise(1).expand(4, -1, -1)), Budget(keep=0.3125))  # 4 of 12, so 16 in all
    counts = [len(one.kept) for one in got]
    assert counts[0] == 12
    assert sum(counts) == 16
    assert min(counts) == 1


def test_of_one_that_changes_in_one_place_that_place_stays() -> None:
    x = noise(1).repeat(4, 1, 1)
    x[1:, 5] = torch.eye(6)[:3]  # three directions at right angles: news of 1
    got = Temporal().select_all(video(x), Budget(tokens=1))
    assert [one.kept.tolist() for one in got[1:]] == [[5]] * 3


def test_videos_do_not_see_each_other_nor_pictures() -> None:
    one, other = noise(3, 1), noise(2, 2)
    picture = TokenContext(features=noise(1, 3)[0], grid=GRID)
    budget = Budget(keep=0.5)
    together = Temporal().select_all([*video(one), *video(other, index=1), picture], budget)
    apart = [*Temporal().select_all(video(one), budget), *Temporal().select_all(video(other), budget)]
    apart.append(Uniform().select(picture, budget))
    assert [a.kept.tolist() for a in together] == [b.kept.tolist() for b in apart]


def test_all_tokens_stay_as_they_are() -> None:
    assert [one.kept.tolist() for one in Temporal().select_all(video(noise(3)), Budget(keep=1))] == [
        list(range(12))
    ] * 3


def test_what_it_says_of_pictures() -> None:
    picture = TokenContext(features=noise(1)[0], grid=GRID)
    assert "uniform grid replaces" in Temporal().remark([picture])
    assert Temporal().remark(video(noise(2))) == ""


def test_mass_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a method with scores"):
        Temporal().select_all(video(noise(2)), Budget(mass=0.5))
