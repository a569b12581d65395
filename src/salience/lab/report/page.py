"""Puts the page together: one HTML file that asks nothing of any other place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from salience.core.files import write_atomic
from salience.lab.report.compare.page_content import compare_chapter
from salience.lab.report.kit.palette import css
from salience.lab.report.load import Record, load_results
from salience.lab.report.tradeoff import limits
from salience.lab.report.tradeoff.column_definitions import COLUMNS, describe, table
from salience.lab.report.tradeoff.page_content import chapter

_TEMPLATES = Path(__file__).parent / "templates"
_OTHERS = {"profile": "What pruning would save, counted"}


def write_report(results: Mapping[str, Any] | str | Path, out_dir: str | Path) -> Path:
    """Writes `figures/*.svg`, `figures/*.png` and `report.html` into `out_dir`, each aside first and then renamed.

    Args:    results: the document, or the path of a results.json    out_dir: made if need be; pictures of a document
             that is not a file are looked for here
    Returns: the path of report.html
    Raises:  ValueError when the results are none; OSError where the folder can't be written
    """
    out = Path(out_dir)
    loaded = load_results(results, out)
    chapters = [
        chapter(record, loaded, out / "figures", number) for number, record in enumerate(loaded.of_kind("tradeoff"))
    ]
    compares = [
        compare_chapter(record, out / "figures", number, loaded.environment)
        for number, record in enumerate(loaded.of_kind("compare"))
    ]
    others = [
        _other(record, number)
        for number, record in enumerate(loaded.records)
        if record.kind not in ("tradeoff", "compare")
    ]
    titles = [
        *(found.headline for found in chapters),
        *(found.headline for found in compares),
        *(other["title"] for other in others),
    ]
    others_too = (record for record in loaded.records if record.kind != "compare")  # which defines its own columns
    used = dict.fromkeys(name for record in others_too for row in record.rows for name in row)
    page = _environment().get_template("page.html").render(
        title=titles[0],
        chapters=chapters,
        compares=compares,
        others=others,
        environment=limits.facts(loaded.environment),
        date=str(loaded.environment.get("date") or "")[:10],
        definitions=[column for column in COLUMNS if column.name in used]
        + [describe(name) for name in used if name.startswith("accuracy_") and describe(name) not in COLUMNS],
        palette=css(),
    )  # fmt: skip
    return write_atomic(out / "report.html", page)


def _other(record: Record, number: int) -> dict[str, Any]:
    """A record without a chapter of its own kind: its configuration and its table."""
    return {
        "id": f"{record.kind}{number + 1}",
        "title": _OTHERS.get(record.kind, record.kind),
        "facts": limits.facts(record.config),
        "table": table(record.rows),
    }


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
    return made
