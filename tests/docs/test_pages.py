"""Every page of docs/ runs top to bottom in an empty folder, prints what it shows, and names existing commands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown import ROOT, blocks, lines_of, made, run_salience

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
RECORDS = tuple(name for name in PAGES if name.startswith("measured/"))  # their commands take hours
RUN = [name for name, page in PAGES.items() if name not in RECORDS and blocks(page)]
#: commands that are not `salience`, and the tests of them
OTHERS = {
    "make bench": "test_make_bench_is_the_benchmarks",
    "pip install -c constraints.txt '.[vlm]'": "test_readme.test_the_pins_hold_for_all_extras_together",
    ".venv/bin/pip install -c constraints.txt -e '.[vlm,study]'": "the same",
    "python3 -m venv .venv": "test_readme.test_a_virtual_environment_can_be_made",
}


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert len(RUN) >= 8
    for name, page in PAGES.items():
        assert {block.language for block in blocks(page)} <= {"bash", "python", "text"}, name
        others = [line for line in lines_of(page) if not line.startswith("salience ")]
        assert set(others) <= set(OTHERS), name


def test_imports_come_with_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = " ".join([*project["dependencies"], *extras["vlm"], *extras["study"]])
    known = {"salience", "PIL", "inspect", "json", "random", "pathlib", "dataclasses", "typing"}
    for name, page in PAGES.items():
        code = "".join(block.code for block in blocks(page) if block.language == "python")
        for package in re.findall(r"^ *(?:from|import) (\w+)", code, flags=re.MULTILINE):
            assert package in known or package in wanted, (name, package)


@pytest.mark.parametrize("name", RUN)
def test_the_page_runs(
    name: str, hub: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shutil.copyfile(DOCS / "images" / "scene.png", "picture.png")  # the reader's own picture
    names: dict[str, Any] = {"__name__": "page"}
    outputs = [""]
    for block in blocks(PAGES[name]):
        if block.language == "python":
            # as many lines before it as on the page: a traceback then names the page's line
            exec(compile("\n" * (block.line - 1) + hub(block.code), f"docs/{name}", "exec", dont_inherit=True), names)
            outputs.append(capsys.readouterr().out)
        elif block.language == "text":
            assert outputs[-1] == block.code, f"line {block.line}"
        elif not block.generated:
            for line in block.code.splitlines():
                if line.startswith("salience "):
                    assert run_salience(line, tmp_path) == 0, line
                    assert capsys.readouterr().out, line
    CHECKS.get(name, lambda names, outputs: None)(names, outputs)


def _check_mamba(names: dict[str, Any], outputs: list[str]) -> None:
    """The training: the loss began at about 3 (the logarithm of 17 words) and is far below."""
    assert any("120/120" in text for text in outputs)  # the bar, which reached its end
    assert names["loss"] < 1.5
    sentence = names["write"](names["model"], names["tokenizer"], "the red fox")
    assert re.match(r"the red fox (sees|hears|likes) the (cat|dog|owl) and the (cat|dog|owl) runs away", sentence)


def _check_prune(names: dict[str, Any], outputs: list[str]) -> None:
    assert len(names["pruned"].trace.images[0].kept) == 144
    assert Path("kept.png").is_file()


CHECKS = {"mamba.md": _check_mamba, "prune.md": _check_prune}


@pytest.mark.parametrize("name", PAGES)
def test_recorded_commands_are_commands(name: str) -> None:
    """Commands of measurements are parsed, not run."""
    import click

    from salience.cli.main import commands

    lines = lines_of(PAGES[name], generated=True) + (lines_of(PAGES[name]) if name in RECORDS else [])
    for line in lines:
        if not line.startswith("salience "):
            continue
        _, command, *arguments = shlex.split(line)
        found = commands.get_command(click.Context(commands), command)
        assert found is not None, line
        found.make_context(command, arguments)
        for place in arguments:
            if place.startswith("tests/"):
                assert (ROOT / place / "config.json").is_file(), place


def test_make_bench_is_the_benchmarks() -> None:
    """tests/benchmarks runs them at a small size."""
    assert made("bench")[-1] == ".venv/bin/python benchmarks/run.py --out build/bench.json"


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """In the repository itself, where no site is built; `mkdocs build --strict` checks the site's, with anchors."""
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", PAGES[name]):
        if "://" not in target:
            assert Path(os.path.normpath(DOCS / Path(name).parent / target)).exists(), target


def test_every_page_is_in_the_navigation() -> None:
    """And nothing of the site comes from elsewhere."""
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert sorted(_leaves(site["nav"])) == sorted(PAGES)
    assert site["theme"]["font"] is False
    assert site["strict"] is True


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [leaf for part in parts for leaf in _leaves(part)]


def test_supported_versions_are_those_of_the_package() -> None:
    """Every requirement that a user meets is in the table of docs/install.md, with its bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = PAGES["install.md"].split("## Supported versions")[1]
    assert f"| Python | {project['requires-python']} |" in table
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["vlm"]]:
        package, bounds = re.match(r"([\w-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        assert f"| {package} | {bounds} |" in table, requirement
