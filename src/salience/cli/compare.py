"""`salience compare`: sequence models under identical training."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from salience.cli.options import require_folder, shared_options, stdout_for_results, typed
from salience.cli.results import finish, present

_COUNT = click.IntRange(min=1)
_QUICK = {"epochs": 1, "seeds": 1, "width": 16}  # at most


@click.command()
@click.option("--task", default="digit-tagging", show_default=True, metavar="T", help="Of --list, with its options.")
@click.option(
    "--models", default="mamba,bimamba,transformer", show_default=True, metavar="A,B,...",
    help="Names of --list or patterns of letters, such as MMMA.",
)  # fmt: skip
@click.option("--seeds", type=int, default=3, show_default=True, help="Fits of every model.")
@click.option("--epochs", type=int, default=5, show_default=True, help="Passes over the training data.")
@click.option("--width", type=int, default=64, show_default=True, help="Width of every model.")
@click.option("--layers", type=int, default=0, help="Of every model.  [default: 2, or the longest pattern's]")
@click.option("--parameters", type=int, default=0, help="Choose each width to come nearest to so many parameters.")
@click.option("--batch", type=int, default=32, show_default=True, help="Sequences a step.")
@click.option(
    "--lr", "rates", multiple=True, type=float,
    help="Repeatable: of several each model's is chosen on validation data.  [default: .004]",
)  # fmt: skip
@click.option("--control", is_flag=True, help="Also train on shuffled labels, which must end at the majority line.")
@click.option("--no-timing", is_flag=True, help="Leave out inference speed and memory against length.")
@click.option("--processes", type=_COUNT, default=None, help="Fits at the same time.  [default: one a core]")
@click.option("--threads", type=_COUNT, default=None, help="Of each fit.  [default: the cores, shared out]")
@click.option("--list", "listed", is_flag=True, help="Print the tasks and the models, and end.")
@click.option("--quick", is_flag=True, help="Few examples, narrow models: to see that it works, not to measure.")
@shared_options(out="build/compare", writes="report.html, results.json and figures/")
def compare(
    task: str,
    models: str,
    seeds: int,
    epochs: int,
    width: int,
    layers: int,
    parameters: int,
    batch: int,
    rates: Sequence[float],
    control: bool,
    no_timing: bool,
    processes: int | None,
    threads: int | None,
    listed: bool,
    quick: bool,
    out: Path,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Train sequence models on one task with the same budget, and show what each reaches and costs.

    Same batches, order, schedule and clipping for all. A run that was killed goes on where it stopped. Under
    `accelerate launch -m salience compare ...` several processes, each with its GPU, share every batch.

    \b
    Example:
      salience compare --task digit-tagging --models mamba,bimamba,MMMA --seeds 3 --epochs 5 --out build/compare
    """
    if listed:
        click.echo(_listed())
        return
    with stdout_for_results(as_json):
        config = _config(
            quick, task=task, models=tuple(models.split(",")), seeds=seeds, epochs=epochs, width=width,
            n_layers=layers, parameters=parameters, batch=batch, rates=tuple(rates) or (4e-3,), control=control,
            seed=seed, no_timing=no_timing, processes=processes, threads=threads, device=device,
        )  # fmt: skip
        results = _measured(config, out, device, {"command": typed("out", "as_json"), "quick": quick})
    if results is None:
        return
    report = finish(results, as_json=as_json)
    present(results, report, as_json=as_json)


def _listed() -> str:
    from salience.lab.compare.config import LETTERS, MODELS
    from salience.lab.data.sequences import PATH_TASKS, TASKS

    tasks = {**{name: about for name, (_, about) in TASKS.items()},
             **{f"{name}:PATH": about for name, (_, about) in PATH_TASKS.items()}}  # fmt: skip
    lines = ["Tasks (options behind a colon, as in selective-copying:tokens=16,length=4096)"]
    lines += [f"  {name:<18} {about}" for name, about in tasks.items()]
    lines += ["", "Models"]
    lines += [f"  {name:<18} {about}" for name, about in MODELS.items()]
    lines += ["", "Letters of a pattern, a layer each, repeated: " + ", ".join(f"{k} {v}" for k, v in LETTERS.items())]
    return "\n".join([*lines, "  transformer:noncausal, AL:noncausal, ...: attention and LSTM that read both ways"])


def _config(
    quick: bool, *, task: str, no_timing: bool, processes: int | None, threads: int | None, device: str, **given: Any
) -> Any:  # fmt: skip
    """What was asked for; `quick` makes it small. Raises: ValueError for what can't be."""
    from salience.core.backend import resolve_device
    from salience.lab.compare.config import LENGTHS, CompareConfig

    small = {**{name: min(given[name], most) for name, most in _QUICK.items()}, "rounds": 1}
    cores = os.cpu_count() or 1
    on_cpu = resolve_device(device).type == "cpu"
    count = processes or (1 if quick or not on_cpu else min(cores, max(1, given["seeds"]) * len(given["models"])))
    lengths = () if no_timing else LENGTHS[:1] if quick else LENGTHS
    return CompareConfig(
        task=_small(task) if quick else task, lengths=lengths, processes=count,
        threads=threads or (max(1, cores // count) if on_cpu else 0), **(given | small if quick else given),
    )  # fmt: skip


def _small(task: str) -> str:
    """The task with few examples, where it knows such options and none are given."""
    stored = dict.fromkeys(("smnist", "psmnist", "digits49", "fashion", "listops"), "train=64,test=32")
    made = dict.fromkeys(("digit-tagging", "copying", "selective-copying"), "epoch=64,test=32")
    options = {**stored, **made, "induction": "epoch=64,test=32,longest=512"}.get(task)
    return task if options is None else f"{task}:{options}"


def _measured(config: Any, out: Path, device: str, about: dict[str, Any]) -> Path | None:
    """Run, write results.json, and only then forget the finished fits. Returns: the document's path; None in a process
    beside the one that writes.

    about: what the record's config says besides
    """
    from salience.core.backend import resolve_device
    from salience.core.record import document, write
    from salience.lab.compare.memory_estimate import require_memory
    from salience.lab.compare.run import compare as run
    from salience.lab.data.sequences import load
    from salience.lab.data_parallel import process_group
    from salience.lab.profile.machine_load import Machine
    from salience.lab.result_cache import FOLDER

    task = load(config.task, seed=config.seed)
    require_memory(config, task, str(resolve_device(device)))  # what can't be is told before a folder is made
    require_folder(out)
    machine = Machine()
    record = run(config, out=out, device=device)
    if not process_group(resolve_device(device)).first:
        return None
    record["config"] |= about
    found = document([record], device=str(resolve_device(device)), machine=machine.observed())
    path = write(out / "results.json", found)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return path
