"""`import salience`: what it offers, what it loads, and how long that takes."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import salience

HEAVY = ["transformers", "numba", "triton", "matplotlib", "skimage", "mlxtend", "jinja2", "PIL"]


def in_a_fresh_process(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_names_are_few_sorted_and_there() -> None:
    assert len(salience.__all__) <= 24
    assert salience.__all__ == sorted(salience.__all__)
    for name in salience.__all__:
        assert getattr(salience, name) is not None
        assert name in dir(salience)


def test_other_names_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        salience.nothing  # noqa: B018


def test_import_loads_nothing_heavy() -> None:
    loaded = in_a_fresh_process("import json, sys, salience; print(json.dumps(sorted(sys.modules)))")
    assert not set(HEAVY) & set(loaded)
    assert "torch" not in loaded  # comes with the first name that needs it


def test_names_that_need_no_model_load_no_transformers() -> None:
    loaded = in_a_fresh_process(
        "import json, sys, salience; salience.prune, salience.Scorer, salience.Oracle, salience.bundled_model(); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert not {"transformers", "numba", "matplotlib", "skimage", "mlxtend"} & set(loaded)


def test_operators_and_layers_load_neither_compilers_nor_transformers() -> None:
    loaded = in_a_fresh_process(
        "import json, sys, salience; salience.selective_scan, salience.causal_conv1d, salience.MambaLM; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert not {"numba", "triton", "transformers", "torch._dynamo"} & set(loaded)


def test_import_takes_little_over_torch() -> None:
    code = (
        "import json, time, torch; start = time.process_time(); import salience; "
        "print(json.dumps(time.process_time() - start))"
    )
    # the process's own time: what else runs on the machine is not this package's
    assert in_a_fresh_process(code) <= 0.3


def told_names() -> list[str]:
    """Every dotted name of ours that a message or a docstring tells people."""
    found: set[str] = set()
    for file in Path(salience.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"(?<![\w./-])salience(?:\.[A-Za-z_]\w*)+", node.value))
    return sorted(name for name in found if not name.startswith("salience.lab.lmms.model."))  # for lmms-eval alone


@pytest.mark.parametrize("name", told_names())
def test_a_name_that_people_are_told_is_there(name: str) -> None:
    """As somebody types it: attributes of the package, modules imported where they have to be."""
    found: Any = salience
    path = "salience"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(found, part):
            importlib.import_module(path)
        found = getattr(found, part)
    assert found is not None
