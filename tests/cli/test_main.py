"""The command group: help everywhere, nothing imported early, every failure a sentence and the right exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from salience.cli.main import COMMANDS, commands

from .conftest import Ran

Run = Callable[..., Ran]


def test_help_lists_every_command(salience: Run) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        ran = salience(*arguments)
        shown = ran.out + ran.err  # without arguments click takes the help for an error message
        for name, (_, about) in COMMANDS.items():
            assert f"\n  {name}" in shown
            assert about.split()[0] in shown
        assert "Example:" in shown
        assert ran.code == (0 if arguments else 2)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_of_itself(salience: Run, name: str) -> None:
    ran = salience(name, "--help")
    assert ran.code == 0
    example = ran.out.partition("Example:")[2].partition("Options:")[0]
    assert f"salience {name}" in example


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_shared_options(name: str) -> None:
    command = commands.get_command(click.Context(commands), name)
    assert command is not None
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--out", "--seed", "--device", "--json"} <= options
    assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    heavy = ("torch", "transformers", "numba", "numpy", "matplotlib", "PIL")
    code = (
        "import sys; from salience.cli.main import run; code = run(sys.argv[1:]); "
        f"sys.exit(code or ' '.join(name for name in {heavy!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_version(salience: Run) -> None:
    from salience import __version__

    assert salience("--version") == Ran(0, f"salience {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [["dance"], ["ask"], ["ask", "a.png", "b", "--sead", "1"], ["fit", "--seed", "-1"]]
)
def test_a_mistyped_command_line_is_exit_code_2(salience: Run, arguments: list[str]) -> None:
    ran = salience(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err
    assert "Traceback" not in ran.err


def failing(error: BaseException) -> click.Command:
    def work(**_: object) -> None:
        raise error

    return click.Command("fit", callback=work)


@pytest.fixture
def fails_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Put a command that raises in the place of `fit`."""

    def put(error: BaseException) -> None:
        module = sys.modules[__name__]
        monkeypatch.setattr(module, "broken", failing(error), raising=False)
        monkeypatch.setitem(COMMANDS, "fit", (f"{__name__}:broken", "fails"))

    return put


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("keep must be at most 1, not 3."), "keep must be at most 1, not 3."),
        (ValueError("no full stop"), "no full stop."),
        (ValueError("first line\nsecond line"), "first line."),
        (PermissionError(13, "Permission denied", "/out/x"), "/out/x: Permission denied."),
        (ModuleNotFoundError("No module named 'skimage'", name="skimage.data"), "pip install 'salience[study]'"),
        (ModuleNotFoundError("No module named 'transformers'", name="transformers"), "pip install 'salience[vlm]'"),
    ],
)
def test_bad_input_and_missing_packages_are_one_sentence(
    salience: Run, fails_with: Callable[[BaseException], None], error: Exception, sentence: str
) -> None:
    fails_with(error)
    ran = salience("fit")
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert sentence in ran.err


def test_an_interrupt_is_exit_code_130(salience: Run, fails_with: Callable[[BaseException], None]) -> None:
    fails_with(KeyboardInterrupt())
    ran = salience("fit")
    assert (ran.code, ran.out) == (130, "")
    assert "Interrupted" in ran.err


@pytest.mark.parametrize(
    "error", [TypeError("ours"), ModuleNotFoundError("No module named 'salience.x'", name="salience.x")]
)
def test_our_own_mistakes_keep_their_traceback(
    salience: Run, fails_with: Callable[[BaseException], None], error: Exception
) -> None:
    fails_with(error)
    with pytest.raises(type(error)):
        salience("fit")


def test_traceback_shows_where_an_error_came_from(salience: Run, fails_with: Callable[[BaseException], None]) -> None:
    fails_with(ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        salience("--traceback", "fit")


def test_the_defaults_that_help_names_are_the_real_ones() -> None:
    """They are written out, because reading them off would import torch for `--help`."""
    from salience.lab.fit.config import FitConfig
    from salience.lab.study.config import StudyConfig

    def named(command: str, option: str) -> str:
        found = commands.get_command(click.Context(commands), command)
        assert found is not None
        (text,) = [p.help for p in found.params if isinstance(p, click.Option) and p.name == option]
        assert text is not None
        return text.partition("[default: ")[2].removesuffix("]")

    fit, tradeoff = FitConfig(), StudyConfig.of().tradeoff
    assert named("fit", "objective") == fit.objective
    assert (named("fit", "pictures"), named("fit", "steps")) == (str(fit.pictures), str(fit.steps))
    assert named("tradeoff", "pictures") == str(tradeoff.pictures)
    assert named("tradeoff", "questions") == str(tradeoff.questions)
    assert tuple(float(keep) for keep in named("tradeoff", "keeps").split(",")) == tradeoff.keeps
