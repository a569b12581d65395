"""Finished cells of a long study, stored aside, so that a killed run goes on where it was.

A cell is read back only by a run of the same code, configuration and model; anything else starts anew, and so does a
run after one that finished.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from salience.core.files import write_atomic
from salience.core.json_text import read_json

FOLDER = ".unfinished"


def code_digest() -> str:
    """A digest of this package's source."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Cells:
    """Named JSON values under `<out>/.unfinished`, each written once and whole; without a folder nothing is stored.

    keeps: False only reads, for a process beside the one that writes
    """

    def __init__(self, out: Path | None, identity: Mapping[str, Any], *, keeps: bool = True) -> None:
        self.folder, self.keeps = None if out is None else out / FOLDER, keeps
        self.resumed = False
        if self.folder is None or not keeps:
            return
        key = json.dumps({"code": code_digest(), **identity}, sort_keys=True, default=str)
        mark = self.folder / "identity.json"
        if mark.is_file() and mark.read_text() == key:
            self.resumed = any(self.folder.glob("*.cell.json"))
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        write_atomic(mark, key)

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The stored value of that name, else `compute()`, stored. Both come out as JSON reads them back."""
        if self.folder is None:
            return compute()
        file = self.folder / f"{name}.cell.json"
        if not file.is_file():
            if not self.keeps:
                return compute()
            write_atomic(file, json.dumps(compute(), allow_nan=False))
        return read_json(file)

    def share(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are still to be computed here."""
        return [name for name in names if not self.has(name)]

    def fill(
        self, jobs: Mapping[str, Callable[[], Any]], mine: Iterable[str], tick: Callable[[], object] | None = None
    ) -> dict[str, Any]:
        """The value of every name, as `get` gives it. mine: what `share` gave of them   tick: called after each"""
        found, counted = {}, set(mine)
        for name, compute in jobs.items():
            found[name] = self.get(name, compute)
            if tick is not None and name in counted:
                tick()
        return found

    def has(self, name: str) -> bool:
        """Whether the value of that name is stored."""
        return self.folder is not None and (self.folder / f"{name}.cell.json").is_file()

    def path(self, name: str) -> Path | None:
        """A place among the cells for something that stores itself."""
        return None if self.folder is None else self.folder / name

    def finish(self) -> None:
        """Forget everything: the results stand under their final name."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
