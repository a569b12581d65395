"""`salience compare`: sequence models under identical training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salience.cli.options import require_folder, shared_options, stdout_for_results, typed
from salience.cli.results import present, save

if TYPE_CHECKING:
    from salience.lab.compare.config import CompareConfig

_COUNT = click.IntRange(min=1)


@click.command()
@click.option("--task", default="digit-tagging", metavar="T", help="A task of --list, with options.")
@click.option(
    "--models", default="mamba,bimamba,transformer", metavar="A,B,...",
    help="Models of --list, or patterns of letters such as MMMA.",
)  # fmt: skip
@click.option("--seeds", type=int, default=3, help="Training runs of every model.")
@click.option("--epochs", type=int, default=5, help="Passes over the training data.")
@click.option("--width", type=int, default=64, help="Width of every model.")
@click.option("--layers", type=int, help="Layers of every model.  [default: 2, or the longest pattern's]")
@click.option("--parameters", type=int, help="Choose each width for about so many parameters.")
@click.option("--batch", type=int, default=32, help="Sequences a step.")
@click.option(
    "--lr", "rates", multiple=True, type=float,
    help="Learning rate. Of several, each model's own is chosen on validation data.  [default: .004]",
)  # fmt: skip
@click.option("--control", is_flag=True, help="Also train on shuffled labels, which must end at the majority accuracy.")
@click.option("--no-timing", is_flag=True, help="Do not measure inference speed and memory.")
@click.option("--processes", type=_COUNT, help="Training runs at the same time.  [default: one per core]")
@click.option("--threads", type=_COUNT, help="Threads of each run.  [default: cores / processes]")
@click.option("--list", "listed", is_flag=True, help="Print the tasks and the models, and exit.")
@click.option("--quick", is_flag=True, help="Few examples and narrow models: to see that it works, not to measure.")
@shared_options(out="build/compare", writes="report.html, results.json and figures/")
def compare(
    task: str,
    models: str,
    seeds: int,
    epochs: int,
    width: int,
    layers: int | None,
    parameters: int | None,
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
    """Train sequence models on one task with the same budget, and report quality and costs.

    All models get the same batches, order, schedule and clipping. A killed run continues where it stopped. Under
    `accelerate launch -m salience compare ...` several processes, each with its GPU, share every batch.

    \b
    Example:
      salience compare --task digit-tagging --models mamba,bimamba,MMMA --seeds 3 --epochs 5 --out build/compare
    """
    if listed:
        click.echo(_listed())
        return
    with stdout_for_results(as_json):
        from salience.lab.compare.config import LENGTHS, CompareConfig

        count, each = _processes(processes, threads, device, 1 if quick else max(1, seeds) * len(models.split(",")))
        config = CompareConfig(
            task=task, models=tuple(models.split(",")), seeds=seeds, epochs=epochs, width=width, n_layers=layers or 0,
            parameters=parameters or 0, batch=batch, rates=tuple(rates) or (4e-3,), control=control, seed=seed,
            lengths=() if no_timing else LENGTHS, processes=count, threads=each,
        )  # fmt: skip
        about = {"command": typed("out", "as_json"), "quick": quick}
        results = _measured(config.quick() if quick else config, out, device, about)
    if results is not None:
        present(results, as_json=as_json)


def _listed() -> str:
    from salience.lab.compare.config import LETTERS, MODELS
    from salience.lab.data.sequences import PATH_TASKS, TASKS

    tasks = {**{name: about for name, (_, about) in TASKS.items()},
             **{f"{name}:PATH": about for name, (_, about) in PATH_TASKS.items()}}  # fmt: skip
    lines = ["Tasks (with options: selective-copying:tokens=16,length=4096)"]
    lines += [f"  {name:<18} {about}" for name, about in tasks.items()]
    lines += ["", "Models"]
    lines += [f"  {name:<18} {about}" for name, about in MODELS.items()]
    lines += ["", "Letters of a pattern, one a layer, repeated: " + ", ".join(f"{k} {v}" for k, v in LETTERS.items())]
    return "\n".join([*lines, "  transformer:noncausal, AL:noncausal, ...: attention and LSTM that read both ways"])


def _processes(processes: int | None, threads: int | None, device: str, runs: int) -> tuple[int, int]:
    """Return processes and the threads of each: by default all cores, and one process where the device is no CPU."""
    from salience.core.backend import resolve_device

    cores, on_cpu = os.cpu_count() or 1, resolve_device(device).type == "cpu"
    count = processes or (min(cores, runs) if on_cpu else 1)
    return count, threads or (max(1, cores // count) if on_cpu else 0)


def _measured(config: CompareConfig, out: Path, device: str, about: dict[str, Any]) -> Path | None:
    """Run and write results.json. Returns the document's path; None in a process that writes none.

    about: further keys of the record's config
    """
    from salience.core.backend import resolve_device
    from salience.lab.compare.costs import require_memory
    from salience.lab.compare.run import compare as run
    from salience.lab.data.sequences import load
    from salience.lab.data_parallel import process_group
    from salience.lab.profile.machine_load import Machine

    task, target = load(config.task, seed=config.seed), resolve_device(device)
    require_memory(config, task, str(target))  # refuse before a folder is made
    require_folder(out)
    machine = Machine()
    record = run(config, out=out, device=device)
    if not process_group(target).first:
        return None
    record = replace(record, config={**record.config, **about})
    return save(record, out, str(target), machine)
