"""Fenced blocks, commands and make targets of the README and the pages."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Block(NamedTuple):
    """A fenced block, the page's line on which its text begins, and whether a recipe wrote it."""

    language: str
    code: str
    line: int
    generated: bool


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    return [Block(m[1], m[2], page[: m.start()].count("\n") + 2, _is_generated(page[: m.start()])) for m in found]


def _is_generated(before: str) -> bool:
    return before.count(": begin (") > before.count(": end -->")


def lines_of(page: str, *, generated: bool = False) -> list[str]:
    """The commands of a page's bash blocks."""
    found = [block for block in blocks(page) if block.language == "bash" and block.generated == generated]
    return [line for block in found for line in block.code.splitlines() if line.strip()]


def run_salience(line: str, folder: Path) -> int:
    """Exit code of a `salience` command: in a scratch folder, on few pictures, a model of one's own being a copy."""
    import salience
    from salience.cli.main import run

    arguments = shlex.split(line)[1:]
    if "path/to/your-llava" in line:
        own = folder / "llava"
        shutil.copytree(salience.bundled_model(), own, ignore=shutil.ignore_patterns("salience"))
        arguments = [part.replace("path/to/your-llava", str(own)) for part in arguments]
    arguments = [re.sub(r"^(docs|src|tests)/", f"{ROOT}/\\1/", part) for part in arguments]
    arguments = [part.replace("build/", f"{folder}/build/") for part in arguments]
    if arguments[0] in ("fit", "tradeoff", "study", "compare") and not {"--help", "--list"} & set(arguments):
        arguments.append("--quick")
    return run(arguments)


def made(target: str) -> list[str]:
    """The commands that `make target` would run, nothing of it run."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip().splitlines()
