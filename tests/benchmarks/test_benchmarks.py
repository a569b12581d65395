"""The benchmarks run at a small size and refuse a wrong answer, and the table of docs/measured/speed.md is theirs.

Nothing here looks at a time.
"""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from salience.core.markers import filled

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a benchmark in this process and gives back its line of JSON."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def run(name: str, *options: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, *options])
        runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
        *told, line = capsys.readouterr().out.splitlines()
        found: dict[str, Any] = json.loads(line)
        assert told[0] == found["claim"]
        assert len(told) == 1 + len(found["lines"])
        return found

    return run


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("floor", []),
        ("scan_forward", ["--length", "16"]),
        ("conv", ["--length", "16"]),
        ("scan_dtypes", ["--length", "16"]),
        ("mamba_forward", ["--length", "8", "--layers", "1"]),
        ("mamba_decode", ["--tokens", "2", "--layers", "1"]),
        ("import_time", []),
    ],
)
def test_a_claim_is_checked_and_measured(name: str, options: list[str], bench: Run) -> None:
    found = bench(name, *options, "--rounds", "1")
    assert found["environment"]["torch"] == torch.__version__
    assert all(value > 0 for value in found["measured"].values())


def test_the_claim_about_length(bench: Run) -> None:
    found = bench("scan_length", "--channels", "16", "--rounds", "1")
    assert len(found["measured"]["ns_per_token"]) == 7


def test_the_claim_about_selection(bench: Run) -> None:
    narrow = ("--rounds", "1", "--rounds-wide", "1", "--layers", "1", "--width", "128")
    found = bench("selection_overhead", *narrow)["measured"]
    prefill = found["flops_7b"]["prefill"]
    # the counted columns alone, at one of 7B's 32 layers: even so a score costs less than 3 % of prefill
    assert 0 < found["flops_7b"]["cls-attention"] < found["flops_7b"]["saliency"] < 0.03 * prefill
    assert found["ms_bundled"].keys() == found["ms_7b_widths"].keys()


def test_the_claim_about_pruned_prefill(bench: Run) -> None:
    small = ("--rounds", "1", "--rounds-of-four", "1", "--layers", "1", "--width", "256")
    for one in bench("pruned_prefill", *small)["measured"].values():
        for pictures in ("1", "4"):  # between linear and square in 640 over 208 tokens
            assert 1 < one[pictures]["by_causal_flops"] < one[pictures]["by_flops"] < 9
        assert one["1"]["by_flops"] == pytest.approx(one["4"]["by_flops"], rel=1e-3)  # four of everything
        assert max(one["peak"].values()) < 1  # never above unpruned


@pytest.mark.skipif(find_spec("mambapy") is None, reason="needs the extra `peers`, which `make bench` installs")
@pytest.mark.parametrize("name", ["scan_training", "training_memory"])
def test_the_claims_beside_mambapy(name: str, bench: Run) -> None:
    options = [] if name == "training_memory" else ["--rounds", "1"]
    found = bench(name, "--length", "16", *options)
    assert {"salience", "mambapy"} <= {key.removesuffix("_mb") for key in found["measured"]}


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_its_claim_is_unmeasured(bench: Run) -> None:
    assert bench("scan_gpu")["lines"] == [["on a GPU", "unmeasured: no GPU"]]


def test_a_peer_that_is_missing_is_named(bench: Run, capsys: pytest.CaptureFixture[str]) -> None:
    import harness

    with pytest.raises(SystemExit) as stopped:
        harness.peer("a_peer_nobody_has.part")
    assert stopped.value.code == 2
    assert "a_peer_nobody_has: pip install" in capsys.readouterr().err


def test_no_speed_is_told_of_a_wrong_answer(bench: Run) -> None:
    import harness

    one = torch.ones(3)
    harness.refuse_unless_close("it", one, one + 1e-6, within=1e-5)
    for wrong in (one + 1e-3, one * float("nan")):
        with pytest.raises(SystemExit, match="nothing is measured"):
            harness.refuse_unless_close("it", wrong, one, within=1e-5)


def test_every_claim_is_run_by_make_bench(bench: Run) -> None:
    import run

    claims = {
        path.stem for path in BENCHMARKS.glob("*.py") if "from harness import" in path.read_text(encoding="utf-8")
    }
    assert claims == set(run.CLAIMS)


def test_the_page_s_table_is_what_the_results_say(bench: Run) -> None:
    import run

    page = (ROOT / "docs" / "measured" / "speed.md").read_text(encoding="utf-8")
    named = re.search(r"\((\.\./\.\./(benchmarks/results/[^)]+\.json))\)", page.split(run.BEGIN)[1].split(run.END)[0])
    assert named is not None, "the table names no results file"
    found = json.loads((ROOT / named[2]).read_text(encoding="utf-8"))
    assert filled(page, run.BEGIN, run.END, run.table(found, named[2], named[1])) == page
