"""The whole page: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salience.core.files import write_atomic
from salience.core.record import CompareRecord, ProfileRecord, TradeoffRecord, load_results
from salience.lab.report.compare.page_content import compare_content
from salience.lab.report.kit import words
from salience.lab.report.kit.facts import facts
from salience.lab.report.kit.full_table import table
from salience.lab.report.kit.palette import css
from salience.lab.report.tradeoff.column_definitions import COLUMNS
from salience.lab.report.tradeoff.page_content import tradeoff_content

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(results: Mapping[str, Any] | str | Path, out_dir: str | Path) -> Path:
    """Write `figures/*.svg`, `figures/*.png` and `report.html` into `out_dir`, each aside first and then renamed.

    Args:    results: the document, or the path of a results.json    out_dir: made if need be; pictures of a document
             that is not a file are looked for here
    Returns: the path of report.html
    Raises:  ValueError when the results are none; OSError where the folder can't be written
    """
    out = Path(out_dir)
    loaded = load_results(results, out)
    figures = out / "figures"
    tradeoffs = [
        tradeoff_content(record, loaded, figures, at) for at, record in enumerate(loaded.of_kind(TradeoffRecord))
    ]
    compares = [
        compare_content(record, figures, at, loaded.environment)
        for at, record in enumerate(loaded.of_kind(CompareRecord))
    ]
    profiles = [
        {"id": f"profile{at + 1}", "facts": facts(record.config), "table": table(record.rows, COLUMNS),
         "headline": "Counted savings of pruning"}
        for at, record in enumerate(loaded.of_kind(ProfileRecord))
    ]  # fmt: skip
    parts = [*tradeoffs, *compares, *profiles]
    shown = [part["table"] for part in (*tradeoffs, *profiles)]  # a comparison defines its own columns
    page = _environment().get_template("page.html").render(
        title=parts[0]["headline"],
        description=[*parts[0].get("notices", ()), *parts[0].get("summary", ())],
        tradeoffs=tradeoffs,
        compares=compares,
        profiles=profiles,
        environment=facts(loaded.environment),
        date=str(loaded.environment.get("date") or "")[:10],
        definitions={column.name: column for each in shown for column in each.columns}.values(),
        palette=css(),
    )  # fmt: skip
    return write_atomic(out / "report.html", page)


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["style"] = Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8"))
    made.globals["script"] = Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8"))
    for write in (words.share, words.score, words.count, words.times, words.milliseconds):
        made.filters[write.__name__] = lambda value, write=write: words.DASH if value is None else write(value)
    return made
