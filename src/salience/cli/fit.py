"""`salience fit`: a saliency scorer for a frozen vision-language model."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salience.cli.loading import LoadedModel, find_vlm, model_option
from salience.cli.options import note, print_document, require_folder, shared_options, stdout_for_results, working

if TYPE_CHECKING:
    from salience.lab.fit.config import FitConfig

_COUNT = click.IntRange(min=1)
_SCORER_FILES = {"config.json", "model.safetensors"}


@click.command()
@model_option()
@click.option("--objective", metavar="NAME", help="Training objective.  [default: attention]")
@click.option("--pictures", type=_COUNT, help="Training pictures.  [default: 300]")
@click.option("--steps", type=_COUNT, help="Optimiser steps.  [default: 800]")
@click.option("--quick", is_flag=True, help="A few pictures and steps: to see that it works, not to use the scorer.")
@shared_options(out="build/scorer", writes="the scorer: config.json and model.safetensors")
def fit(
    model: str | None,
    objective: str | None,
    pictures: int | None,
    steps: int | None,
    quick: bool,
    out: Path,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Train a saliency scorer for a frozen vision-language model, the bundled one or your own.

    The model itself does not change. Training takes seconds to minutes on the bundled model. A model that is not
    LLaVA-1.5-like runs once for each question, up to sixteen times a picture, so begin with few --pictures. A killed
    run continues where it stopped when you start it again. A scorer in the model's folder under salience/ is found by
    itself.

    \b
    Example:
      salience fit --model path/to/llava --out path/to/llava/salience
    """
    from salience.lab.fit.question_attention import require_attention

    with stdout_for_results(as_json):
        config = _config(quick, seed, objective=objective, pictures=pictures, steps=steps)
        _require_scorer_folder(out)
        found = find_vlm(model, device)
        if found.outline is not None:
            require_attention(found.outline)
        with working("loading the model"):
            loaded = found.load()
        document = _fitted(loaded, out, config, quick=quick)
    note(f"Fitted in {document['records'][0]['rows'][0]['seconds']:.0f} s.")
    if as_json:
        print_document(document)
    else:
        click.echo(f"The scorer is in {out}. Use it: salience.prune(model, {str(out)!r}, keep=0.25)")


def _require_scorer_folder(out: Path) -> None:
    """Raise ValueError where `out` holds anything but a scorer: the folder is replaced as a whole."""
    require_folder(out.parent)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file; a folder for the scorer is needed.")
    others = sorted({path.name for path in out.iterdir()} - _SCORER_FILES) if out.is_dir() else []
    if others:
        raise ValueError(f"--out: {out} holds other files ({others[0]}); name a folder for the scorer alone.")
    if out.is_dir():
        require_folder(out)


def _config(quick: bool, seed: int, *, objective: str | None, pictures: int | None, steps: int | None) -> FitConfig:
    """Return the configuration of the call. Raises ValueError for values that are not allowed."""
    from salience.lab.fit.config import FitConfig

    base = FitConfig.quick(seed=seed) if quick else FitConfig(seed=seed)
    return replace(
        base, objective=objective or base.objective, pictures=pictures or base.pictures, steps=steps or base.steps
    )


def _fitted(loaded: LoadedModel, out: Path, config: FitConfig, *, quick: bool) -> dict[str, Any]:
    """Train, write the scorer's folder and return the results document."""
    from salience.core.environment import environment
    from salience.core.record import SCHEMA
    from salience.lab.fit.fit_scorer import fit as train

    since = time.perf_counter()
    folder = train(loaded.model, config, processor=loaded.processor, out=out)
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    row = {
        "scorer": str(folder),
        "objective": about["objective"],
        "d_features": about["d_features"],
        "hidden": about["hidden"],
        "seed": config.seed,
        "seconds": time.perf_counter() - since,
    }
    return {
        "schema": SCHEMA,
        "environment": environment(str(loaded.model.device)),
        "records": [
            {"kind": "fit", "config": {"model": loaded.name, "quick": quick, **about["training"]}, "rows": [row]}
        ],
    }
