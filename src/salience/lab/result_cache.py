"""Result cache of an interrupted study: a killed run continues where it stopped.

A result is read back only by a run with the same code, configuration and model. Any other run starts anew, and so does
a run after one that finished.

Several processes can fill one cache. Each result is computed by one of them, exactly as a single process would compute
it, and read by all. So the values do not depend on the number of processes, which may also change between runs. The
processes must call the same methods with the same names in the same order, and see the same folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from salience.core.files import read_json, write_atomic

if TYPE_CHECKING:
    from salience.lab.data_parallel import ProcessGroup

FOLDER = ".unfinished"
SUFFIX = ".result.json"


def code_digest() -> str:
    """Return a digest of this package's source."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


class ResultCache:
    """Named JSON values under `<out>/.unfinished`, each written once and whole. Without a folder nothing is stored.

    Args:    identity: everything besides the code that a value depends on
             group: processes that divide the work; without a folder each of them computes everything
             writes: False for a process that only reads what another one writes
    """

    def __init__(
        self, out: Path | None, identity: Mapping[str, Any], *, group: ProcessGroup | None = None, writes: bool = True
    ) -> None:
        self.folder = None if out is None else out / FOLDER
        self.group = None if out is None or group is None or group.count == 1 else group
        self.writes, self.resumed = writes, False
        if self.folder is not None and writes and (self.group is None or self.group.first):
            self._open(self.folder, identity)
        self._wait()  # the others look only after the first has removed another run's results

    def _open(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Remove another run's results."""
        key = json.dumps({"code": code_digest(), **identity}, sort_keys=True, default=str)
        mark = folder / "identity.json"
        if mark.is_file() and mark.read_text() == key:
            self.resumed = any(folder.glob(f"*{SUFFIX}"))
            return
        shutil.rmtree(folder, ignore_errors=True)
        write_atomic(mark, key)

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return the stored value, else `compute()`, which is then stored. Both come out as JSON reads them back.

        Of several processes the first computes while the others wait.
        """
        if self.group is not None:
            if self.group.first:
                self._get(name, compute)
            self._wait()
        return self._get(name, compute)

    def claim(self, names: Iterable[str]) -> list[str]:
        """Return the names that are not stored yet and that this process is to compute.

        Processes take them in turn, so list the most expensive first.
        """
        missing = [name for name in names if not self.has(name)]
        if self.group is None:
            return missing
        self._wait()  # no process may store anything before all have looked
        return missing[self.group.index :: self.group.count]

    def fill(
        self, jobs: Mapping[str, Callable[[], Any]], mine: Iterable[str], tick: Callable[[], object] | None = None
    ) -> dict[str, Any]:
        """Return the value of every name. mine: what `claim` returned for them   tick: called after each of `mine`"""
        own = {}
        for name in mine:
            own[name] = self._get(name, jobs[name])
            if tick is not None:
                tick()
        self._wait()
        return {name: own[name] if name in own else self._get(name, compute) for name, compute in jobs.items()}

    def has(self, name: str) -> bool:
        """Whether the value of that name is stored."""
        return self.folder is not None and (self.folder / f"{name}{SUFFIX}").is_file()

    def path(self, name: str) -> Path | None:
        """Return a path in the cache's folder for an object that stores itself."""
        return None if self.folder is None else self.folder / name

    def finish(self) -> None:
        """Remove everything: the results stand under their final name."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _get(self, name: str, compute: Callable[[], Any]) -> Any:
        if self.folder is None or not (self.writes or self.has(name)):
            return compute()
        file = self.folder / f"{name}{SUFFIX}"
        if not file.is_file():
            write_atomic(file, json.dumps(compute(), allow_nan=False))
        return read_json(file)

    def _wait(self) -> None:
        if self.group is not None:
            self.group.wait()
