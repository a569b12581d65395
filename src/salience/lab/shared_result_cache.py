"""The cells of a study that several processes share: what each computes is stored, and read by all.

Cells are dealt out whole, and each is computed as one process alone would compute it: so their values do not depend on
how many processes there are, and a killed run may go on with another number of them. The processes call the same
methods with the same names in the same order, and must see the same folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from salience.lab.data_parallel import Alone
from salience.lab.result_cache import Cells


def cells_for(group: Alone, out: Path | None, identity: Mapping[str, Any]) -> Cells:
    """The cells of these processes. Without a folder there is nothing to share through: each computes everything."""
    return Cells(out, identity) if group.count == 1 or out is None else SharedCells(out, identity, group)


class SharedCells(Cells):
    """`Cells` that several processes fill together."""

    def __init__(self, out: Path, identity: Mapping[str, Any], group: Alone) -> None:
        super().__init__(out, identity, keeps=group.first)  # the first clears away what is of another run
        group.wait()
        self.group, self.keeps = group, True

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The stored value, else the first process computes it while the others wait."""
        if self.group.first:
            super().get(name, compute)
        self.group.wait()
        return super().get(name, compute)

    def share(self, names: Iterable[str]) -> list[str]:
        """Those still to be computed that fall to this process: dealt out in turn, so the dearest come first."""
        left = super().share(names)
        self.group.wait()  # nobody stores anything before all have looked
        return left[self.group.index :: self.group.count]

    def fill(
        self, jobs: Mapping[str, Callable[[], Any]], mine: Iterable[str], tick: Callable[[], object] | None = None
    ) -> dict[str, Any]:
        """Compute `mine`, wait for the others, and read everything."""
        for name in mine:
            super().get(name, jobs[name])
            if tick is not None:
                tick()
        self.group.wait()
        return {name: super(SharedCells, self).get(name, compute) for name, compute in jobs.items()}
