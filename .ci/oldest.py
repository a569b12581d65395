"""Print constraints that pin each requirement of the library to the first release which pyproject.toml allows.

python .ci/oldest.py
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

#: The releases whose names and private API this package depends on; the others follow.
PACKAGES = ("torch", "numba", "transformers")


def oldest(pyproject: str) -> list[str]:
    """`package~=version` of every package, the first minor release with its bug fixes."""
    project = tomllib.loads(pyproject)["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["vlm"]]
    found = {}
    for requirement in wanted:
        package, version = re.match(r"([\w-]+)[^>]*>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
        if package in PACKAGES:
            major, minor = version.split(".")[:2]
            found[package] = f"{package}~={major}.{minor}.0"
    return list(found.values())


if __name__ == "__main__":
    print("\n".join(oldest(Path(__file__).resolve().parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))))
