"""Options and helpers that the commands share."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])


def shared_options(*, out: str | None, writes: str) -> Callable[[Command], Command]:
    """Add --out, --seed, --device and --json. `out` is the default folder, `writes` the names of what goes there."""
    options = (
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=out,
            metavar="DIR",
            help=f"Folder for {writes}.",
        ),
        click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Seed of every draw."),
        click.option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps."),
        click.option("--json", "as_json", is_flag=True, help="Print the results document on stdout and nothing else."),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


#: Shared help text of the options that name a method; their type is `method_name`.
OWN_METHOD = "module:Class, a salience.Method of yours in the current folder or an installed package"


def method_name(text: str) -> str:
    """Return the name; for "module:Class" let the current folder be searched too, after the installed packages."""
    if ":" in text and (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)
    return text


def comma_list(ctx: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Callback of a repeatable option that also takes several values with commas between them.

    Raises: ValueError, naming the option, if it is given without a value
    """
    parts = tuple(part.strip() for text in given for part in text.split(",") if part.strip())
    if given and not parts:
        raise ValueError(f"{option.opts[0]} is given, but holds no value.")
    return parts


def comma_numbers(ctx: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[float, ...]:
    """The same for numbers; raises ValueError, naming the option, for other values."""
    parts = comma_list(ctx, option, given)
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise ValueError(
            f"{option.opts[0]} must be numbers with commas between them, such as 1,0.5,0.25, not {', '.join(given)!r}."
        ) from None


def typed(*left_out: str) -> str:
    """The running command line, without the options `left_out` (their Python names)."""
    context = click.get_current_context()
    parts = context.command_path.split()
    for option in context.command.params:
        name = str(option.name)
        if name in left_out or context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        given = context.params[name]
        for value in given if isinstance(given, tuple) else (given,):
            parts += [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return shlex.join(parts)


def note(text: str) -> None:
    """Print one line on stderr, apart from the results."""
    click.echo(text, err=True)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner on stderr during work without steps, if stderr is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def require_folder(folder: Path, option: str = "--out") -> Path:
    """Make `folder` and try to write a file, so that a long run does not fail at its end.

    Raises: ValueError when it can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{option}: {folder} can't be written ({(error.strerror or str(error)).lower()}).") from error
    return folder


@contextlib.contextmanager
def stdout_for_results(as_json: bool) -> Iterator[None]:
    """With --json, send to stderr whatever libraries print, so that stdout holds the document alone."""
    if not as_json:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def print_document(document: Mapping[str, Any]) -> None:
    """Print the results document on stdout."""
    click.echo(json.dumps(document, indent=1, allow_nan=False))
