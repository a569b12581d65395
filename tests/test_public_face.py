"""`import salience`: what it offers, what it loads, and how long that takes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import salience

HEAVY = ["transformers", "numba", "triton", "matplotlib", "skimage", "mlxtend", "jinja2", "PIL"]


def in_a_fresh_process(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_names_are_few_sorted_and_there() -> None:
    assert len(salience.__all__) <= 20
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
