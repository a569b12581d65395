"""Comparisons of sequence models: the tests' arithmetic by hand, the record's form, and a stop that changes nothing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from salience.core import record
from salience.core.record import CompareRecord
from salience.core.result_rows import ROW_COLUMNS, CompareRow
from salience.lab.compare.config import CompareConfig, read_model
from salience.lab.compare.metrics import accuracy_interval, compare_pairs, holm, sign_flip
from salience.lab.compare.run import compare

SMALL = CompareConfig(
    task="digits49:train=64,test=40", models=("mamba", "bimamba"), seeds=2, epochs=2, width=8, control=True,
    lengths=(32, 64), rounds=1, batch=16,
)  # fmt: skip


class _KilledError(BaseException):
    """Nothing in the library catches this, as nothing catches kill -9."""


def numbers(found: CompareRecord) -> list[CompareRow]:
    return [replace(row, train_tokens_per_s=None) for row in found.rows]


def test_a_record_has_a_row_for_every_epoch_and_a_stop_changes_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(SMALL, quiet=True)
    record.validate(record.document([whole]))
    keys = [(row.model, row.seed, row.epoch) for row in whole.rows]
    assert keys == list(itertools.product(("mamba", "bimamba"), (0, 1), (1, 2)))
    assert all(set(ROW_COLUMNS["compare"]) <= set(row) for row in whole.to_json()["rows"])
    assert [line.forwards for line in whole.final] == [True, False]
    assert [(line.first, line.second) for line in whole.tests] == [("mamba", "bimamba")]
    assert {line.model for line in whole.control} == {"mamba", "bimamba"}
    assert len(whole.throughput) == 4 and all(line.peak_bytes for line in whole.throughput)
    calls, inner = [0], torch.optim.AdamW.step

    def stopping(self: Any, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 17:  # in the middle of the second fit
            raise _KilledError
        return inner(self, *args)

    with monkeypatch.context() as patched, pytest.raises(_KilledError):
        patched.setattr(torch.optim.AdamW, "step", stopping)
        compare(SMALL, out=tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished"]
    again = compare(SMALL, out=tmp_path, quiet=True)
    assert numbers(again) == numbers(whole) and again.tests == whole.tests


def test_the_sign_flip_test_is_exact() -> None:
    difference = np.array([3, -1, 0, 2, 2, -1, 1])
    sizes = np.abs(difference)
    sums = [abs(sum(s * d for s, d in zip(signs, sizes, strict=True)))
            for signs in itertools.product((-1, 1), repeat=7)]  # fmt: skip
    by_hand = np.mean([total >= abs(difference.sum()) for total in sums])
    assert sign_flip(difference) == pytest.approx(by_hand, abs=1e-12)  # float64 rounding of a Fourier transform
    assert sign_flip(np.zeros(4, dtype=np.int64)) == 1.0


def test_corrections_and_intervals() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    right, asked = np.array([[1] * 80 + [0] * 20]), np.ones(100, dtype=np.int64)
    low, high = accuracy_interval(right, asked)
    assert low == pytest.approx(0.72, abs=0.02) and high == pytest.approx(0.88, abs=0.02)  # .8 +- 1.96 * .04
    worse = np.array([[1] * 40 + [0] * 60])
    (line,) = compare_pairs({"a": right, "b": worse}, asked)
    assert line.difference == pytest.approx(0.4) and line.p is not None and line.p < 1e-6 and line.seeds_agree


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"models": ("mambo",)}, "did you mean mamba"),
        ({"models": ("MXA",)}, "unknown letter 'X'"),
        ({"models": ("mamba:noncausal",)}, "has no layer that could read both ways"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1, not 0"),
        ({"models": ("hybrid",), "n_layers": 2}, "which would be cut"),
        ({"rates": (0.0,)}, "rates must be one or more numbers above 0"),
    ],
)
def test_bad_configurations_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CompareConfig(**given)


def test_models_are_read() -> None:
    assert read_model("hybrid").pattern == "MMMA" and read_model("hybrid").forwards
    assert not read_model("B").forwards and not read_model("transformer:noncausal").forwards
    assert CompareConfig(models=("mamba", "hybrid")).layers == 4


def test_a_length_beyond_memory_is_refused_with_an_estimate() -> None:
    with pytest.raises(ValueError, match=r"would take about [\d,.]+ GiB.*are free"):
        compare(CompareConfig(task="copying:length=1000000", models=("mamba",)), quiet=True)
