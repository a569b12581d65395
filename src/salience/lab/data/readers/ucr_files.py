"""Text formats of the UCR/UEA archive: `.ts`, and `.tsv` or `.txt` with the label in the first column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salience.lab.data.readers.text_files import read_text

Series = NDArray[np.float32]  # (L, channels)


def read_series(path: Path) -> tuple[list[Series], list[str]]:
    """Return the series of a file and their labels. Raises ValueError, one sentence with the line, for a bad file."""
    read = _ts_line if path.suffix == ".ts" else _table_line
    found: list[Series] = []
    labels: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip() or line.lstrip()[0] in "#@%":
            continue
        try:
            series, label = read(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}.") from None
        if not np.isfinite(series).all():
            raise ValueError(f"{path}, line {number}: a value is missing or not finite, and every one is needed.")
        if found and series.shape[1] != found[0].shape[1]:
            raise ValueError(f"{path}, line {number}: {series.shape[1]} channels, but {found[0].shape[1]} came before.")
        found.append(series)
        labels.append(label)
    if not found:
        raise ValueError(f"{path} holds no series.")
    return found, labels


def find_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the training and test files of a data set. Raises ValueError where they are missing."""
    for suffix in (".ts", ".tsv", ".txt"):
        train, test = (folder / f"{name}_{split}{suffix}" for split in ("TRAIN", "TEST"))
        if train.is_file() and test.is_file():
            return train, test
    raise ValueError(f"there are no files {name}_TRAIN and {name}_TEST (.ts, .tsv or .txt) in {folder}.")


def _ts_line(line: str) -> tuple[Series, str]:
    *channels, label = line.strip().split(":")
    values = [[float("nan") if v.strip() == "?" else float(v) for v in channel.split(",")] for channel in channels]
    if not values or any(len(channel) != len(values[0]) for channel in values):
        raise ValueError("not 'values:...:label' with channels of one length")
    return np.asarray(values, dtype=np.float32).T, label.strip()


def _table_line(line: str) -> tuple[Series, str]:
    line = line.strip()
    label, *values = line.split(next((sign for sign in "\t," if sign in line), None))  # an empty cell is missing
    if not values:
        raise ValueError("a label without values")
    number = float(label)
    return np.asarray([[float(v)] for v in values], dtype=np.float32), f"{number:g}"
