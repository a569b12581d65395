"""Write the tree of the package, a line for each folder and file, into CONTRIBUTING.md: `recipes/package_tree.py`.

A line is the first sentence of the module's docstring; a folder's is that of its `__init__.py`.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pages

PAGE, BLOCK = pages.ROOT / "CONTRIBUTING.md", ("tree", "recipes/package_tree.py")
PACKAGE = pages.ROOT / "src" / "salience"
COLUMN, WIDTH = 36, 80  # of the sentences


def tree() -> str:
    """Markdown of the block."""
    return "\n".join(["```text", "src/salience/", *_lines(PACKAGE, 1), "```"])


def _lines(folder: Path, depth: int) -> Iterator[str]:
    entries = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    for path in sorted(entries, key=lambda path: (path.is_file(), path.name)):
        if path.name == "__init__.py" and folder != PACKAGE:
            continue
        name = "  " * depth + path.name + ("/" if path.is_dir() else "")
        told = textwrap.shorten(sentence(path if path.is_file() else path / "__init__.py"), WIDTH, placeholder=" ...")
        yield f"{name:<{COLUMN}}{told}".rstrip()
        if path.is_dir():
            yield from _lines(path, depth + 1)


def sentence(module: Path) -> str:
    """First sentence of a module's docstring, without its final stop; empty without a docstring."""
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return re.split(r"\.(?=\s|$)", " ".join(text.partition("\n\n")[0].split()), maxsplit=1)[0]


if __name__ == "__main__":
    pages.fill(PAGE, *BLOCK, tree())
