"""Findings about the answers, for outcomes of every sort."""

from collections.abc import Callable

import pytest

from salience.report import quality
from salience.report.series import Point, View

Make = Callable[..., View]


def test_what_is_alike_is_called_alike(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.88, 0.8), "random": (0.9, 0.87, 0.4)})
    found = quality.alike(view)
    assert found is not None
    assert found.lead == "Everything is alike at 25%."
    assert "within 1 point of each other" in found.text
    assert "Random tokens are among them." in found.text


def test_nothing_is_alike_where_methods_part(view_of: Make) -> None:
    assert quality.alike(view_of({"saliency": (0.9, 0.88, 0.8), "random": (0.9, 0.6, 0.4)})) is None


def test_ceilings_and_controls_do_not_compete(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.7, 0.5), "oracle": (0.9, 0.9, 0.9), "saliency-shuffled": (0.9, 0.1, 0.1)})
    assert {point.method for point in quality.compared(view, 0.25)} == {"saliency"}


def test_against_random(view_of: Make) -> None:
    won = quality.against_random(view_of({"saliency": (0.9, 0.88, 0.8), "random": (0.9, 0.87, 0.4)}))
    assert won is not None
    assert (won.tone, won.lead) == ("good", "The learned saliency beats random tokens at 5%.")
    assert won.text == "0.80 against 0.40 at 5%. At 25% it is not clearly ahead."
    lost = quality.against_random(view_of({"saliency": (0.9, 0.8, 0.4), "random": (0.9, 0.8, 0.45)}))
    assert lost is not None
    assert (lost.tone, lost.lead) == (
        "bad",
        "The learned saliency is not clearly better than random tokens at any ratio.",
    )


def test_against_the_best_training_free_method(view_of: Make) -> None:
    others = {"random": (0.9, 0.7, 0.4), "cls-attention": (0.9, 0.85, 0.7)}
    lost = quality.against_free(view_of({"saliency": (0.9, 0.85, 0.6), **others}))
    assert lost is not None
    assert (lost.tone, lost.lead) == ("bad", "The learned saliency does not beat the best training-free method at 5%.")
    assert lost.text == "At 5% it answers 0.60, [CLS] attention 0.70. At 25% the two are level."
    won = quality.against_free(view_of({"saliency": (0.9, 0.89, 0.8), **others}))
    assert won is not None
    assert (won.tone, won.lead) == ("good", "The learned saliency beats the best training-free method at 25% and 5%.")
    level = quality.against_free(view_of({"saliency": (0.9, 0.855, 0.705), **others}))
    assert level is not None
    assert level.lead == "The learned saliency is nowhere clearly better than the best training-free method."


def test_other_methods_that_do_not_beat_random_are_named(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.8, 0.8), "random": (0.9, 0.6, 0.4), "uniform": (0.9, 0.7, 0.39)})
    found = quality.others_against_random(view)
    assert found is not None
    assert found.text == "Not clearly ahead of them: a uniform grid at 5% (their intervals overlap)."


def test_controls(view_of: Make) -> None:
    idle = quality.controls(view_of({"random": (0.9, 0.6, 0.4), "saliency-shuffled": (0.9, 0.6, 0.4)}))
    assert idle is not None
    assert idle.tone == "good"
    assert idle.text == "The shuffled control is at no ratio clearly better than random tokens."
    works = quality.controls(view_of({"random": (0.9, 0.6, 0.4), "saliency-shuffled": (0.9, 0.6, 0.6)}))
    assert works is not None
    assert works.tone == "bad"
    assert works.text.startswith("The shuffled control at 5%, with at least one seed.")


def test_where_a_winning_control_looks(view_of: Make) -> None:
    on = {"random": (0.1, 0.1, 0.1), "saliency-untrained": (0.1, 0.3, 0.7)}
    view = view_of({"random": (0.9, 0.6, 0.4), "saliency-untrained": (0.9, 0.6, 0.6)}, columns={"item_share": on})
    found = quality.controls(view)
    assert found is not None
    assert (
        "At 5%, 70% of what the untrained control keeps lies on items; of random tokens 10%: items stand" in found.text
    )


def test_the_breaking_point(view_of: Make) -> None:
    found = quality.breaking_point(view_of({"saliency": (0.9, 0.9, 0.85), "uniform": (0.9, 0.85, 0.7)}))
    assert found is not None
    assert found.lead == "At 5% the best training-free method has lost 20 points."
    assert found.text.endswith("The learned saliency has 0.85 there.")
    easy = quality.breaking_point(view_of({"saliency": (0.9, 0.9, 0.9), "uniform": (0.9, 0.89, 0.87)}))
    assert easy is not None
    assert (easy.tone, easy.text[:32]) == ("bad", "Even at 5% it loses 3 points onl")


def test_the_kind_that_suffers_most(view_of: Make) -> None:
    kinds = {"accuracy_count": {"saliency": (0.7, 0.6, 0.2)}, "accuracy_is_there": {"saliency": (0.95, 0.94, 0.9)}}
    methods = {"saliency": (0.9, 0.85, 0.7), "random": (0.9, 0.85, 0.4)}
    found = quality.suffering_kinds(view_of(methods, columns=kinds, majority_by_kind={"count": 0.22}))
    assert found is not None
    assert found.lead == "Count questions suffer most: 50 points lost at 5%."
    assert "From 0.70 to 0.20. That is no better than always giving its commonest answer (0.22)." in found.text
    assert found.text.endswith("Is-there, the least affected, loses 5 points.")


def test_kinds_that_the_model_never_answered(view_of: Make) -> None:
    kinds = {"accuracy_count": {"saliency": (0.24, 0.2, 0.2)}}
    found = quality.idle_kinds(view_of({"saliency": (0.9, 0.9, 0.9)}, columns=kinds, majority_by_kind={"count": 0.22}))
    assert found is not None
    assert "count (0.24; its commonest answer alone gives 0.22)" in found.text.lower()


def test_fewer_tokens_can_be_better(view_of: Make) -> None:
    found = quality.better_than_full(view_of({"saliency": (0.8, 0.85, 0.7)}))
    assert found is not None
    assert found.text.startswith("The learned saliency at 25%")
    assert quality.better_than_full(view_of({"saliency": (0.8, 0.805, 0.7)})) is None
    asked = {"saliency": (0.8, 0.8, 0.7), "oracle-question": (0.8, 0.85, 0.85)}
    assert quality.better_than_full(view_of(asked)) is not None
    assert quality.better_than_full(view_of(asked, ceiling_full_accuracy=0.86)) is None


def test_one_lucky_control_is_not_hidden_by_the_mean() -> None:
    def point(method: str, low: float, high: float, lows: tuple[float, ...]) -> Point:
        means = {"accuracy": (low + high) / 2}
        return Point(
            method=method, keep=0.05, seeds=len(lows), means=means, each={"accuracy_low": lows}, low=low, high=high
        )

    random = point("random", 0.39, 0.46, (0.39, 0.4))
    assert quality._some_seed_ahead(point("saliency-untrained", 0.2, 0.6, (0.2, 0.54)), random)
    assert not quality._some_seed_ahead(point("saliency-untrained", 0.2, 0.5, (0.2, 0.44)), random)


def test_the_probe(view_of: Make) -> None:
    probe = {"probe_accuracy": {"saliency": (0.9, 0.88, 0.8), "random": (0.9, 0.8, 0.6)}}
    found = quality.probe_loss(view_of({"saliency": (0.9, 0.9, 0.85), "random": (0.9, 0.85, 0.4)}, columns=probe))
    assert found is not None
    assert found.lead == "The probe loses 10 points at 5%; with random tokens it loses 30 points."


def test_each_question_with_another_picture(view_of: Make) -> None:
    methods = {"saliency": (0.9, 0.9, 0.9)}
    from_picture = quality.other_picture(
        view_of(methods, control_other_picture_accuracy=0.2, question_only_accuracy=0.24)
    )
    guessed = quality.other_picture(view_of(methods, control_other_picture_accuracy=0.6, question_only_accuracy=0.24))
    assert from_picture is not None
    assert guessed is not None
    assert (from_picture.tone, guessed.tone) == ("good", "bad")


@pytest.mark.parametrize(("low", "tone", "said"), [(-0.01, "good", "\u22121.0"), (0.002, "bad", "+0.2")])
def test_another_picture_is_judged_by_the_interval_where_there_is_one(
    view_of: Make, low: float, tone: str, said: str
) -> None:
    told = {"accuracy": 0.25, "low": 0.22, "high": 0.28, "above_low": low, "above_high": 0.03}
    found = quality.other_picture(
        view_of(
            {"saliency": (0.9, 0.9, 0.9)},
            control_other_picture_accuracy=0.25, control_other_picture=told, question_only_accuracy=0.24,
        )
    )  # fmt: skip
    assert found is not None
    assert found.tone == tone
    assert f"{said} to +3.0 points" in found.text


def test_a_method_with_a_hole_in_its_rows(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, None, 0.8), "random": (0.9, 0.8, 0.4), "uniform": (None, None, None)})
    told = [finding for tell in quality.QUALITY if (finding := tell(view)) is not None]
    assert all("None" not in finding.lead + finding.text for finding in told)
