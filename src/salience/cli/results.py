"""Output of a finished study: report, results and figures on disk, and a table or the document on stdout."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from salience.cli.options import print_document, stdout_for_results

if TYPE_CHECKING:
    from salience.core.record import ResultRecord
    from salience.lab.profile.machine_load import Machine


def save(record: ResultRecord, out: Path, device: str, machine: Machine) -> Path:
    """Write results.json, and only then remove the result cache. Returns the document's path."""
    from salience.core.record import document, write
    from salience.lab.result_cache import FOLDER

    path = write(out / "results.json", document([record], device=device, machine=machine.observed()))
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return path


def present(results: Path, *, as_json: bool) -> None:
    """Write the report beside `results`. Print the document, or a table of accuracies and the report's path."""
    from salience.core.record import read
    from salience.lab.report.page import write_report

    with stdout_for_results(as_json):
        report = write_report(results, results.parent)
    document = read(results)
    if as_json:
        print_document(document)
        return
    _show(document)
    for notice in _notices(document):
        click.echo(notice)
    click.echo(f"Report:  {report}\nResults: {results}")


def _notices(document: Mapping[str, Any]) -> list[str]:
    """Limits of these results, as the report states them."""
    from salience.lab.report.kit.reliability import notices, reliability

    told = [line for record in document["records"] for line in
            notices(reliability(record.get("config") or {}, document["environment"]))]  # fmt: skip
    return list(dict.fromkeys(told))


def _show(document: Mapping[str, Any]) -> None:
    from salience.core.record import TradeoffRecord, load_results
    from salience.lab.report.kit.method_styles import title
    from salience.lab.report.kit.words import score, share, times
    from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

    for record in load_results(document, Path()).of_kind(TradeoffRecord):
        view = TradeoffData(record)
        table = Table("accuracy at a share of the tokens", box=box.SIMPLE_HEAD)
        for keep in view.keeps:
            table.add_column(share(keep), justify="right")
        for method in view.methods:
            points = [view.at(method, keep) for keep in view.keeps]
            known = [None if point is None else point.accuracy for point in points]
            table.add_row(Text(title(method)), *("" if value is None else score(value) for value in known))
        ratios = [view.ratio(view.subject, keep, "first_token_ms") for keep in view.keeps]
        table.add_section()
        table.add_row("first token, times faster", *("" if ratio is None else times(ratio) for ratio in ratios))
        Console().print(table)
    for found in document["records"]:
        if found["kind"] == "compare":
            _show_compare(found)


def _show_compare(found: Mapping[str, Any]) -> None:
    table = Table("model", "accuracy", "interval", "parameters", "training tokens/s", box=box.SIMPLE_HEAD)
    table.title = Text(str(found["config"]["task"]))  # a path may have brackets, which rich would read as its marks
    for line in found.get("final", ()):
        if line["accuracy"] is None:
            table.add_row(line["model"], "diverged")
            continue
        span = f"{line['accuracy_low']:.3f} to {line['accuracy_high']:.3f}"
        numbers = (f"{line['parameters']:,}", f"{line['train_tokens_per_s']:,.0f}")
        table.add_row(line["model"], f"{line['accuracy']:.3f}", span, *numbers)
    for name in ("majority", "chance"):
        table.add_row(name, f"{found['config'][f'{name}_accuracy']:.3f}")
    Console().print(table)
