"""`salience ask`: one answer, with and without pruning."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from salience.cli import options
from salience.cli.loading import LoadedModel, find_vlm, model_option

if TYPE_CHECKING:
    from PIL.Image import Image

    from salience.cli.answering import BothAnswers
    from salience.vlm.methods.budget import Budget

KEPT = "kept.png"
_KNOWS = "The bundled model knows coloured digits and nothing else: it answers in digits, whatever the picture shows."


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    """One question about one picture, and the pruning under test."""

    image: Path
    question: str
    method: str
    budget: Budget
    seed: int


class KeptDrawing(NamedTuple):
    """The user's picture with the kept cells bright, and the region that the grid lies on: left, top, right, bottom."""

    picture: Image
    region: tuple[float, float, float, float]


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--keep", type=float, help="Share of the visual tokens to keep, in (0, 1].  [default: .25]")
@click.option("--tokens", type=int, help="Instead of --keep: number of visual tokens to keep.")
@click.option("--mass", type=float, help="Instead of --keep: the fewest tokens with this share of the scores.")
@click.option(
    "--method",
    type=options.method_name,
    default="saliency",
    metavar="NAME",
    help="saliency, cls-attention, uniform, random, auto, a scorer's folder, or " + options.OWN_METHOD + ".",
)
@model_option()
@click.option(
    "--picture",
    "kept_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the picture, kept cells bright and the rest dimmed.",
)
@options.shared_options(out=None, writes="results.json and kept.png (default: nothing is written)")
def ask(
    image: Path,
    question: str,
    keep: float | None,
    tokens: int | None,
    mass: float | None,
    method: str,
    model: str | None,
    kept_path: Path | None,
    out: Path | None,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Answer QUESTION about the picture IMAGE, once with all visual tokens and once with those that a method keeps.

    The bundled model knows coloured digits on photographs and nothing else; --model takes most vision-language models.

    \b
    Example:
      salience ask picture.png "which digit is red?" --keep .25 --picture kept.png
    """
    with options.stdout_for_results(as_json):
        config = AskConfig(image=image, question=question, method=method, budget=_budget(keep, tokens, mass), seed=seed)
        _require_writable(image, kept_path, out)
        answers, loaded, drawing = _answers(config, model, device)
        document = _document(config, answers, loaded, drawing)
        _write(document, drawing.picture, kept_path, out)
    if as_json:
        options.print_document(document)
    else:
        _show(config, answers)
    if loaded.bundled:
        click.echo(_KNOWS, err=as_json)


def _budget(keep: float | None, tokens: int | None, mass: float | None) -> Budget:
    """The budget of the command line, by default a quarter of the tokens; refused before a model is loaded."""
    from salience.vlm.methods.budget import Budget

    if keep is None and tokens is None and mass is None:
        keep = 0.25
    return Budget(keep=keep, tokens=tokens, mass=mass)


def _require_writable(image: Path, kept_path: Path | None, out: Path | None) -> None:
    from salience.cli.kept_picture import require_picture_path

    for option, path in (("--picture", kept_path), ("--out", None if out is None else out / KEPT)):
        if path is not None and path.exists() and image.exists() and path.samefile(image):
            raise ValueError(f"{option}: {path} is the picture that is asked about, and would be overwritten.")
    if kept_path is not None:
        require_picture_path(kept_path)
        options.require_folder(kept_path.parent, "--picture")
    if out is not None:
        options.require_folder(out)


def _answers(config: AskConfig, model: str | None, device: str) -> tuple[BothAnswers, LoadedModel, KeptDrawing]:
    """The answers, the model, and the picture at its own size with the kept cells bright."""
    from salience.cli.answering import answer_both_ways, prepare
    from salience.cli.kept_picture import seen_region, what_is_seen
    from salience.lab.data.readers.picture_decoding import open_picture
    from salience.vlm.drawing import kept_picture

    picture = open_picture(config.image, options.note)
    source = find_vlm(model, device)
    source.require_method(config.method, config.budget, config.seed)
    inputs = prepare(source.processor, picture, config.question)
    with options.working("loading the model"):
        loaded = source.load()
    inputs = inputs.to(loaded.model.device, dtype=loaded.model.dtype)
    with options.working("answering both ways"):
        answers = answer_both_ways(loaded, inputs, config.method, config.seed, config.budget)
    region, view = seen_region(lambda each: prepare(source.processor, each, config.question)["pixel_values"], picture)
    if busy := _busy():
        options.note(f"The machine has other work, and the times are too long: {busy}")
    if said := what_is_seen(region, view, picture.size, answers.views):
        options.note(said)
    return answers, loaded, KeptDrawing(kept_picture(picture, answers.grid, answers.kept, region), region)


def _busy() -> str | None:
    """A sentence on other work of the machine; None if there is none."""
    from salience.core.environment import busy_because
    from salience.lab.profile.machine_load import load_average

    return busy_because({"load_average_end": load_average()}, os.cpu_count() or 1)


def _document(config: AskConfig, answers: BothAnswers, loaded: LoadedModel, drawing: KeptDrawing) -> dict[str, Any]:
    from salience.core.environment import environment
    from salience.core.record import SCHEMA

    grid = answers.grid
    about = {
        "model": loaded.name,
        "image": str(config.image),
        "question": config.question,
        "seed": config.seed,
        "n_visual_tokens": grid.n,
        "grid": [grid.rows, grid.columns],
        "picture": list(drawing.picture.size),
        "seen": [round(place, 2) for place in drawing.region],
        "rounds": answers.rounds,
        "busy_because": _busy(),
        "note": _KNOWS if loaded.bundled else None,
    }
    rows = [
        {
            "method": name,
            **budget,
            "tokens_kept": answer.tokens,
            "answer": answer.text,
            "first_token_ms": answer.first_token_ms,
            "answer_ms": answer.answer_ms,
            "kept": kept,
        }
        for name, budget, answer, kept in (
            ("none", {"keep": 1.0}, answers.full, None),
            (answers.method, config.budget.given, answers.pruned, list(answers.kept)),
        )
    ]
    return {
        "schema": SCHEMA,
        "environment": environment(str(loaded.model.device)),
        "records": [{"kind": "ask", "config": about, "rows": rows}],
    }


def _write(document: dict[str, Any], drawing: Image, kept_path: Path | None, out: Path | None) -> None:
    from salience.cli.kept_picture import save_picture
    from salience.core.files import write_atomic

    if kept_path is not None:
        save_picture(drawing, kept_path)
    if out is not None:
        save_picture(drawing, out / KEPT)
        write_atomic(out / "results.json", json.dumps(document, indent=1, allow_nan=False) + "\n")


def _show(config: AskConfig, answers: BothAnswers) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    ((name, value),), full, pruned = config.budget.given.items(), answers.full, answers.pruned
    # `Text` shows brackets as they are, which rich would read as its own marks
    table = Table(box=box.SIMPLE_HEAD, title=Text(config.question), title_justify="left", title_style="bold")
    table.add_column("")
    for header in ("all tokens", Text(f"{answers.method}, {name} {value:g}"), ""):
        table.add_column(header, justify="right")
    same = "the same" if full.text == pruned.text else "another"
    table.add_row("answer", Text(full.text), Text(pruned.text), same, style="bold")
    table.add_row("visual tokens", str(full.tokens), str(pruned.tokens), f"{pruned.tokens / full.tokens:.0%}")
    for label, before, after in (
        ("first token, ms", full.first_token_ms, pruned.first_token_ms),
        ("whole answer, ms", full.answer_ms, pruned.answer_ms),
    ):
        table.add_row(label, f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}x")
    Console().print(table)
