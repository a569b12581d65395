"""The whole path on a tiny random model: rows for everything, and a killed run that ends with the same quality."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from salience.core import record
from salience.core.result_rows import KINDS, ROW_COLUMNS, TRADEOFF_COSTS, TRADEOFF_QUALITY
from salience.lab.compare.config import CompareConfig
from salience.lab.fit.config import FitConfig
from salience.lab.result_cache import FOLDER, ResultCache
from salience.lab.study import run as study
from salience.lab.study.config import StudyConfig
from salience.lab.tradeoff import measurements
from salience.lab.tradeoff.config import DEFAULT_METHODS, WITHOUT_BOXES, TradeoffConfig

SMALL = StudyConfig(
    fit=FitConfig(pictures=6, validation=3, questions=3, steps=6, batch=3, seed=10, hidden=8),
    tradeoff=TradeoffConfig(
        keeps=(0.25, 0.1), pictures=4, questions=3, probe_pictures=6, ceiling_pictures=2, control_pictures=2, draws=2,
        untrained=1, repeats=1, examples=2,
    ),
    compare=(CompareConfig(task="digits49:train=32,test=16", models=("mamba", "bimamba"), seeds=1, epochs=1, width=8,
                           lengths=(32,), rounds=1),),
)  # fmt: skip


class Killed(BaseException):
    """Nothing in the library catches this, as nothing catches kill -9."""


@pytest.fixture(scope="module")
def run(tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]) -> Callable[..., Path]:
    model, processor = tiny_llava(84), tiny_processor(84)
    return lambda out, config=SMALL: study.run(out, config=config, model=model, processor=processor, quiet=True)


@pytest.fixture(scope="module")
def finished(run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("study"))


def test_the_strongest_training_free_methods_are_in_every_default_comparison(finished: Path) -> None:
    named = {"divprune", "vispruner", "visionzip", "cls-attention", "uniform", "random"}
    assert named <= set(record.read(finished)["records"][0]["config"]["methods"])
    assert named <= set(WITHOUT_BOXES)


def test_every_method_has_a_row_at_every_ratio(finished: Path) -> None:
    found = record.read(finished)["records"][0]
    assert found["kind"] == "tradeoff" and set(found["config"]["methods"]) == set(DEFAULT_METHODS)
    for method in DEFAULT_METHODS:
        seeds = {row["seed"] for row in found["rows"] if row["method"] == method}
        assert len(seeds) == (2 if method == "random" else 1)
        for seed in seeds:
            mine = [row for row in found["rows"] if (row["method"], row["seed"]) == (method, seed)]
            assert [(row["keep"], row["tokens_kept"]) for row in mine] == [(1.0, 36), (0.25, 9), (0.1, 4)]
    for row in found["rows"]:
        assert list(row)[: len(ROW_COLUMNS["tradeoff"])] == list(ROW_COLUMNS["tradeoff"])
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        stages = ("encode_ms", "select_ms", "project_ms", "prefill_ms")
        assert row["first_token_ms"] == pytest.approx(sum(row[stage] for stage in stages))
        assert all(row[column] is not None and row[column] > 0 for column in TRADEOFF_COSTS)
        assert row["prefill_batch4_ms"] > 0
        unmeasured = {column for column in TRADEOFF_QUALITY if row[column] is None}
        # A count is asked once a picture and relations may be missing from three questions.
        allowed = {"probe_accuracy"} if row["method"] == "oracle-question" else set()
        assert unmeasured - {f"accuracy_{kind}" for kind in KINDS} <= allowed


def test_costs_fall_with_the_tokens_and_the_scorer_counts(finished: Path) -> None:
    found = record.read(finished)["records"][0]["rows"]
    at = {(row["method"], row["keep"]): row for row in found}
    for column in TRADEOFF_COSTS[:3]:
        assert at["random", 1.0][column] > at["random", 0.25][column] > at["random", 0.1][column]
    # LayerNorm is no product; 36 tokens, 24 -> 8 -> 1.
    assert at["saliency", 0.1]["flops_scorer"] == 2 * 36 * (24 * 8 + 8)
    assert at["random", 0.1]["flops_scorer"] == 0
    for row in found:
        parts = ("flops_vision", "flops_scorer", "flops_projector", "flops_llm")
        assert row["flops_total"] == sum(row[part] for part in parts)


def test_operations_by_hand(finished: Path) -> None:
    """The language model's and the projector's operations from their shapes alone."""
    row = next(row for row in record.read(finished)["records"][0]["rows"] if row["keep"] == 0.25)
    samples = json.loads(finished.read_text())["records"][0]["config"]
    assert samples["n_visual_tokens"] == 36
    k, width, inner, vocabulary = 9, 32, 48, 51
    assert row["flops_projector"] == 2 * k * (24 * width + width * width)
    per_layer = 2 * (width * width * 2 + width * width // 2 * 2 + 3 * width * inner)  # q, o; k, v of half width; MLP
    found = {
        length: 2 * (per_layer * length + 2 * 2 * length * length * width) + 2 * width * vocabulary
        for length in range(k, k + 20)
    }
    # One length of prompt fits, and it is that of the cache: two layers, keys and values, half width, four bytes.
    (length,) = [length for length, flops in found.items() if flops == row["flops_llm"]]
    assert row["kv_bytes"] == 2 * 2 * length * (width // 2) * 4


def test_samples(finished: Path) -> None:
    examples = record.read(finished)["records"][0]["examples"]
    assert len(examples) == 2
    for example in examples:
        assert (finished.parent / example["image"]).is_file()
        assert {(cut["method"], cut["keep"]) for cut in example["cuts"]} == {
            (method, keep) for method in ("saliency", "random", "cls-attention") for keep in (0.25, 0.1)
        }
        assert all(len(cut["kept"]) == (9 if cut["keep"] == 0.25 else 4) for cut in example["cuts"])


def test_the_sequence_models_stand_beside(finished: Path) -> None:
    found = record.read(finished)["records"][1:]
    assert [(one["kind"], one["config"]["task"]) for one in found] == [("compare", "digits49:test=16,train=32")]
    assert [row["model"] for row in found[0]["rows"]] == ["mamba", "bimamba"] and not found[0]["config"]["quick"]


def test_a_finished_run_leaves_results_alone(finished: Path) -> None:
    assert sorted(path.name for path in finished.parent.iterdir()) == ["figures", "results.json", "scorer"]


def test_a_killed_run_goes_on_and_ends_with_the_same_quality(
    run: Callable[..., Path], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = measurements._measured
    seen = []

    def dying(evaluator: Any, encoded: Any, job: Any, tick: Any) -> Any:
        if len(seen) == 5:
            raise Killed
        seen.append(job.key)
        return measured(evaluator, encoded, job, tick)

    monkeypatch.setattr(measurements, "_measured", dying)
    with pytest.raises(Killed):
        run(tmp_path)
    assert not (tmp_path / "results.json").exists() and (tmp_path / FOLDER).is_dir()
    again = []
    monkeypatch.setattr(measurements, "_measured", lambda *given: (again.append(given[2].key), measured(*given))[1])
    monkeypatch.setattr(study, "distil", None)  # the fitted scorers are stored
    path = run(tmp_path)
    assert again and not set(again) & set(seen)
    columns = ("method", "keep", "seed", *TRADEOFF_QUALITY)
    quality = [
        [[row[column] for column in columns] for row in record.read(file)["records"][0]["rows"]]
        for file in (finished, path)
    ]
    assert quality[0] == quality[1]
    rates = ("train_tokens_per_s",)
    learnt = [
        [
            {name: value for name, value in row.items() if name not in rates}
            for row in record.read(file)["records"][1]["rows"]
        ]
        for file in (finished, path)
    ]
    assert learnt[0] == learnt[1]


def test_results_of_another_configuration_are_not_taken(tmp_path: Path) -> None:
    assert ResultCache(tmp_path, {"seed": 0}).get("a", lambda: [1.5]) == [1.5]
    same = ResultCache(tmp_path, {"seed": 0})
    assert same.resumed and same.get("a", lambda: pytest.fail("it is stored")) == [1.5]
    other = ResultCache(tmp_path, {"seed": 1})
    assert not other.resumed and other.get("a", lambda: [2.5]) == [2.5]
    other.finish()
    assert list(tmp_path.iterdir()) == []
    assert ResultCache(None, {}).get("a", lambda: 3) == 3


@pytest.mark.parametrize("keep", [0.0, 1.2, float("nan"), -1.0])
def test_bad_ratios(keep: float) -> None:
    with pytest.raises(ValueError, match="keeps must be numbers above 0 and at most 1"):
        TradeoffConfig(keeps=(keep,))


def test_bad_methods_and_counts() -> None:
    with pytest.raises(ValueError, match="methods must be of"):
        TradeoffConfig(methods=("luck",))
    with pytest.raises(ValueError, match="pictures must be at least 1"):
        TradeoffConfig(pictures=0)
    with pytest.raises(ValueError, match="at least one ratio"):
        TradeoffConfig(keeps=())


def test_a_scorer_asked_for_and_not_there_is_refused(
    tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]
) -> None:
    from salience.lab.tradeoff import run as tradeoff

    config = replace(SMALL.tradeoff, methods=("saliency",))
    with pytest.raises(ValueError, match="salience fit"):
        tradeoff.run(tiny_llava(84), config, processor=tiny_processor(84), scorers={}, quiet=True)
