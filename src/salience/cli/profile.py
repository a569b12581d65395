"""`salience profile`: cost and savings of pruning on a model, from its configuration alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from salience.cli import options
from salience.cli.loading import has_weights, load_vlm, quiet_transformers

if TYPE_CHECKING:
    from salience.core.record import ProfileRecord
    from salience.core.result_rows import ProfileRow

_COUNT = click.IntRange(min=1)
_DTYPES = ("float32", "float16", "bfloat16")
_STAGES = (("vision", "vision tower"), ("scorer", "scorer"), ("projector", "projector"), ("llm", "language model"))


@click.command()
@click.argument("model")
@click.option(
    "--keep",
    "keeps",
    multiple=True,
    default=["1,0.75,0.5,0.25,0.1"],
    callback=options.comma_numbers,
    help="Ratios, with commas between them, or repeated.",
)
@click.option(
    "--method",
    type=options.method_name,
    metavar="NAME",
    help="Drop tokens inside the language model: fastv, pyramiddrop, sparsevlm, or "
    f"{options.OWN_METHOD}.  [default: before]",
)
@click.option("--text-tokens", type=_COUNT, default=64, help="Text tokens of each row.")
@click.option("--batch", type=_COUNT, default=1, help="Rows.")
@click.option("--images", type=_COUNT, default=1, help="Pictures of each row.")
@click.option("--decode", type=click.IntRange(min=0), default=0, help="Tokens of the answer.")
@click.option("--picture", "size", default="1024x768", help="Pixels, where the model takes any size.")
@click.option("--dtype", type=click.Choice(_DTYPES), help="[default: the model's own; float32 on a CPU]")
@options.shared_options(out=None, writes="results.json")
def profile(
    model: str,
    keeps: Sequence[float],
    method: str | None,
    text_tokens: int,
    batch: int,
    images: int,
    decode: int,
    size: str,
    dtype: str | None,
    out: Path | None,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Count what pruning would save on MODEL, a folder with a config.json or a hub id, and predict the time.

    --device meta reads the configuration alone. With a folder that holds weights, or --device cpu or cuda, the stages
    are timed too, next to the prediction.

    \b
    Example:
      salience profile llava-hf/llava-1.5-7b-hf --keep 1,0.5,0.25 --text-tokens 64 --device meta
    """
    import torch

    from salience.core.backend import resolve_device
    from salience.core.record import document, write
    from salience.lab.profile.profile_config import ProfileConfig, PromptShape
    from salience.lab.profile.profile_model import profile_model

    with options.stdout_for_results(as_json):
        config = ProfileConfig(
            keep=list(keeps),
            method=method,
            prompt=PromptShape(text_tokens=text_tokens, batch=batch, images=images, decode=decode),
            picture=_size(size),
            dtype=None if dtype is None else getattr(torch, dtype),
        )
        if device != "meta":
            resolve_device(device)
        if out is not None:
            options.require_folder(out)
        torch.manual_seed(seed)
        with options.working("loading the model"):
            subject = _subject(model, device, config.dtype)
        with options.working("counting"), quiet_transformers():
            found = profile_model(subject, config)
        record = replace(found, config={**found.config, "model": model})
        whole = document([record], device=device)
        if out is not None:
            write(out / "results.json", whole)
    if as_json:
        options.print_document(whole)
    else:
        _show(record)


def _subject(model: str, device: str, dtype: Any) -> Any:
    """The model with its weights, if there are any to be timed, else its name."""
    if device == "meta" or (device == "auto" and not has_weights(Path(model))):
        return model
    loaded = load_vlm(model, device).model
    return loaded if dtype is None else loaded.to(dtype)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise ValueError(f"--picture must be a width and a height in pixels, such as 1024x768, not {text!r}.")
    return int(found[1]), int(found[2])


def _show(record: ProfileRecord) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    config, rows = record.config, record.rows
    table = Table("", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_column(f"{row.keep:.4g} ({row.tokens_kept})", justify="right")
    for name, cells in _lines(rows):
        table.add_row(name, *cells)
    console = Console(soft_wrap=True)
    console.print(
        f"{config['model']} ({config['model_type']}, {config['parameters'] / 1e9:.2f} B, {config['dtype']}): "
        f"{config['n_visual_tokens']} visual tokens a picture, {config['images']} a row, "
        f"{config['text_tokens']} of text, batch {config['batch']}",
        highlight=False,
    )
    console.print(table)
    console.print(_closing(config), highlight=False)


def _lines(rows: Sequence[ProfileRow]) -> list[tuple[str, list[str]]]:
    """Title and numbers of each line."""

    def line(title: str, column: str, unit: float = 1.0) -> tuple[str, list[str]]:
        values = [row.numbers().get(column) for row in rows]
        return title, ["" if value is None else _number(value / unit) for value in values]

    full = rows[0].flops_total or 1.0
    lines = [line(f"{title}, GFLOPs", f"flops_{stage}", 1e9) for stage, title in _STAGES]
    lines += [
        line("total, GFLOPs", "flops_total", 1e9),
        ("share of the first column", [f"{(row.flops_total or 0.0) / full:.3f}" for row in rows]),
        line("KV cache, MiB", "kv_bytes", 2**20),
        line("peak with weights, MiB", "peak_bytes", 2**20),
        line("first token, predicted ms", "predicted_first_token_ms"),
    ]
    if rows[0].predicted_decode_ms_per_token is not None:
        lines.append(line("each further token, predicted ms", "predicted_decode_ms_per_token"))
    if rows[0].first_token_ms is not None:
        lines.append(line("first token, measured ms", "first_token_ms"))
        lines += [
            line(f"{title}, measured / predicted", f"{stage}_measured_over_predicted") for stage, title in _STAGES
        ]
    return lines


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _closing(config: Mapping[str, Any]) -> str:
    tokens, roof = config["vision_dominates_at_tokens"], config["roof"]
    where = (
        f"With {tokens} tokens a picture (keep {config['vision_dominates_at_keep']:.3g}) or fewer, the vision tower "
        "dominates: it costs more than all later work on visual tokens"
        if tokens
        else "Even one visual token costs more than the vision tower"
    )
    shown = (
        f"Pictures are counted as the model's own {config['processor']} prepares them"
        if config["processor"]
        else f"Pictures are counted with the family's usual settings: {config['processor_note']}"
    )
    busy = ""
    if config["busy_because"]:
        said = "The machine had other work while its limits were measured, and the predicted times are too long"
        busy = f"\n{said}. {config['busy_because']}"
    return (
        f"{where}.\n{shown}.\nPredicted for {roof['name']}: {roof['flops_per_s'] / 1e9:.4g} GFLOP/s, "
        f"{roof['bytes_per_s'] / 1e9:.3g} GB/s, {roof['launch_s'] * 1e6:.3g} µs an operator.{busy}"
    )
