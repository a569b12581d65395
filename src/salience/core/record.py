"""The results document that studies write and reports read: `results.json`.

`{"schema": 1, "environment": {...}, "records": [{"kind", "config": {...}, "rows": [{...}], ...}]}`. A column's name
carries its unit; accuracies lie in 0..1; what was not measured is null and never left out.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from salience.core.files import write_atomic
from salience.core.json_text import read_json

SCHEMA = 1

Record = dict[str, Any]
Document = dict[str, Any]

#: The question kinds of the `scenes` task, as the accuracy columns spell them.
KINDS = ("digit_of_colour", "colour_of_digit", "is_there", "count", "relation")

TRADEOFF_TIMES = ("encode_ms", "select_ms", "project_ms", "prefill_ms", "first_token_ms", "decode_ms_per_token")
TRADEOFF_COSTS = ("flops_total", "flops_llm", "kv_bytes", "peak_bytes")
TRADEOFF_QUALITY = (
    "accuracy", "accuracy_low", "accuracy_high", "answer_kl", "probe_accuracy", "feature_cosine", "saliency_mass",
    *(f"accuracy_{kind}" for kind in KINDS),
)  # fmt: skip

#: kind -> columns that every row has
ROW_COLUMNS: dict[str, tuple[str, ...]] = {
    "tradeoff": ("method", "keep", "tokens_kept", "seed", *TRADEOFF_QUALITY, *TRADEOFF_TIMES, *TRADEOFF_COSTS),
    "profile": (
        "keep", "tokens_kept", "flops_vision", "flops_scorer", "flops_projector", "flops_llm", "flops_total",
        "kv_bytes", "peak_bytes",
    ),
    "compare": (
        "model", "seed", "epoch", "train_loss", "test_loss", "test_accuracy", "parameters", "train_tokens_per_s",
    ),
}  # fmt: skip

#: kind -> keys that every config has
CONFIG_KEYS: dict[str, tuple[str, ...]] = {
    "tradeoff": ("model", "task", "n_questions", "question_only_accuracy", "majority_accuracy", "n_visual_tokens"),
    "profile": (),
    "compare": ("task", "length", "majority_accuracy", "chance_accuracy"),
}


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a measurement was made on: versions, processor, threads, platform, commit, date, device."""
    torch = sys.modules.get("torch")
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "salience": _version("salience"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "platform": platform.platform(),
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
    }


#: A machine was busy if its load average was above so many times its cores, before a run and after one (which is
#: itself a load), or if a fixed job's 90th percentile was so many times its 10th.
BUSY_AT_START, BUSY_AT_END, BUSY_SPREAD = 0.75, 1.5, 1.3


def busy_because(environment: Mapping[str, Any], cores: int) -> str | None:
    """One sentence if what `profiling.machine.Machine` saw is that of a busy machine, else None."""
    start, end, spread = (environment.get(n) for n in ("load_average_start", "load_average_end", "floor_spread"))
    if start is not None and start > BUSY_AT_START * cores:
        return f"The load average was {start:.1f} at the start of the run, on {cores} cores."
    if end is not None and end > BUSY_AT_END * cores:
        return f"The load average was {end:.1f} at the end of the run, on {cores} cores."
    if spread is not None and spread > BUSY_SPREAD:
        return (
            f"A fixed job, timed again and again, took {spread:.1f} times as long at its slow end as at its fast one."
        )
    return None


def document(records: Sequence[Record], device: str = "cpu", *, machine: Mapping[str, Any] | None = None) -> Document:
    """The results document of these records, validated. machine: what `profiling.machine.Machine` observed"""
    measured_on = {**environment(device), **(machine or {})}
    if any((record.get("config") or {}).get("quick") for record in records):
        measured_on["quick"] = True  # the document as a whole is not to be quoted
    found = {"schema": SCHEMA, "environment": measured_on, "records": list(records)}
    validate(found)
    return found


def validate(found: Mapping[str, Any]) -> None:
    """Raise ValueError with one sentence if the document lacks a required key or column, or holds NaN or infinity."""
    if found.get("schema") != SCHEMA:
        raise ValueError(f"schema is {found.get('schema')!r}, but this version reads schema {SCHEMA}")
    if not isinstance(found.get("records"), list) or not isinstance(found.get("environment"), dict):
        raise ValueError("a results document needs 'environment' (an object) and 'records' (a list)")
    for number, record in enumerate(found["records"]):
        kind = record.get("kind")
        if kind not in ROW_COLUMNS:
            raise ValueError(f"records[{number}].kind is {kind!r}, but must be one of {', '.join(sorted(ROW_COLUMNS))}")
        _require(record.get("config", {}), CONFIG_KEYS[kind], f"records[{number}].config")
        for at, row in enumerate(record.get("rows", [])):
            _require(row, ROW_COLUMNS[kind], f"records[{number}].rows[{at}]")
    _refuse_non_finite(found, "results")


def write(path: str | os.PathLike[str], found: Document) -> Path:
    """Validate the document and write it as JSON, aside first and then renamed. Returns the path."""
    validate(found)
    return write_atomic(path, json.dumps(found, indent=1, allow_nan=False) + "\n")


def read(path: str | os.PathLike[str]) -> Document:
    """Read and validate a results document. Raises ValueError when it is not one."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, but a results document is an object")
    validate(found)
    return found


def _require(mapping: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}; what was not measured is written as null")


def _refuse_non_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, but numbers must be finite; what was not measured is written as null")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_non_finite(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            _refuse_non_finite(inner, f"{where}[{at}]")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's name as Linux tells it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def _commit() -> str | None:
    """The commit that this source was checked out at ('+' when files differ from it), or None outside a checkout."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
