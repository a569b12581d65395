"""Several processes at one fit: the same numbers as one, to rounding; one alone needs nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from salience.lab.data_parallel import LaunchedGroup, ProcessGroup, process_group

pytest.importorskip("accelerate")


def compare(out: Path, processes: int) -> list[str]:
    """What each process of one `salience compare` printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "salience", "compare", "--task", "digits49", "--models", "s5,M", "--quick",
               "--no-timing", "--device", "cpu", "--json", "--out", str(out)]  # fmt: skip
    started = []
    for rank in map(str, range(processes)):
        own = os.environ | (told | {"RANK": rank, "LOCAL_RANK": rank} if processes > 1 else {})
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own))
    printed = [process.communicate(timeout=600)[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    return printed


def test_two_processes_come_to_what_one_comes_to(tmp_path: Path) -> None:
    (one,) = compare(tmp_path / "one", 1)
    two, nothing = compare(tmp_path / "two", 2)
    assert nothing == "" and sorted(p.name for p in (tmp_path / "two").iterdir()) == [
        "figures", "report.html", "results.json",
    ]  # fmt: skip
    rows = [json.loads(text)["records"][0]["rows"] for text in (one, two)]
    assert len(rows[0]) == len(rows[1]) == 2
    for ours, theirs in zip(*rows, strict=True):
        assert ours["model"] == theirs["model"]
        for name in ("train_loss", "test_loss", "test_accuracy"):
            # gradients summed in another order, over three steps of AdamW
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4)


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = process_group("cpu")
    assert type(group) is ProcessGroup and group.first and group.total(3, 0.1) == (3, 0.1)
    assert torch.equal(group.part(torch.arange(5)), torch.arange(5))


def test_each_process_takes_its_part() -> None:
    group = LaunchedGroup.__new__(LaunchedGroup)
    group.count = 3
    parts = []
    for group.index in range(3):
        parts.append(group.part(torch.arange(7)))
        assert torch.equal(group.part(torch.arange(2)), torch.arange(2))  # too few to deal out
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(7))


def test_without_accelerate_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ModuleNotFoundError, match="pip install accelerate"):
        process_group("cpu")
