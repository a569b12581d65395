"""`salience ask`: one answer, with and without pruning."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from salience.cli.loading import Loaded, find_vlm, model_option
from salience.cli.options import (
    OWN_METHOD,
    method_name,
    note,
    print_document,
    require_folder,
    shared_options,
    stdout_for_results,
    working,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from salience.cli.answering import Asked

KEPT = "kept.png"
_KNOWS = (
    "The bundled model knows coloured digits and nothing else: whatever else is in a picture, it answers in digits."
)


class Drawn(NamedTuple):
    """The user's picture with what was kept, and the part of it that the grid lies on: left, top, right, bottom."""

    picture: Image
    region: tuple[float, float, float, float]


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("question")
@click.option(
    "--keep", type=float, default=None, help="Share of the visual tokens to keep, above 0 to 1.  [default: .25]"
)
@click.option("--tokens", type=int, default=None, help="Instead of --keep: how many visual tokens to keep.")
@click.option(
    "--mass", type=float, default=None, help="Instead of --keep: the fewest tokens with this share of saliency."
)
@click.option(
    "--method",
    type=method_name,
    default="saliency",
    show_default=True,
    metavar="NAME",
    help="saliency, cls-attention, uniform, random, auto, a scorer's folder, or " + OWN_METHOD + ".",
)
@model_option()
@click.option(
    "--picture",
    "kept_path",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="Write the picture with what was kept bright and the rest dimmed.",
)
@shared_options(out=None, writes="results.json and kept.png (default: nothing is written)")
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
    """Answer QUESTION about the picture IMAGE, once with all visual tokens and once with a part of them.

    The bundled model knows coloured digits on photographs and nothing else; --model takes any LLaVA.

    \b
    Example:
      salience ask picture.png "which digit is red?" --keep .25 --picture kept.png
    """
    with stdout_for_results(as_json):
        budget = _budget(keep, tokens, mass)
        _require_writable(image, kept_path, out)
        asked, loaded, drawn = _asked(image, question, method, budget, model, seed, device)
        document = _document(asked, loaded, drawn, image, question, budget, seed)
        _write(document, drawn.picture, kept_path, out)
    if as_json:
        print_document(document)
    else:
        _show(asked, question, budget)
    if loaded.bundled:
        click.echo(_KNOWS, err=as_json)


def _budget(keep: float | None, tokens: int | None, mass: float | None) -> dict[str, Any]:
    """The budget that was asked for, .25 of the tokens if none was; refused here, before a model is loaded."""
    from salience import Budget

    given: dict[str, Any] = {
        name: value for name, value in (("keep", keep), ("tokens", tokens), ("mass", mass)) if value is not None
    } or {"keep": 0.25}
    Budget(**given)
    return given


def _require_writable(image: Path, kept_path: Path | None, out: Path | None) -> None:
    from salience.cli.kept_picture import require_picture_path

    for option, path in (("--picture", kept_path), ("--out", None if out is None else out / KEPT)):
        if path is not None and path.exists() and image.exists() and path.samefile(image):
            raise ValueError(f"{option}: {path} is the picture that is asked about, and would be overwritten.")
    if kept_path is not None:
        require_picture_path(kept_path)
        require_folder(kept_path.parent, "--picture")
    if out is not None:
        require_folder(out)


def _asked(
    image: Path,
    question: str,
    method: str,
    budget: dict[str, Any],
    model: str | None,
    seed: int,
    device: str,
) -> tuple[Asked, Loaded, Drawn]:
    """Return the answers, the model, and the picture at its own size with the kept cells."""
    from salience.cli.answering import answer_both_ways, prepare
    from salience.cli.kept_picture import seen_region, what_is_seen
    from salience.lab.data.readers.picture_decoding import open_picture
    from salience.vlm.drawing import kept_picture

    picture = open_picture(image, note)
    found = find_vlm(model, device)
    found.require_method(method, budget, seed)
    inputs = prepare(found.processor, picture, question)
    with working("loading the model"):
        loaded = found.load()
    inputs = inputs.to(loaded.model.device, dtype=loaded.model.dtype)
    with working("answering both ways"):
        asked = answer_both_ways(loaded, inputs, method, seed, budget)
    region, view = seen_region(lambda each: prepare(found.processor, each, question)["pixel_values"], picture)
    if busy := _busy():
        note(f"The machine has other work, and the times are too long: {busy}")
    if said := what_is_seen(region, view, picture.size, asked.views):
        note(said)
    return asked, loaded, Drawn(kept_picture(picture, asked.grid, asked.kept, region), region)


def _busy() -> str | None:
    """One sentence where the machine has other work than this, else None."""
    from salience.core.environment import busy_because
    from salience.lab.profile.machine_load import load_average

    return busy_because({"load_average_end": load_average()}, os.cpu_count() or 1)


def _document(
    asked: Asked, loaded: Loaded, drawn: Drawn, image: Path, question: str, budget: dict[str, Any], seed: int
) -> dict[str, Any]:
    from salience.core.environment import environment
    from salience.core.record import SCHEMA

    config = {
        "model": loaded.name,
        "image": str(image),
        "question": question,
        "seed": seed,
        "n_visual_tokens": asked.grid.n,
        "grid": [asked.grid.rows, asked.grid.columns],
        "picture": list(drawn.picture.size),
        "seen": [round(place, 2) for place in drawn.region],
        "rounds": asked.rounds,
        "busy_because": _busy(),
        "note": _KNOWS if loaded.bundled else None,
    }
    rows = [
        {
            "method": name,
            **budget_of_row,
            "tokens_kept": answer.tokens,
            "answer": answer.text,
            "first_token_ms": answer.first_token_ms,
            "answer_ms": answer.answer_ms,
            "kept": kept,
        }
        for name, budget_of_row, answer, kept in (
            ("none", {"keep": 1.0}, asked.full, None),
            (asked.method, budget, asked.pruned, list(asked.kept)),
        )
    ]
    return {
        "schema": SCHEMA,
        "environment": environment(str(loaded.model.device)),
        "records": [{"kind": "ask", "config": config, "rows": rows}],
    }


def _write(document: dict[str, Any], drawn: Any, kept_path: Path | None, out: Path | None) -> None:
    import json

    from salience.cli.kept_picture import save_picture
    from salience.core.files import write_atomic

    if kept_path is not None:
        save_picture(drawn, kept_path)
    if out is not None:
        save_picture(drawn, out / KEPT)
        write_atomic(out / "results.json", json.dumps(document, indent=1, allow_nan=False) + "\n")


def _show(asked: Asked, question: str, budget: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    (name, value), full, pruned = *budget.items(), asked.full, asked.pruned
    table = Table(box=box.SIMPLE_HEAD, title=Text(question), title_justify="left", title_style="bold")
    for header, side in (
        ("", "left"),
        ("all tokens", "right"),
        (Text(f"{asked.method}, {name} {value:g}"), "right"),
        ("", "right"),
    ):
        table.add_column(header, justify="right" if side == "right" else "left")
    same = "the same" if full.text == pruned.text else "another"
    table.add_row("answer", Text(full.text), Text(pruned.text), same, style="bold")
    table.add_row("visual tokens", str(full.tokens), str(pruned.tokens), f"{pruned.tokens / full.tokens:.0%}")
    for label, before, after in (
        ("first token, ms", full.first_token_ms, pruned.first_token_ms),
        ("whole answer, ms", full.answer_ms, pruned.answer_ms),
    ):
        table.add_row(label, f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}x")
    Console().print(table)
