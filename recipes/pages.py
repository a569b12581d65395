"""Generated blocks of the documentation: each stands between two markers and links the results file it comes from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from salience.core.files import write_atomic
from salience.core.markers import filled
from salience.core.record import Results, load_results

ROOT = Path(__file__).resolve().parents[1]


def markers(name: str, script: str) -> tuple[str, str]:
    """The lines before and behind a block. script: its writer, from the repository's root"""
    return f"<!-- {name}: begin ({script} writes this) -->", f"<!-- {name}: end -->"


def fill(page: Path, name: str, script: str, text: str) -> None:
    """Replace one block of a page. Raises: ValueError when the page lacks the markers"""
    begin, end = markers(name, script)
    write_atomic(page, filled(page.read_text(encoding="utf-8"), begin, end, text))


def link(path: Path, page: Path) -> str:
    """A Markdown link to a file of this repository, relative to the page."""
    return f"[`{path.relative_to(ROOT).as_posix()}`]({Path(os.path.relpath(path, page.parent)).as_posix()})"


def loaded(paths: Iterable[Path]) -> list[tuple[Path, Results]]:
    """Results documents, with their absolute paths."""
    return [(path.resolve(), load_results(path, path.parent)) for path in paths]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def decimals(accuracy: float) -> str:
    """`.891`: three digits behind the point, without the zero before it."""
    return f"{accuracy:.3f}".removeprefix("0")


def origin(results: Results, command: str) -> str:
    """Command, hardware, date, commit and releases of a measurement, one clause."""
    found = results.environment
    return (
        f"`{command}` on {found.get('cpu') or found.get('device')} ({found.get('threads')} threads, "
        f"{str(found.get('date'))[:10]}, commit `{str(found.get('commit'))[:12]}`, torch {found.get('torch')}, "
        f"transformers {found.get('transformers')})"
    )
