"""The title, the two sentences and the tiles, for outcomes of every sort."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from salience.lab.report.tradeoff.chosen_ratios import operating_keep, telling_keep
from salience.lab.report.tradeoff.headline import (
    NEUTRAL,
    headline,
    summary,
)
from salience.lab.report.tradeoff.tiles import tiles
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData
from salience.lab.report.tradeoff.verdict_words import BEST_FREE

Make = Callable[..., TradeoffData]
TIMES = {"first_token_ms": {"saliency": (60.0, 30.0, 25.0)}}


def test_a_method_that_wins(view_of: Make) -> None:
    data = view_of(
        {"saliency": (0.9, 0.9, 0.88), "random": (0.9, 0.8, 0.4), "cls-attention": (0.9, 0.89, 0.8)},
        columns=TIMES | {"tokens_kept": {"saliency": (576, 144, 29)}}, n_visual_tokens=576,
    )  # fmt: skip
    assert operating_keep(data) == 0.05
    assert telling_keep(data) == 0.25
    assert headline(data) == (
        "With the learned saliency, keeping 5% of the visual tokens costs 2 points of accuracy, and the first token "
        "comes 2.4\u00d7 sooner"
    )
    first, second = summary(data)
    assert first == (
        "With the learned saliency and 29 of 576 visual tokens (5%), the model answers 0.880 of the questions "
        "correctly, against 0.900 with all tokens: \u22122.0 points (\u22123.5 to \u22120.5). The first token comes "
        "after 25 ms instead of 60 ms."
    )
    assert second == (
        "At 25%, where random tokens are 10 points below all tokens, the learned saliency reaches 0.900: it beats "
        f"random tokens (0.800) and is not measurably different from {BEST_FREE}, [CLS] attention (0.890)."
    )


def test_a_loss_within_the_interval_is_nothing_measurable(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.895, 0.3), "random": (0.9, 0.8, 0.3)})
    assert headline(data) == "With the learned saliency, keeping 25% of the visual tokens costs no measurable accuracy"


def test_random_tokens_that_do_as_well_are_in_the_title(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.9, 0.3), "random": (0.9, 0.89, 0.3)})
    assert headline(data).startswith("With the learned saliency, as with random tokens, keeping 25%")


def test_a_method_that_beats_everything(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.88, 0.85), "random": (0.9, 0.7, 0.4), "uniform": (0.9, 0.8, 0.5)})
    assert f"and beats {BEST_FREE}, a uniform grid (0.800)" in summary(data)[1]
    assert "first token" not in headline(data)


def test_a_method_that_loses_to_the_best_training_free_one(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.88, 0.6), "random": (0.9, 0.88, 0.4), "cls-attention": (0.9, 0.88, 0.8)})
    assert f"is worse than {BEST_FREE}, [CLS] attention (0.800)" in summary(data)[1]


def test_the_best_training_free_method_is_the_best_in_the_rows(view_of: Make) -> None:
    data = view_of(
        {"saliency": (0.9, 0.85, 0.5), "random": (0.9, 0.6, 0.3), "cls-attention": (0.9, 0.8, 0.4),
         "divprune": (0.9, 0.88, 0.87)}
    )  # fmt: skip
    assert f"is worse than {BEST_FREE}, DivPrune (0.880)" in summary(data)[1]


def test_a_method_worse_than_random(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.5, 0.2), "random": (0.9, 0.7, 0.5)})
    assert headline(data) == "With the learned saliency, pruning costs accuracy at every ratio that was tried"
    assert f"is worse than random tokens (0.700), {BEST_FREE}." in summary(data)[1]


def test_no_ratio_that_separates(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.9, 0.9), "random": (0.9, 0.9, 0.89)})
    assert summary(data)[1].startswith(
        "At 5%, the learned saliency reaches 0.900: it is not measurably different from random"
    )


def test_without_a_learned_method_the_best_training_free_one_is_the_subject(view_of: Make) -> None:
    data = view_of({"random": (0.9, 0.7, 0.3), "uniform": (0.9, 0.8, 0.5)})
    assert data.subject == "uniform"
    assert "a uniform grid reaches 0.800: it beats random tokens (0.700)." in summary(data)[1]
    assert BEST_FREE not in summary(data)[1]


@pytest.mark.parametrize(
    ("after", "said"),
    [(59.0, "but the first token comes no sooner"), (61.0, "but the first token comes no sooner"),
     (90.0, "but the first token comes 1.5\u00d7 later")],
)  # fmt: skip
def test_no_time_is_won(view_of: Make, after: float, said: str) -> None:
    data = view_of({"saliency": (0.9, 0.9, 0.9)}, columns={"first_token_ms": {"saliency": (60.0, after, after)}})
    assert headline(data).endswith(said)
    value = next(tile for tile in tiles(data) if "first token" in tile.label)
    assert (value.value, value.label.split(" to ")[0]) == (("1.5\u00d7", "later") if after == 90 else
                                                         ("1.0\u00d7", "as soon"))  # fmt: skip


def test_a_ratio_counts_only_when_all_larger_ones_hold(view_of: Make) -> None:
    assert operating_keep(view_of({"saliency": (0.9, 0.5, 0.9)})) is None


def test_nothing_but_all_tokens(view_of: Make) -> None:
    data = view_of({"saliency": (0.9,)}, keeps=(1.0,))
    assert headline(data) == NEUTRAL
    assert summary(data) == []


def test_a_model_that_answers_nothing(view_of: Make) -> None:
    data = view_of({"saliency": (0.0, 0.0, 0.0), "random": (0.0, 0.0, 0.0)})
    assert headline(data) == NEUTRAL


BLIND_LINE = {"method": "all tokens", "keep": 1.0, "against": "question only", "difference": 0.02}


@pytest.mark.parametrize(
    "about",
    [
        {"extra": {"blind_differences": [{**BLIND_LINE, "low": -0.01, "high": 0.05}]}},  # on the same questions
        {"half": 0.02},  # by the interval of all tokens' accuracy
        {"half": None, "apart": None},
    ],
)
def test_a_model_that_does_not_look_is_not_praised(view_of: Make, about: dict[str, Any]) -> None:
    """A method 1.8 times as accurate as all tokens, on a model that guesses: nothing was kept."""
    data = view_of({"saliency": (0.25, 0.45, 0.2), "random": (0.25, 0.2, 0.2)}, question_only_accuracy=0.24,
                   columns=TIMES, **about)  # fmt: skip
    assert headline(data) == NEUTRAL
    assert "answers 0.250 of the questions correctly, no better than without the picture" in summary(data)[0]
    (tile,) = tiles(data)
    assert (tile.value, tile.note) == ("0.250", "question only 0.240: no better than without the picture")


def test_a_model_that_looks_a_little_is_held_against_what_the_picture_brings(view_of: Make) -> None:
    """97 % of the accuracy of all tokens is no more than a guess here: nothing holds."""
    line = {**BLIND_LINE, "low": 0.01, "high": 0.04}
    data = view_of({"saliency": (0.27, 0.262, 0.25)}, question_only_accuracy=0.25, apart=0.002,
                   extra={"blind_differences": [line]})  # fmt: skip
    assert operating_keep(data) is None


def test_no_share_of_the_accuracy_is_told(view_of: Make) -> None:
    data = view_of({"saliency": (0.5, 0.9, 0.7), "random": (0.5, 0.6, 0.4)}, columns=TIMES)
    told = [headline(data), *summary(data), *(f"{tile.value} {tile.label} {tile.note}" for tile in tiles(data))]
    assert not [text for text in told if re.search(r"% of (?:the|its) (?:full )?accuracy|accuracy kept", text)]
    assert any("+40.0 points" in text for text in told)


def test_what_became_slower_is_called_so(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.9, 0.9)}, columns={"first_token_ms": {"saliency": (30.0, 60.0, 59.0)}})
    told = {tile.label: tile.value for tile in tiles(data)}
    assert told["later to the first token at 25%"] == "2.0\u00d7"


def test_tiles_leave_out_what_was_not_measured_and_say_nothing_twice(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.9)}, keeps=(1.0, 0.25), columns={"first_token_ms": {"saliency": (60.0, 30.0)}})
    told = [tile.label for tile in tiles(data)]
    assert told == ["accuracy with all tokens", "accuracy at 25%, learned saliency", "sooner to the first token at 25%"]


def test_a_quick_run_makes_no_headline(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.9, 0.88), "random": (0.9, 0.8, 0.4)}, columns=TIMES, quick=True)
    assert headline(data).startswith("Quick run: ")
    assert summary(data) == [] and tiles(data) == []


@pytest.mark.parametrize(
    "environment",
    [
        {"busy_because": "The load average was 7.0 at the start of the run, on 2 cores."},
        {"load_average_start": 7.0, "cores": 2}, {"load_average_end": 7.0, "cores": 2}, {"floor_spread": 3.0},
    ],
)  # fmt: skip
def test_a_busy_machine_makes_no_headline_and_no_times(view_of: Make, environment: dict[str, Any]) -> None:
    data = view_of({"saliency": (0.9, 0.9, 0.88), "random": (0.9, 0.8, 0.4)}, columns=TIMES, environment=environment)
    assert headline(data).startswith("Busy machine: ")
    told = [*summary(data), *(f"{tile.value} {tile.label} {tile.note}" for tile in tiles(data))]
    assert told and not [text for text in told if "first token" in text or " ms" in text]
