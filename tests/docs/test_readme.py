"""Every command of the README runs, and its Python; its table comes from a results file; its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markdown import ROOT, blocks, lines_of, made, run_salience

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = lines_of(README)
SALIENCE = [line for line in COMMANDS if line.startswith("salience ")]
#: commands that are not `salience`, and the tests of them
OTHERS = {
    "make study": "test_make_study_is_the_study",
    "make test": "test_make_test_is_pytest",
    "python3 -m venv .venv": "test_a_virtual_environment_can_be_made",
    ".venv/bin/pip install -c constraints.txt -e '.[vlm,study]'": "test_the_pins_hold_for_all_extras_together",
}


def test_it_is_short() -> None:
    """At most 900 words, and one table of results."""
    assert len(README.split()) <= 900
    assert README.count(": begin (") == 1


def test_the_caveat_stands_above_the_table() -> None:
    assert README.index("knows coloured digits\nand nothing else") < README.index("<!-- results: begin")


def test_every_command_has_a_test() -> None:
    assert len(SALIENCE) >= 2
    assert [line for line in COMMANDS if line not in SALIENCE] == list(OTHERS)
    assert all(name in globals() for name in OTHERS.values())


@pytest.mark.parametrize("line", SALIENCE)
def test_a_command_runs_as_it_is_written(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_salience(line, tmp_path) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", ["", "study", "tradeoff", "fit", "ask", "profile", "compare"])
def test_help_shows_an_example(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_salience(f"salience {command} --help", tmp_path) == 0
    assert "Example:\n" in capsys.readouterr().out


def test_make_study_is_the_study() -> None:
    """`salience study --quick` itself runs in tests/cli and in .ci/run."""
    assert made("study")[-1] == ".venv/bin/salience study --out build/study"


def test_make_test_is_pytest() -> None:
    assert "-m pytest" in made("test")[-1]


def test_a_virtual_environment_can_be_made(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], timeout=120, check=True)
    assert (tmp_path / ".venv" / "bin" / "python").exists()


def test_the_pins_hold_for_all_extras_together() -> None:
    """One file, one exact version each, within what pyproject.toml asks for; installing needs a package index."""
    from packaging.requirements import Requirement

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines)
    assert len(pins) == len(lines)
    assert all("+" not in version for version in pins.values())  # no build that only one index has
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    for requirement in map(Requirement, wanted):
        pinned = pins[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(pinned), requirement


def test_the_python_runs(hub: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a folder of the published model's layout; nothing but the model's id is replaced."""
    monkeypatch.chdir(ROOT)
    (code,) = [block.code for block in blocks(README) if block.language == "python"]
    replaced = hub(code)
    assert replaced != code
    assert len([line for line in code.splitlines() if line.strip()]) <= 14
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(replaced, "README.md", "exec", dont_inherit=True), names)
    assert len(names["pruned"].trace.images[0].kept) == 144


def test_pictures_and_links_exist() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert len(targets) > 4
    for target in targets:
        path, _, anchor = target.partition("#")
        assert "://" in target or (ROOT / path).exists(), target
        if anchor:
            assert anchor in _anchors(ROOT / path), target


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
