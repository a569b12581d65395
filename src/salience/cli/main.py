"""The `salience` command: it runs a command, and turns errors into one sentence.

0: done.   2: bad input, or a dependency that is not installed: one sentence on stderr.   130: interrupted.
A traceback (exit code 1) is a bug of ours, never the response to bad input.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

# name -> (module:attribute, help). A command is imported when it is called, so `salience --help` is instant.
COMMANDS = {
    "study": ("salience.cli.study:study", "The main job: fit a scorer, run the whole comparison, write the report."),
    "tradeoff": (
        "salience.cli.tradeoff:tradeoff",
        "Pruning methods x keep ratios on one model: quality, time, FLOPs and memory of each.",
    ),
    "compare": (
        "salience.cli.compare:compare",
        "Sequence models under identical training: loss and accuracy per epoch.",
    ),
    "fit": ("salience.cli.fit:fit", "Train a saliency scorer for a frozen vision-language model."),
    "ask": ("salience.cli.ask:ask", "One answer, with and without pruning, and a picture of the kept tokens."),
    "profile": ("salience.cli.profile:profile", "Predicted savings of pruning on a model; its weights are not needed."),
}

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True}

# Missing package -> the extra that installs it.
_EXTRAS = {
    "transformers": "vlm",
    "tokenizers": "vlm",
    "huggingface_hub": "vlm",
    "matplotlib": "study",
    "jinja2": "study",
    "skimage": "study",
    "mlxtend": "study",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from salience import __version__

        click.echo(f"salience {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings=_SETTINGS)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.option("--traceback", is_flag=True, help="On an error, show the traceback instead of one sentence.")
def commands(traceback: bool) -> None:
    """Keep what matters: prune a vision-language model's visual tokens, and measure the savings and the costs.

    \b
    Example:
      salience study --quick
      salience ask picture.png "which digit is red?" --picture kept.png

    `salience COMMAND --help` explains each command.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit the process."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run the command line. Returns: the exit code."""
    try:
        # not standalone: click returns the code of `ctx.exit()`, and errors reach the lines below
        code = commands.main(list(arguments), prog_name="salience", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.Abort:
        click.echo("Interrupted. Nothing half-written stands under its final name.", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (ValueError, OSError, ImportError) as error:
        sentence = _sentence(error)
        if sentence is None or "--traceback" in arguments:
            raise
        click.echo(f"Error: {sentence}", err=True)
        return 2


def _sentence(error: ValueError | OSError | ImportError) -> str | None:
    """The sentence for the user; None if the error is a bug of ours, whose traceback helps more."""
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        if package == "accelerate":  # in no extra: it is needed only to launch several processes
            return _first_line(str(error))
        extra = _EXTRAS.get(package)
        if extra is None:
            return None
        return f"this needs the package {package!r}, which is not installed: pip install 'salience[{extra}]'."
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}."
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0].strip()
    return line if line.endswith((".", "!", "?")) or not line else f"{line}."
