"""Findings about the answers, for outcomes of every sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from salience.lab.report.tradeoff import quality_findings as quality
from salience.lab.report.tradeoff import rankings as comparisons
from salience.lab.report.tradeoff.findings import findings
from salience.lab.report.tradeoff.headline import BEST_FREE
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

Make = Callable[..., TradeoffData]
COUNT = {"accuracy_count": {"saliency": (0.7, 0.6, 0.2)}, "accuracy_is_there": {"saliency": (0.95, 0.94, 0.93)}}


def kind_lines(**by_kind: tuple[float, float]) -> dict[str, Any]:
    """Differences of the saliency from all tokens at 5 %: kind -> (low, high)."""
    return {"kind_differences": [
        {"method": "saliency", "keep": 0.05, "kind": kind, "difference": (low + high) / 2, "low": low, "high": high}
        for kind, (low, high) in by_kind.items()
    ]}  # fmt: skip


def test_what_is_alike_is_called_alike(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.88, 0.8), "random": (0.9, 0.87, 0.4)})
    found = comparisons.alike(data)
    assert found is not None
    assert found.lead == "No method is measurably better than another at 25%."
    assert "within 1 point of each other" in found.text


def test_nothing_is_alike_where_methods_part_or_were_not_compared(view_of: Make) -> None:
    assert comparisons.alike(view_of({"saliency": (0.9, 0.88, 0.8), "random": (0.9, 0.6, 0.4)})) is None
    assert comparisons.alike(view_of({"saliency": (0.9, 0.9), "random": (0.9, 0.9)}, (1.0, 0.5), apart=None)) is None


def test_oracles_and_controls_do_not_compete(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.7, 0.5), "oracle": (0.9, 0.9, 0.9), "saliency-shuffled": (0.9, 0.1, 0.1)})
    assert {point.method for point in data.competing(0.25, "learned", "free")} == {"saliency"}


def test_against_random(view_of: Make) -> None:
    won = comparisons.against_random(view_of({"saliency": (0.9, 0.88, 0.8), "random": (0.9, 0.87, 0.4)}))
    assert won is not None
    assert (won.tone, won.lead) == ("good", "The learned saliency beats random tokens at 5%.")
    assert won.text == "The learned saliency is not measurably different from random tokens at 25%."
    assert won.numbers is not None and won.numbers.head[1:3] == ("learned saliency", "random tokens")
    assert won.numbers.rows[1] == ("5%", "0.800", "0.400", "+40.0 (38.5 to 41.5)")
    lost = comparisons.against_random(view_of({"saliency": (0.9, 0.8, 0.44), "random": (0.9, 0.8, 0.45)}))
    assert lost is not None
    assert (lost.tone, lost.lead) == (
        "bad", "The learned saliency is not measurably different from random tokens at 25% and 5%.",
    )  # fmt: skip
    worse = comparisons.against_random(view_of({"saliency": (0.9, 0.8, 0.2), "random": (0.9, 0.8, 0.45)}))
    assert worse is not None
    assert (worse.tone, worse.lead) == ("bad", "The learned saliency is worse than random tokens at 5%.")


def test_a_pairing_counts_where_intervals_overlap(view_of: Make) -> None:
    """Each accuracy +-5 points, their difference +-.5: better by the pairing, whatever the two intervals are."""
    data = view_of({"saliency": (0.9, 0.89, 0.8), "random": (0.9, 0.88, 0.79)}, half=0.05, apart=0.005)
    found = comparisons.against_random(data)
    assert found is not None and found.lead == "The learned saliency beats random tokens at 25% and 5%."
    assert comparisons.alike(data) is None


def test_against_the_best_training_free_method(view_of: Make) -> None:
    others = {"random": (0.9, 0.7, 0.4), "cls-attention": (0.9, 0.85, 0.6), "divprune": (0.9, 0.8, 0.7)}
    lost = comparisons.against_free(view_of({"saliency": (0.9, 0.85, 0.6), **others}))
    assert lost is not None
    assert (lost.tone, lost.lead) == ("bad", f"The learned saliency is worse than {BEST_FREE} at 5%.")
    assert lost.text == "The two are not measurably different at 25%."
    assert lost.numbers is not None and lost.numbers.rows == (
        ("25%", "0.850", "[CLS] attention 0.850", "0.0 (\u22121.5 to 1.5)"),
        ("5%", "0.600", "DivPrune 0.700", "\u221210.0 (\u221211.5 to \u22128.5)"),
    )
    won = comparisons.against_free(view_of({"saliency": (0.9, 0.89, 0.8), **others}))
    assert won is not None
    assert (won.tone, won.lead) == ("good", f"The learned saliency beats {BEST_FREE} at 25% and 5%.")
    level = comparisons.against_free(view_of({"saliency": (0.9, 0.855, 0.705), **others}))
    assert level is not None
    assert level.lead == f"The learned saliency is not measurably different from {BEST_FREE} at 25% and 5%."


def test_controls(view_of: Make) -> None:
    idle = comparisons.controls(view_of({"random": (0.9, 0.6, 0.4), "saliency-shuffled": (0.9, 0.6, 0.2)}))
    assert idle is not None
    assert (idle.tone, idle.lead) == ("good", "No control beats random tokens.")
    assert "The shuffled control is worse than random tokens at 5% and is not measurably different" in idle.text
    works = comparisons.controls(view_of({"random": (0.9, 0.6, 0.4), "saliency-shuffled": (0.9, 0.6, 0.6)}))
    assert works is not None
    assert works.tone == "bad"
    assert (
        "The shuffled control beats random tokens at 5% and is not measurably different from random tokens at 25%."
        in works.text
    )


def test_one_lucky_control_is_not_hidden_by_the_mean(view_of: Make) -> None:
    by_seed = [
        {"seed": 0, "difference": 0.2, "low": 0.1, "high": 0.3},
        {"seed": 1, "difference": -0.2, "low": -0.3, "high": -0.1},
    ]
    lines = [{"method": "saliency-untrained", "keep": 0.05, "against": "random", "difference": 0.0, "low": -0.02,
              "high": 0.02, "by_seed": by_seed}]  # fmt: skip
    data = view_of({"random": (0.9, 0.6, 0.4), "saliency-untrained": (0.9, 0.6, 0.4)}, extra={"differences": lines})
    found = comparisons.controls(data)
    assert found is not None and found.tone == "bad"
    assert "is not measurably different from random tokens at 5%. One of its seeds alone is better at 5%." in found.text


def test_where_a_winning_control_looks(view_of: Make) -> None:
    on = {"random": (0.1, 0.1, 0.1), "saliency-untrained": (0.1, 0.3, 0.7)}
    data = view_of({"random": (0.9, 0.6, 0.4), "saliency-untrained": (0.9, 0.6, 0.6)}, columns={"item_share": on})
    found = comparisons.controls(data)
    assert found is not None
    assert (
        "At 5%, 70% of the tokens that the untrained control keeps lie on items; of random tokens 10%. Items stand"
        in found.text
    )


def test_the_breaking_point(view_of: Make) -> None:
    found = quality.breaking_point(view_of({"saliency": (0.9, 0.9, 0.85), "uniform": (0.9, 0.85, 0.7)}))
    assert found is not None
    assert found.lead == f"At 5% {BEST_FREE} loses 20 points."
    assert found.text.endswith("The learned saliency has 0.850 there.")
    easy = quality.breaking_point(view_of({"saliency": (0.9, 0.9, 0.9), "uniform": (0.9, 0.89, 0.87)}))
    assert easy is not None
    assert easy.lead == f"At every ratio {BEST_FREE} loses less than ten points."
    assert "it is a uniform grid with 0.870; all tokens give 0.900" in easy.text


def test_an_oracle_that_is_passed_is_no_bound(view_of: Make) -> None:
    passed = {"saliency": (0.9, 0.88, 0.5), "divprune": (0.9, 0.88, 0.88), "oracle": (0.9, 0.92, 0.78)}
    found = comparisons.oracle(view_of(passed))
    assert found is not None
    assert found.lead == "The all-items oracle is worse than the best method of those measured here at 5%."
    assert "The all-items oracle beats the best method of those measured here at 25%." in found.text
    assert found.numbers is not None
    assert ("5%", "0.780", "DivPrune 0.880", "\u221210.0 (\u221211.5 to \u22128.5)") in found.numbers.rows
    assert "a reference, not an upper bound" in found.text


def test_the_oracle_of_the_question_is_told_with_its_own_questions(view_of: Make) -> None:
    methods = {"saliency": (0.9, 0.88, 0.5), "oracle": (0.9, 0.92, 0.78), "oracle-question": (0.9, 0.93, 0.94)}
    found = comparisons.oracle(view_of(methods, ceiling_full_accuracy=0.95, ceiling_pictures=24))
    assert found is not None
    assert "0.930 at 25% and 0.940 at 5%, on the first 24 pictures, where all tokens reach 0.950." in found.text


def test_the_kind_that_suffers_most(view_of: Make) -> None:
    methods = {"saliency": (0.9, 0.85, 0.7), "random": (0.9, 0.85, 0.4)}
    lines = kind_lines(count=(-0.6, -0.4), is_there=(-0.05, 0.01))
    found = quality.suffering_kinds(view_of(methods, columns=COUNT, extra=lines, majority_by_kind={"count": 0.22}))
    assert found is not None
    assert found.lead == "Count questions lose most: 50 points at 5% with the learned saliency."
    assert "From 0.700 to 0.200 (95% interval of the loss 40.0 to 60.0 points)." in found.text
    assert "no better than always giving its commonest answer (0.220)" in found.text
    assert found.text.endswith("No other kind loses measurably.")


def test_kinds_without_paired_differences_are_not_judged(view_of: Make) -> None:
    methods = {"saliency": (0.9, 0.85, 0.7), "random": (0.9, 0.85, 0.4)}
    assert quality.suffering_kinds(view_of(methods, columns=COUNT)) is None
    lines = kind_lines(count=(-0.6, 0.1), is_there=(-0.05, 0.01))
    found = quality.suffering_kinds(view_of(methods, columns=COUNT, extra=lines))
    assert found is not None
    assert found.lead == "No kind of question loses measurably at 5% with the learned saliency."


def test_kinds_that_the_model_never_answered(view_of: Make) -> None:
    kinds = {"accuracy_count": {"saliency": (0.24, 0.2, 0.2)}}
    found = quality.idle_kinds(view_of({"saliency": (0.9, 0.9, 0.9)}, columns=kinds, majority_by_kind={"count": 0.22}))
    assert found is not None
    assert "count (0.240; its commonest answer alone gives 0.220)" in found.text.lower()


def test_fewer_tokens_can_be_better(view_of: Make) -> None:
    found = comparisons.better_than_full(view_of({"saliency": (0.8, 0.85, 0.7)}))
    assert found is not None
    assert found.text == "Better than all tokens: the learned saliency at 25%."
    assert comparisons.better_than_full(view_of({"saliency": (0.8, 0.805, 0.7)})) is None


def test_the_probe(view_of: Make) -> None:
    probe = {"probe_accuracy": {"saliency": (0.9, 0.88, 0.8), "random": (0.9, 0.8, 0.6)}}
    found = quality.probe_loss(view_of({"saliency": (0.9, 0.9, 0.85), "random": (0.9, 0.85, 0.4)}, columns=probe))
    assert found is not None
    assert found.lead == "At 5% the probe reads 0.800 from the tokens that the learned saliency keeps, 0.900 from all."
    assert found.text == "From random tokens it reads 0.600."


def test_a_probe_that_cannot_read_tells_no_loss(view_of: Make) -> None:
    """It reads .24 of all tokens and more of fewer: that is dilution, and says nothing of what is lost."""
    probe = {"probe_accuracy": {"saliency": (0.24, 0.28, 0.26)}}
    found = quality.probe_loss(view_of({"saliency": (0.9, 0.9, 0.85)}, columns=probe))
    assert found is not None and found.tone == "bad"
    assert "too little to tell what is lost" in found.lead and "gain" not in found.lead + found.text


@pytest.mark.parametrize(("low", "tone", "said"), [(-0.01, "good", "\u22121.0"), (0.002, "bad", "+0.2")])
def test_another_picture_is_judged_by_the_interval(view_of: Make, low: float, tone: str, said: str) -> None:
    told = {"accuracy": 0.25, "low": 0.22, "high": 0.28, "above_low": low, "above_high": 0.03}
    about = {"control_other_picture_accuracy": 0.25, "question_only_accuracy": 0.24}
    found = quality.other_picture(view_of({"saliency": (0.9, 0.9, 0.9)}, control_other_picture=told, **about))
    assert found is not None
    assert found.tone == tone
    assert f"{said} to +3.0 points" in found.text
    assert quality.other_picture(view_of({"saliency": (0.9, 0.9, 0.9)}, **about)) is None  # no interval, no verdict
    wide = quality.other_picture(
        view_of(
            {"saliency": (0.9, 0.9, 0.9)},
            control_other_picture={**told, "above_low": -0.06, "above_high": 0.27},
            **about,
        )
    )
    assert wide is not None and wide.lead.startswith("The control with other pictures is too small")


def test_training_free_methods_that_share_the_best_accuracy_are_all_named(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, 0.9), "random": (0.9, 0.4), "cls-attention": (0.9, 0.85), "uniform": (0.9, 0.3),
                    "divprune": (0.9, 0.8504), "visionzip": (0.9, 0.8496)}, (1.0, 0.25))  # fmt: skip
    found = comparisons.against_free(data)
    assert found is not None and found.numbers is not None
    assert found.numbers.rows[0][2] == "DivPrune, [CLS] attention, VisionZip 0.850"


def test_of_a_model_that_does_not_look_nothing_else_is_told(view_of: Make) -> None:
    columns = {"select_ms": {"saliency": (0, 0.1, 0.1)}, "prefill_ms": {"saliency": (40, 10, 5)}}
    data = view_of({"saliency": (0.25, 0.45, 0.4), "random": (0.25, 0.2, 0.2)}, columns=columns,
                   question_only_accuracy=0.24)  # fmt: skip
    told = findings(data)
    assert told[0].lead == "The model answers no better than without the picture."
    assert [finding.lead for finding in told[1:]] == ["Choosing the tokens takes at most 3% of a prefill."]
    assert not [finding for finding in told if finding.tone == "good"]


def test_a_method_with_a_hole_in_its_rows(view_of: Make) -> None:
    data = view_of({"saliency": (0.9, None, 0.8), "random": (0.9, 0.8, 0.4), "uniform": (None, None, None)})
    told = findings(data)
    assert told and all("None" not in finding.lead + finding.text for finding in told)
