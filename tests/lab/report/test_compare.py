"""The chapter of a comparison: its words come from its numbers, its figures are drawn, its lines are there."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from salience.core.record import CompareRecord, load_results
from salience.lab.report import write_report
from salience.lab.report.compare.page_content import compare_content


def document() -> dict[str, Any]:
    """Made-up numbers that measure nothing: two directions, two seeds, three epochs."""
    final = {"mamba": 0.7, "bimamba": 0.95}
    rows = [
        {
            "model": model, "seed": seed, "epoch": epoch, "train_loss": 2 / epoch, "test_loss": 2.1 / epoch,
            "test_accuracy": accuracy - 0.1 * (3 - epoch) + 0.01 * seed, "parameters": 1234, "train_tokens_per_s": 9e3,
        }
        for model, accuracy in final.items() for seed in (0, 1) for epoch in (1, 2, 3)
    ]  # fmt: skip
    about = {"parameters": 1234, "d_model": 8, "n_layers": 2, "train_tokens_per_s": 9e3, "seeds": 2, "diverged": 0}
    record = {
        "kind": "compare", "rows": rows,
        "config": {"task": "digit-tagging", "length": 140, "majority_accuracy": 0.11, "chance_accuracy": 0.1,
                   "epochs": 3, "seeds": 2},
        "final": [{"model": model, "pattern": "M" if model == "mamba" else "B", "forwards": model == "mamba",
                   "accuracy": value, "accuracy_low": value - 0.02, "accuracy_high": value + 0.02, **about}
                  for model, value in final.items()],
        "tests": [{"first": "mamba", "second": "bimamba", "difference": -0.25, "low": -0.27, "high": -0.23,
                   "p_holm": 1e-12, "seeds_agree": True}],
        "throughput": [{"model": model, "length": length, "tokens_per_s": 1e5, "peak_bytes": 1e6}
                       for model in final for length in (256, 512)],
        "control": [{"model": "mamba", "accuracy": 0.5, "accuracy_low": 0.48, "accuracy_high": 0.52}],
        "diverged": [{"model": "mamba", "seed": 1, "said": "training diverged at step 3."}], "longer": [],
    }  # fmt: skip
    return {"schema": 1, "environment": {}, "records": [record]}


def content(found: dict[str, Any], folder: Path) -> SimpleNamespace:
    (record,) = load_results(found, folder).of_kind(CompareRecord)
    return SimpleNamespace(**compare_content(record, folder, 0))


def test_words_come_from_numbers(tmp_path: Path) -> None:
    found = content(document(), tmp_path)
    assert found.headline == "Reading both ways gains 25 points on digit-tagging"
    assert found.summary.startswith("Accuracy after the last epoch: bimamba 0.950, mamba 0.700. Always giving")
    assert found.pair_title == "Training loss and test accuracy, causal and non-causal, 3 epochs"
    assert found.pair_caption.startswith(
        "Causal: mamba; non-causal: bimamba. Training ends at a loss of 0.67 nats with bimamba and 0.67 with mamba."
    )
    assert found.tests == ["bimamba is ahead of mamba by 25 points (95% interval 23.0 to 27.0, p below 0.001)."]
    assert [finding.lead for finding in found.cautions] == ["A training diverged."]
    assert found.cautions[0].text == "mamba, seed 1: training diverged at step 3."


@pytest.mark.parametrize(
    ("accuracy", "low", "tone", "said"),
    [(0.5, 0.48, "bad", "stay above the majority line of 0.110: mamba 0.500."),
     (0.12, 0.1, "good", "mamba 0.120 (majority 0.110)"),
     (0.16, 0.105, "good", "mamba 0.160")],
)  # fmt: skip
def test_a_control_that_falls_to_the_majority_has_passed(
    tmp_path: Path, accuracy: float, low: float, tone: str, said: str
) -> None:
    given = document()
    given["records"][0]["control"] = [{"model": "mamba", "accuracy": accuracy, "accuracy_low": low}]
    (finding,) = content(given, tmp_path).controls
    assert finding.tone == tone and said in finding.text and ("passes" in finding.lead) == (tone == "good")


def test_a_control_passes_for_all_models_or_fails(tmp_path: Path) -> None:
    given = document()
    given["records"][0]["control"].append({"model": "bimamba", "accuracy": 0.12, "accuracy_low": 0.1})
    (finding,) = content(given, tmp_path).controls
    assert finding.lead == "The control with shuffled labels fails: something leaks."
    assert finding.text.endswith("Fallen to it: bimamba 0.120.")


def test_a_direction_that_nothing_was_learnt_from_makes_no_headline(tmp_path: Path) -> None:
    given = document()
    record = given["records"][0]
    record["tests"][0] |= {"difference": -0.02, "low": -0.03, "high": -0.01}
    for line, accuracy in zip(record["final"], (0.11, 0.13), strict=True):
        line["accuracy"] = accuracy
    found = content(given, tmp_path)
    assert found.headline == "Sequence models under identical training: digit-tagging"
    assert [finding.lead for finding in found.cautions][1:] == [
        f"{model} ends within 5 points of the majority line." for model in ("mamba", "bimamba")
    ]


@pytest.mark.parametrize(
    ("second", "headline"),
    [(0.1, "Reading both ways gains 25 points and 10 points on digit-tagging"),
     (-0.1, "The gain of reading both ways on digit-tagging depends on the model")],
)  # fmt: skip
def test_two_pairs_of_directions_speak_for_both_only_where_they_agree(
    tmp_path: Path, second: float, headline: str
) -> None:
    given = document()
    record = given["records"][0]
    names = ("transformer", "transformer:noncausal")
    record["final"] += [{**record["final"][0], "model": name, "pattern": "A", "forwards": name == names[0],
                         "accuracy": 0.6 + second * (name != names[0])} for name in names]  # fmt: skip
    record["rows"] += [{**record["rows"][0], "model": name} for name in names]
    line = {"first": names[0], "second": names[1], "difference": -second, "low": -second - 0.02, "high": -second + 0.02}
    record["tests"].append({**line, "p_holm": 1e-9, "seeds_agree": True})
    assert content(given, tmp_path).headline == headline


def test_a_pair_with_a_seed_that_diverged_says_what_was_compared(tmp_path: Path) -> None:
    given = document()
    given["records"][0]["tests"][0]["seeds"] = 1
    assert content(given, tmp_path).tests[0].endswith("Compared on 1 of the seeds.")


def test_what_is_as_fast_is_not_ahead(tmp_path: Path) -> None:
    given = document()
    record = given["records"][0]
    record["final"] += [{"model": "transformer", "pattern": "A", "forwards": True}]
    record["rows"] += [{**record["rows"][0], "model": "transformer"}]
    record["throughput"] += [{"model": "transformer", "length": length, "tokens_per_s": 0.98e5, "peak_bytes": None}
                             for length in (256, 512)]  # fmt: skip
    line = next(line for line in content(given, tmp_path).crossings if line.startswith("mamba"))
    assert line.startswith("mamba does not overtake transformer in speed")


def test_a_quick_comparison_concludes_nothing(tmp_path: Path) -> None:
    given = document()
    given["records"][0]["config"]["quick"] = True
    found = content(given, tmp_path)
    assert found.headline == "Quick run: sequence models under identical training: digit-tagging"
    assert "quick run" in found.notices[0]
    assert not (found.summary or found.tests or found.crossings or found.controls)
    assert [finding.lead for finding in found.cautions] == ["A training diverged."]
    page = write_report(given, tmp_path).read_text()
    assert "<title>Quick run: " in page and "is ahead of" not in page and " gains " not in page


def test_a_busy_machine_is_told_of_and_tells_no_speed(tmp_path: Path) -> None:
    given = document()
    given["environment"] = {"busy_because": "The load average was 9.0 at the start of the run, on 2 cores."}
    record = given["records"][0]
    record["final"].append({"model": "transformer", "pattern": "A", "forwards": True})
    record["rows"].append({**record["rows"][0], "model": "transformer"})
    record["throughput"] += [{"model": "transformer", "length": length, "tokens_per_s": 1e4, "peak_bytes": 2e6}
                             for length in (256, 512)]  # fmt: skip
    page = write_report(given, tmp_path).read_text()
    assert "<title>Busy machine: " in page and "load average was 9.0" in page
    assert "in memory at every length" in page and "in speed" not in page


def test_a_difference_that_its_interval_does_not_bear_out_is_none(tmp_path: Path) -> None:
    given = document()
    given["records"][0]["tests"][0] |= {"difference": 0.004, "low": -0.012, "high": 0.02, "p_holm": 0.01}
    found = content(given, tmp_path)
    assert found.headline == "Reading both ways makes no measurable difference on digit-tagging"
    (line,) = found.tests
    assert line.startswith(
        "mamba and bimamba are not measurably different: 0.4 points (95% interval \u22121.2 to 2.0, p = 0.010)"
    )


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (
            (5, 8, 12),
            "MMMA overtakes transformer in speed between 512 and 1,024 steps; at 1,024 it is 1.2\u00d7 as fast.",
        ),
        ((5, 12, 8), "MMMA is ahead of transformer in speed at 512 steps, but not beyond; at 1,024 it is 0.80\u00d7"),
        ((5, 6, 8), "MMMA does not overtake transformer in speed within the lengths measured, 256 to 1,024 steps; at"),
        ((11, 20, 30), "MMMA is ahead of transformer in speed at every length measured, 256 to 1,024 steps; at 1,024"),
    ],
)
def test_crossings_in_words(tmp_path: Path, rates: tuple[float, ...], said: str) -> None:
    given = document()
    record = given["records"][0]
    record["final"] += [{"model": name, "pattern": pattern, "forwards": True} for name, pattern in
                        (("MMMA", "MMMA"), ("transformer", "A"))]  # fmt: skip
    record["rows"] += [{**record["rows"][0], "model": name} for name in ("MMMA", "transformer")]
    record["throughput"] = [
        {"model": name, "length": length, "tokens_per_s": rate, "peak_bytes": None}
        for name, each in (("MMMA", rates), ("transformer", (10, 10, 10)))
        for length, rate in zip((256, 512, 1024), each, strict=True)
    ]
    assert next(line for line in content(given, tmp_path).crossings if line.startswith("MMMA")).startswith(said)


def test_widths_that_were_matched_tell_the_rest(tmp_path: Path) -> None:
    given = document()
    given["records"][0]["config"]["parameters_target"] = 1200
    note = content(given, tmp_path).final_note
    assert note.endswith("The furthest from it is mamba at width 8 with 1,234, 2.8% more.")


def test_figures_have_the_lines_of_no_knowledge(tmp_path: Path) -> None:
    given = document()
    given["records"][0]["rows"].append({**given["records"][0]["rows"][0], "model": "s4d"})
    page = write_report(given, tmp_path).read_text()
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    drawn = ("pair_train_loss", "pair_test_accuracy", "train_loss", "test_accuracy", "throughput", "memory")
    assert names == {f"compare_{name}.{end}" for name in drawn for end in ("svg", "png")}
    assert "majority 0.11" in page and "chance 0.10" in page
    assert "majority" not in (tmp_path / "figures" / "compare_train_loss.svg").read_text()
    assert "s4d" not in (tmp_path / "figures" / "compare_pair_test_accuracy.svg").read_text()


def test_two_models_that_are_the_pair_are_drawn_once(tmp_path: Path) -> None:
    found = content(document(), tmp_path)
    assert [figure.name for figure in found.pair_figures] == ["compare_pair_train_loss", "compare_pair_test_accuracy"]
    assert not found.figures and "non-causal" in found.pair_figures[1].svg


def test_no_number_has_a_hyphen_for_a_minus(tmp_path: Path) -> None:
    given = document()
    given["records"][0]["tests"][0] |= {"difference": -0.004, "low": -0.02, "high": 0.012, "p_holm": 1.0}
    given["records"][0]["config"]["precision"] = -0.5
    page = write_report(given, tmp_path).read_text()
    words = re.sub(r"<(style|script|svg).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "\u22121.2" in words and "\u22120.5" in words
    assert not re.findall(r"(?<![\w-])-\d", words)
