"""A trade-off on scenes that several processes share: the record of one, however many there are."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from salience.lab.data_parallel import ProcessGroup
from salience.lab.result_cache import FOLDER
from salience.lab.tradeoff import costs
from salience.lab.tradeoff import run as tradeoff

CONFIG = tradeoff.TradeoffConfig(
    methods=("random", "oracle-question", "pyramiddrop"), keeps=(0.5, 0.1), pictures=3, questions=4, probe_pictures=4,
    ceiling_pictures=2, control_pictures=2, draws=2, repeats=1, examples=1, save_pictures=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_llava: Callable[..., Any]) -> Any:
    """Weights so large that a share of the tokens changes what is said."""
    found = tiny_llava(84)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(9)
    return found


def untimed(record: Any) -> Any:
    rows = [{name: value for name, value in row.items() if "_ms" not in name} for row in record["rows"]]
    return {**record, "rows": rows}


def test_the_record_of_one(
    model: Any, tiny_processor: Callable[[int], Any], by_threads: Callable[..., list[Any]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    own, timed = threading.local(), []
    monkeypatch.setattr(tradeoff, "process_group", lambda device: getattr(own, "group", ProcessGroup(device)))
    measure = costs.measure_costs
    monkeypatch.setattr(costs, "measure_costs", lambda *a, **k: (timed.append(own.group.index), measure(*a, **k))[1])

    def run(group: ProcessGroup, out: Path) -> Any:
        own.group = group
        return tradeoff.run(copy.deepcopy(model), CONFIG, processor=tiny_processor(84), out=out, quiet=True).to_json()

    one = run(ProcessGroup("cpu"), tmp_path / "one")
    found = by_threads(2, lambda group: run(group, tmp_path / "two"))
    assert found[0] == found[1] and untimed(found[0]) == untimed(one)
    assert timed == [0, 0]  # by the first process alone
    assert len({row["answer_kl"] for row in one["rows"]}) > 5  # it could have come out otherwise
    stored = tmp_path / "two" / FOLDER
    for result in list(stored.glob("*0.5*.result.json")):  # as a run leaves it that is killed
        result.unlink()
    assert by_threads(3, lambda group: run(group, tmp_path / "two")) == [found[0]] * 3  # times, too, are read back
