"""Every command of the README runs, and its Python; its table comes from a results file; its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
SALIENCE = [line for line in COMMANDS if line.startswith("salience ")]
#: what is not a salience command, and the test below that stands for it
OTHERS = {
    "make study": "test_make_study_is_the_study",
    "make test": "test_make_test_is_pytest",
    "python3 -m venv .venv": "test_a_virtual_environment_can_be_made",
    ".venv/bin/pip install -c constraints.txt -e '.[vlm,study]'": "test_the_pins_hold_for_all_extras_together",
    "make bench": "test_make_bench_is_the_benchmarks",
}


def test_every_command_has_a_test() -> None:
    assert len(SALIENCE) >= 4
    assert [line for line in COMMANDS if line not in SALIENCE] == list(OTHERS)
    assert all(name in globals() for name in OTHERS.values())


@pytest.mark.parametrize("line", SALIENCE)
def test_a_command_runs_as_it_is_written(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a scratch folder and on few pictures; the model of one's own is a copy of the bundled one."""
    import salience
    from salience.cli.main import run

    arguments = shlex.split(line)[1:]
    if "path/to/your-llava" in line:
        own = shutil.copytree(salience.bundled_model(), tmp_path / "llava", ignore=shutil.ignore_patterns("salience"))
        arguments = [part.replace("path/to/your-llava", str(own)) for part in arguments]
    arguments = [part.replace("docs/", f"{ROOT}/docs/").replace("build/", f"{tmp_path}/") for part in arguments]
    if arguments[0] in ("fit", "tradeoff", "study", "compare") and "--help" not in arguments:
        arguments.append("--quick")
    assert run(arguments) == 0
    assert capsys.readouterr().out


def test_make_study_is_the_study() -> None:
    """`salience study --quick` itself runs in tests/cli and in .ci/run."""
    assert made("study")[-1] == ".venv/bin/salience study --out build/study"


def test_make_test_is_pytest() -> None:
    assert "-m pytest" in made("test")[-1]


def test_make_bench_is_the_benchmarks() -> None:
    """What they do at a small size is in tests/benchmarks."""
    assert made("bench")[-1] == ".venv/bin/python benchmarks/run.py --out build/bench.json"


def made(target: str) -> list[str]:
    """The commands that `make target` would run, nothing of it run."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip().splitlines()


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


@pytest.mark.parametrize("code", [block for block in blocks("python") if "import salience" in block])
def test_the_python_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_pictures_and_links_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(targets) > 4
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


def test_the_table_is_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are never typed: writing the table again from the file it names changes nothing."""
    monkeypatch.syspath_prepend(ROOT / "recipes")
    from readme_table import BEGIN, END, table

    from salience.core.markers import filled
    from salience.lab.report.load import load_results

    between = README.split(BEGIN)[1].split(END)[0]
    named = re.search(r"\((benchmarks/results/[^)]+\.json)\)", between)
    assert named is not None, "the table names no results file"
    path = ROOT / named[1]
    assert filled(README, BEGIN, END, table(load_results(path, path.parent), named[1])) == README
