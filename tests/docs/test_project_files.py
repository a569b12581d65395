"""Workflows, templates and hooks: valid YAML, whose commands, scripts and make targets exist."""

from __future__ import annotations

import re
import runpy
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown import ROOT

FOLDER = ROOT / ".github"
FILES = sorted([*FOLDER.rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff", ROOT / "mkdocs.yml"])
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_yaml(path: Path) -> None:
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_run_commands_that_exist(path: Path) -> None:
    workflow = read(path)
    assert {"name", "on", "jobs", "permissions"} <= set(workflow)
    for name, job in workflow["jobs"].items():
        assert "runs-on" in job and job["steps"], name
        assert set(job.get("needs", "").split()) <= set(workflow["jobs"]), name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), (name, step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@[\w./-]+", step.get("uses", "a/b@c")), step
            for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
                assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE), target
            for script in re.findall(r"(\.ci/[\w.]+)", step.get("run", "")):
                assert (ROOT / script).stat().st_mode & stat.S_IXUSR, script


@pytest.mark.parametrize("path", [ROOT / "Makefile", *sorted((ROOT / ".ci").iterdir())], ids=lambda path: path.name)
def test_scripts_name_tests_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", "")
    for listed in re.findall(r"\$\(addprefix tests/,(.*?)\)", text):
        text += "".join(f" tests/{name}" for name in listed.split())
    for named in re.findall(r"\btests/[\w/.]+", text):
        assert (ROOT / named).exists(), named


def test_all_pythons_and_systems_are_tested() -> None:
    matrix = read(FOLDER / "workflows" / "ci.yml")["jobs"]["tests"]["strategy"]["matrix"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert matrix["python"] == listed
    assert {"ubuntu-latest", "macos-latest"} <= set(matrix["system"])
    assert {*matrix["versions"], *(one["versions"] for one in matrix["include"])} == {"newest", "oldest"}


def test_only_the_publishing_job_may_identify_itself() -> None:
    jobs = read(FOLDER / "workflows" / "release.yml")["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"] == "pypi"
    assert "permissions" not in jobs["build"]


def test_the_oldest_releases_are_those_of_the_package() -> None:
    oldest = runpy.run_path(str(ROOT / ".ci" / "oldest.py"))["oldest"]
    found = oldest(
        '[project]\ndependencies = ["torch>=2.6", "rich>=13", "numba>=0.61,<1"]\n'
        'optional-dependencies = {vlm = ["transformers>=5.21,<5.25"]}\n'
    )
    assert found == ["torch~=2.6.0", "numba~=0.61.0", "transformers~=5.21.0"]
    assert len(oldest((ROOT / "pyproject.toml").read_text(encoding="utf-8"))) == 3


def test_hooks_have_the_pinned_ruff() -> None:
    hooks = read(ROOT / ".pre-commit-config.yaml")["repos"]
    pinned = re.search(r"^ruff==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert pinned is not None
    assert hooks[0]["rev"] == f"v{pinned[1]}"


@pytest.mark.parametrize("path", sorted((FOLDER / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name)
def test_issue_templates_ask_something(path: Path) -> None:
    template = read(path)
    if path.name != "config.yml":
        assert {"name", "description", "body"} <= set(template)
        assert all(part["attributes"]["label"] for part in template["body"])
