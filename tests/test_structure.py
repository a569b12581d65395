"""Structure of the whole package, read from its source: import cycles, and names with two meanings.

Imports count at the top of a module and inside functions, because both make one module need another. Imports under
`TYPE_CHECKING` do not count. That a lower floor never imports a higher one is held by import-linter (pyproject.toml).
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

#: Basename of several modules -> the one job that all of them do.
SAME_JOB = {
    "base": "base classes of the modules beside it",
    "checks": "argument checks of one operator",
    "column_definitions": "definitions of the columns of one report",
    "compare": "one part of `salience compare`: command, study, report",
    "config": "typed configuration of one study",
    "costs": "costs that one study measures",
    "cpu": "CPU path of one operator",
    "cpu_kernels": "CPU kernels of one operator, forward and backward",
    "cpu_step": "CPU kernel of one operator's single step",
    "figures": "figures of one report",
    "fit": "one part of `salience fit`: command, training",
    "mamba": "Mamba's mixer: as a layer, and as transformers' module on its kernels",
    "operators": "PyTorch operators of one op",
    "page_content": "sections of one report",
    "profile": "one part of `salience profile`: command, predictions",
    "reference": "plain version of one operator",
    "registry": "table of the modules beside it",
    "run": "one study, from its config to its record",
    "study": "one part of `salience study`: command, study",
    "tradeoff": "one part of `salience tradeoff`: command, study, report",
    "triton": "Triton path of one operator",
    "triton_kernels": "Triton kernels of one operator",
}


@cache
def modules() -> dict[str, ast.Module]:
    """Module name -> its syntax tree."""
    found = {}
    for path in sorted((SOURCE / "salience").rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text("utf-8"))
    return found


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports of a module but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in node.orelse:
                yield from imports(other)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from imports(node)


def graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports."""
    edges: dict[str, set[str]] = {}
    for name, tree in trees.items():
        needed = set()
        for node in imports(tree):
            if isinstance(node, ast.Import):
                needed |= {each.name for each in node.names}
            elif node.level == 0 and node.module:
                submodules = {f"{node.module}.{each.name}" for each in node.names}
                needed |= submodules & trees.keys()
                if submodules - trees.keys():  # names that the module itself defines
                    needed.add(node.module)
        edges[name] = (needed & trees.keys()) - {name}
    return edges


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(edges[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in index:
            visit(name)
    return found


def basenames() -> dict[str, list[str]]:
    """Basename -> the modules and packages of that name, where there are several."""
    found = defaultdict(list)
    for name in modules():
        found[name.rpartition(".")[2]].append(name)
    return {base: names for base, names in found.items() if len(names) > 1}


def test_no_import_cycle() -> None:
    assert cycles(graph(modules())) == []


def test_no_relative_import() -> None:
    relative = [name for name, tree in modules().items() for n in imports(tree) if getattr(n, "level", 0)]
    assert relative == []  # the module graph is made of absolute names


def test_only_commands_import_the_root_package() -> None:
    importing = {name for name, needed in graph(modules()).items() if "salience" in needed}
    assert {name for name in importing if not name.startswith("salience.cli.")} == set()


def test_one_basename_one_job() -> None:
    several = basenames()
    assert {base: names for base, names in several.items() if base not in SAME_JOB} == {}


def test_one_class_name_one_class() -> None:
    defined: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                defined[node.name].append(module)
    assert {name: places for name, places in defined.items() if len(places) > 1} == {}


def parsed(**sources: str) -> dict[str, ast.Module]:
    return {name: ast.parse(text) for name, text in sources.items()}


@pytest.mark.parametrize(
    "back",
    ["import a", "from a import name", "def f():\n    from a import name", "try:\n    import a\nfinally: ..."],
)
def test_a_cycle_is_found(back: str) -> None:
    assert cycles(graph(parsed(a="from b import name", b="import c", c=back, d="import a"))) == [["a", "b", "c"]]


def test_types_alone_make_no_cycle() -> None:
    back = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a import Name"
    assert cycles(graph(parsed(a="from b import name", b=back))) == []
