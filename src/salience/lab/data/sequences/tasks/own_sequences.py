"""`csv:PATH`: classification of your own labelled sequences, from a CSV or JSONL file.

CSV     one sequence a row: a column `label`, and the steps as numbers in the other columns, in order. The cells are
        separated by commas, semicolons or tabs; the text is UTF-8, or UTF-16 with its mark.
JSONL   an object a line, or a JSON list of objects: "label", and "sequence": a list of numbers, a list of equally long
        lists of numbers (several a step), or a string, which is read as its UTF-8 bytes. Lengths may differ.
Two further columns or keys are optional. `split` (train, val or test) assigns a row; then every row needs it. `group`
(writer, patient, device, day) names the origin of a row. Without `split`, rows are split 8 : 1 : 1 by a hash and the
seed; rows of one group, and equal rows, stay in one split. Numbers are (x - mean) / deviation with constants of the
training rows. The licence and the credit are the file's owner's.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from salience.lab.data.readers.strict_csv import read_sheet
from salience.lab.data.readers.strict_json import JsonLine, read_json
from salience.lab.data.readers.text_files import MISSING, NUMBER, as_seen, column_name, failed_formula, how_to_save
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import Stored
from salience.lab.data.sequences.task_options import Options
from salience.lab.data.sequences.tasks.timeseries import normaliser, stored

OPTIONS: Options = {}
SPLITS = ("train", "val", "test")
_SHARES = (8, 1, 1)
Values = NDArray[np.float64] | NDArray[np.int64]
_NAMED = ("label", "split", "group")
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One sequence. values: (L, channels) float64, or (L,) int64 bytes of text   where: "PATH, line N" for messages"""

    values: Values
    label: str
    split: str
    group: str
    where: str


def build(path: str, *, seed: int) -> SequenceTask:
    """Make the task. Raises ValueError, one sentence with the line, for data that can't be read."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"csv: there is no file {path}.")
    if how := how_to_save(file):
        raise ValueError(f"csv: {path} can't be read; {how}.")
    rows = list(_json_rows(file) if file.suffix.lower() in (".jsonl", ".json", ".ndjson") else _csv_rows(file))
    if not rows:
        raise ValueError(f"{path} holds no sequence.")
    _require_alike(rows)
    _require_labels(rows)
    by_split = _deal(rows, seed)
    for split, found in by_split.items():
        if not found:
            raise ValueError(
                f"{path}: no row is in the {split} split; more rows or groups, or a column 'split', are needed."
            )
    classes = tuple(sorted({row.label for row in by_split["train"]}))
    if len(classes) < 2:
        raise ValueError(f"{path}: the training rows have the one label {classes[0]!r}, but at least 2 are needed.")
    for row in (*by_split["val"], *by_split["test"]):
        if row.label not in classes:
            raise ValueError(f"{row.where}: no training row has the label {row.label!r}.")
    token = rows[0].values.ndim == 1
    splits = _splits(by_split, classes, token)
    return SequenceTask(
        kind="classify",
        n_classes=len(classes),
        vocabulary=256 if token else 0,
        d_input=0 if token else rows[0].values.shape[1],
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        metric="accuracy per sequence",
        source=f"{file.name}: {' / '.join(str(len(by_split[s])) for s in SPLITS)} rows, "
        f"{'split as the file says' if rows[0].split else 'equal rows and rows of one group in one split'}",
        licence="as the file's owner says",
        credit="as the file's owner says",
        classes=classes,
    )


def _csv_rows(file: Path) -> Iterator[Row]:
    named, rows = read_sheet(file, lambda names: "label" in names)
    header = [column_name(name) for name in named]
    if "label" not in header:
        raise ValueError(f"{file} has no column 'label' in its first line; its columns are {', '.join(named[:8])}.")
    steps = [at for at, column in enumerate(header) if column not in _NAMED]
    for at in steps:
        if not header[at] or re.fullmatch(r"unnamed:_\d+", header[at]):
            raise ValueError(
                f"{file}: column {at + 1} has no name; where it is pandas' index, which is no step, write index=False."
            )
    if not steps:
        raise ValueError(f"{file} has no column besides {', '.join(named)}, but each step is one.")
    for row in rows:
        about = {key: row.cells[header.index(key)].strip() if key in header else "" for key in _NAMED}
        yield _row([row.cells[at] for at in steps], about, f"{file}, line {row.line}")


def _json_rows(file: Path) -> Iterator[Row]:
    found = read_json(file, str(file))
    for item in found if isinstance(found, list) else [JsonLine(value=found, number=1, line=0)]:
        where = f"{file}, {f'line {item.line}' if item.line else f'row {item.number}'}"
        given = item.value if isinstance(item.value, dict) else {}
        values = {column_name(key): value for key, value in given.items()}
        if "sequence" not in values:
            raise ValueError(f"{where}: an object with 'sequence' and 'label' is needed.")
        yield _row(values["sequence"], {key: _text(values.get(key), key, where) for key in _NAMED}, where)


def _text(value: Any, name: str, where: str) -> str:
    """Return a label, split or group as text: a number as written, true as "true", empty for a missing one."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: the {name} is missing (it is {value}).")
    if not isinstance(value, str | int | float):
        raise ValueError(f"{where}: the {name} must be text or a number, not {type(value).__name__}.")
    return str(value).strip()


def _row(steps: Any, named: dict[str, str], where: str) -> Row:
    if not named["label"]:
        raise ValueError(f"{where}: the label is missing.")
    if named["split"] and named["split"] not in SPLITS:
        raise ValueError(f"{where}: split must be one of {', '.join(SPLITS)}, not {named['split']!r}.")
    return Row(values=_values(steps, where), where=where, **named)


def _values(steps: Any, where: str) -> Values:
    if isinstance(steps, str):
        try:
            values: Values = np.frombuffer(steps.encode(), dtype=np.uint8).astype(np.int64)
        except UnicodeEncodeError:
            raise ValueError(f"{where}: the sequence holds half of a surrogate pair, which is no letter.") from None
    elif isinstance(steps, list):
        wide = [step if isinstance(step, list) else [step] for step in steps]
        if any(len(step) != len(wide[0]) for step in wide):
            raise ValueError(f"{where}: steps of different widths.")
        values = np.asarray([[_number(v, where) for v in step] for step in wide], dtype=np.float64)
    else:
        raise ValueError(f"{where}: 'sequence' must be a list or a string, not {type(steps).__name__}.")
    if values.size == 0:
        raise ValueError(f"{where}: the sequence is empty.")
    return values


def _number(value: Any, where: str) -> float:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and not value.isascii()) or "_" in str(value):
            raise ValueError  # Python would read 1_0 as ten and True as one
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        hint = "; decimals need a point" if re.fullmatch(r"\s*-?\d*,\d+\s*", str(value)) else ""
        raise ValueError(f"{where}: {value!r} is not a number{hint}.") from None
    if not math.isfinite(number) or abs(number) > _LARGEST:
        raise ValueError(f"{where}: {value!r} is not a finite number{' in float32' if math.isfinite(number) else ''}.")
    return number


def _require_labels(rows: Sequence[Row]) -> None:
    """Refuse one label that is written in two ways, and "nan" among numbers."""
    written: dict[float, Row] = {}
    seen: dict[str, Row] = {}
    for row in rows:
        if failed_formula(row.label):
            raise ValueError(f"{row.where}: the label is missing (it is {row.label}, a formula that failed).")
        first = seen.setdefault(as_seen(row.label), row)
        if first.label != row.label:
            raise ValueError(
                f"{row.where}: the label {row.label!a} looks like {first.label!a} in {first.where.rpartition(', ')[2]};"
                " write one class in one way."
            )
    gap = next((row for row in rows if row.label in MISSING), None)
    others = [row for row in rows if row.label not in MISSING]
    numbers = [row for row in others if NUMBER.fullmatch(row.label)]
    if gap is not None and others and len(numbers) == len(others):
        raise ValueError(f"{gap.where}: the label is missing (it is {gap.label}, and all others are numbers).")
    for row in numbers:
        first = written.setdefault(float(row.label), row)
        if first.label != row.label:
            raise ValueError(
                f"{row.where}: the label {row.label!r} is {first.label!r} in {first.where.rpartition(', ')[2]}; write "
                "one class in one way."
            )


def _require_alike(rows: Sequence[Row]) -> None:
    first = rows[0]
    for row in rows:
        if row.values.ndim != first.values.ndim or row.values.shape[1:] != first.values.shape[1:]:
            raise ValueError(f"{row.where}: its steps are of another kind or width than those of {first.where}.")
        if bool(row.split) != bool(first.split):
            raise ValueError(f"{row.where}: 'split' must be given in every row or in none.")


def _deal(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Return the rows of each split. Rows that are equal or share a group, also through others, stay together."""
    found: dict[str, list[Row]] = {split: [] for split in SPLITS}
    if rows[0].split:
        for row in rows:
            found[row.split].append(row)
        _refuse_shared_groups(found)
        return found
    root = list(range(len(rows)))

    def top(at: int) -> int:
        while root[at] != at:
            root[at] = root[root[at]]
            at = root[at]
        return at

    known: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows):
        keys = [("content", _digest(row.values.tobytes()))] + ([("group", row.group)] if row.group else [])
        for key in keys:
            other = top(known.setdefault(key, number))
            root[max(top(number), other)] = min(top(number), other)
    together: dict[int, list[Row]] = {}
    for number, row in enumerate(rows):
        together.setdefault(top(number), []).append(row)
    # In the order of a hash, each bundle goes to the split that is furthest below its share.
    for bundle in sorted(together.values(), key=lambda bundle: _digest(f"{seed}/{_name(bundle[0])}".encode())):
        behind = [len(found[split]) / share for split, share in zip(SPLITS, _SHARES, strict=True)]
        found[SPLITS[behind.index(min(behind))]].extend(bundle)
    return found


def _refuse_shared_groups(found: dict[str, list[Row]]) -> None:
    home: dict[str, str] = {}
    for split, rows in found.items():
        for row in rows:
            if row.group and home.setdefault(row.group, split) != split:
                raise ValueError(f"{row.where}: group {row.group!r} is in {home[row.group]} and in {split}.")


def _name(row: Row) -> str:
    values = row.values if row.values.ndim == 1 else row.values.astype(np.float32)
    return row.group or _digest(values.tobytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _splits(by_split: dict[str, list[Row]], classes: Sequence[str], token: bool) -> dict[str, Stored]:
    targets = {split: [classes.index(row.label) for row in rows] for split, rows in by_split.items()}
    values = {split: [row.values for row in rows] for split, rows in by_split.items()}
    if not token:
        # Before float32, whose seven digits would make seconds since 1970 equal.
        origin = np.median(np.concatenate(values["train"]), axis=0)  # exact for a constant channel
        near = {split: [(row - origin).astype(np.float32) for row in found] for split, found in values.items()}
        mean, deviation = normaliser(near["train"])
        return {split: stored(near[split], targets[split], mean, deviation) for split in SPLITS}
    return {split: Stored.padded(list(map(torch.from_numpy, values[split])), targets[split]) for split in SPLITS}
