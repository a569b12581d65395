"""`salience tradeoff` by two processes that talk through accelerate: the results of one, and nothing left over."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from salience.lab.evaluate import generate_evaluator

from .conftest import Ran

pytest.importorskip("accelerate")

#: What each process does: a command line, two pictures a part.
DRIVER = """
import sys
from salience.cli.main import run
from salience.lab.evaluate import generate_evaluator
generate_evaluator.PART = 2
sys.exit(run(sys.argv[1:]))
"""
TIMES = ("_ms", "_ms_per_token")


@pytest.fixture(scope="module")
def telling(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with weights so large that it says different things of different pictures."""
    from transformers import LlavaForConditionalGeneration

    folder = tmp_path_factory.mktemp("telling") / "model"
    shutil.copytree(tiny_vlm, folder)
    model = LlavaForConditionalGeneration.from_pretrained(tiny_vlm)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(9)
    model.save_pretrained(folder)
    return folder


def questions(root: Path, noise: Callable[..., Any]) -> Path:
    """Five pictures of a person's own, two questions each."""
    rows = []
    for number in range(5):
        noise(number, (84, 84)).save(root / f"{number}.png")
        row = {
            "image": f"{number}.png",
            "question": "which digit is red ?",
            "answer": "7",
            "choices": ["7", "no", "red"],
        }
        rows += [row, {**row, "question": "how many digits are there ?", "answer": "no"}]
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def launch(*command: str | Path) -> list[subprocess.Popen[str]]:
    """Two processes as `accelerate launch` starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    told["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # sums in the order that this process has
    line = [sys.executable, "-c", DRIVER, *map(str, command)]
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    return [
        subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ | told | rank) for rank in ranks
    ]  # fmt: skip


def results(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record without its times, and the times of every row."""
    (record,) = json.loads((out / "results.json").read_text())["records"]
    times = [{name: row.pop(name) for name in list(row) if name.endswith(TIMES)} for row in record["rows"]]
    return record, times


def test_two_processes_come_to_what_one_comes_to(
    salience: Callable[..., Ran], telling: Path, noise: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(generate_evaluator, "PART", 2)
    (tmp_path / "own").mkdir()
    task = f"vqa:{questions(tmp_path / 'own', noise)}"
    base = ("tradeoff", "--device", "cpu", "--model", telling, "--quick", "--keep", ".5,.1", "--task", task,
            "--methods", "uniform,pyramiddrop", "--save-pictures", "1", "--json", "--out")  # fmt: skip
    processes = launch(*base, tmp_path / "two")
    assert salience(*base, tmp_path / "one").code == 0
    first, second = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert second == "" and json.loads(first) == json.loads((tmp_path / "two" / "results.json").read_text())
    (one, _), (two, times) = results(tmp_path / "one"), results(tmp_path / "two")
    assert one == two
    assert len({row["loglikelihood_accuracy"] for row in one["rows"]}) > 3  # it could have come out otherwise
    assert all(row["first_token_ms"] > 0 for row in times)
    left = [{path.name for path in (tmp_path / count).iterdir()} for count in ("one", "two")]
    assert left == [{"figures", "pictures", "report.html", "results.json"}] * 2
