"""A folder of questions and pictures: which layout it has, which file is which split, where each picture is."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from salience.data.vqa import easy_vqa, gqa, pope, table, textvqa, vqav2
from salience.data.vqa.sample import Entry, VqaSample

_LAYOUTS = {"gqa": gqa, "textvqa": textvqa, "pope": pope, "easy-vqa": easy_vqa, "table": table}
_FILES = {".json", ".jsonl", ".csv", ".tsv"}
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_ALL = "VQAv2, GQA, TextVQA, POPE, easy-VQA, or a table (CSV, TSV, JSONL) with image, question and answer"


@dataclass(frozen=True, kw_only=True)
class VqaTask:
    """samples: the questions to be asked, a picture's one behind the other   train: those of a training split, or none
    layout: which one the folder has"""

    samples: tuple[VqaSample, ...]
    train: tuple[VqaSample, ...]
    layout: str


def load_folder(path: str | Path) -> VqaTask:
    """The questions of a folder, or of one file whose pictures are beside or below it.

    Files whose path has "train" in it are for the baselines alone; of several other splits that have answers, the test
    split is taken, else the validation split, else all there is.

    Raises: ValueError, one sentence, when there is no such place, no file in it in a layout that is known, or a row
        lacks what it must have, or its picture is nowhere
    """
    root = Path(path)
    if not root.exists():
        raise ValueError(f"task: there is no folder or file {root}.")
    folder = root if root.is_dir() else root.parent
    layout, found = _read_all(folder, [root] if root.is_file() else None)
    index = _Pictures(folder)
    parts = {name: list(entries) for name, entries in found.items()}
    train = [entry for name, entries in parts.items() if _split(name) == "train" for entry in entries]
    asked = _chosen({name: entries for name, entries in parts.items() if root.is_file() or _split(name) != "train"})
    if not asked:
        raise ValueError(f"task: {root} has no question with an answer outside a training split.")
    samples = _grouped(asked, index)
    return VqaTask(samples=samples, train=() if root.is_file() else _grouped(train, index, look=False), layout=layout)


def _chosen(parts: dict[str, list[Entry]]) -> list[Entry]:
    for split in ("test", "val", ""):
        entries = [entry for name, mine in parts.items() if _split(name) == split for entry in mine]
        if entries:
            return entries
    return [entry for mine in parts.values() for entry in mine]


def _split(name: str) -> str:
    """The split that a file's path below the folder names."""
    found = re.search(r"(?<![a-z])(train|test|val)", name.lower())
    return found[1] if found else ""


def _read_all(folder: Path, files: list[Path] | None) -> tuple[str, dict[str, Iterable[Entry]]]:
    """The layout, and for each questions file, named by its path below the folder, its entries."""
    beside = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _FILES and file.is_file())
    contents = {str(file.relative_to(folder)): _content(file) for file in (files or beside)}
    questions = {name: content for name, content in contents.items() if vqav2.reads(content)}
    if questions:
        answers: dict[str, Any] = {}
        for content in [_content(file) for file in beside] if files else contents.values():
            answers |= vqav2.answers_by_question(content)
        return "vqav2", {name: vqav2.entries(content, name, answers) for name, content in questions.items()}
    for layout, module in _LAYOUTS.items():
        mine = {name: content for name, content in contents.items() if module.reads(content)}
        if mine:
            return layout, {name: module.entries(content, name) for name, content in mine.items()}
    raise ValueError(f"task: {folder} has no questions in a layout that is known: {_ALL}.")


def _content(file: Path) -> Any:
    """What a file holds: JSON, or a list of rows of JSONL (whatever its ending) or CSV; None for what is neither."""
    try:
        if file.suffix.lower() in (".csv", ".tsv"):
            with file.open(newline="", encoding="utf-8-sig") as stream:
                return list(csv.DictReader(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ","))
        text = file.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, csv.Error):
        return None
    if file.suffix.lower() == ".jsonl":  # a single line is JSON as well
        return _json_lines(text, file)
    try:
        return json.loads(text)
    except ValueError:
        return _json_lines(text, file)


def _json_lines(text: str, file: Path) -> Any:
    """Raises ValueError naming the line that is no JSON, where the first one is."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError:
            if not rows:
                return None
            raise ValueError(f"task: {file.name}, row {number} is no JSON.") from None
    return rows


class _Pictures:
    """Where the pictures below a folder are, by path, by name, and by name without ending."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.by_name: dict[str, Path] = {}
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() in _PICTURES:
                for key in (file.name, file.stem, *_number(file.stem)):
                    self.by_name.setdefault(key, file)

    def find(self, entry: Entry) -> Path:
        """Raises ValueError naming the row when the picture is nowhere below the folder."""
        for place in self._places(entry):
            if place is not None and place.is_file():
                return place
        raise ValueError(f"{entry.row}: image: there is no file {entry.image} below {self.folder}.")

    def _places(self, entry: Entry) -> Iterator[Path | None]:
        beside = (self.folder / entry.row.rpartition(", ")[0]).parent  # of the questions file: names repeat by split
        yield beside / entry.image
        yield beside / "images" / entry.image
        yield self.folder / entry.image
        yield self.by_name.get(Path(entry.image).name) or self.by_name.get(Path(entry.image).stem)
        yield next((self.by_name[key] for key in _number(entry.image) if key in self.by_name), None)


def _number(name: str) -> list[str]:
    """COCO_val2014_000000310196 and 310196 are one picture: its number, as a key that no name has."""
    last = name.rpartition("_")[2]
    return [f"#{int(last)}"] if last.isascii() and last.isdigit() else []


def _grouped(entries: list[Entry], pictures: _Pictures, *, look: bool = True) -> tuple[VqaSample, ...]:
    """Samples, a picture's together, in the order in which pictures first come. look: whether they must be there."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        key = f"{Path(entry.row.rpartition(', ')[0]).parent}/{entry.image}"
        groups.setdefault(key, []).append(entry)
    # once a picture: its questions are many
    paths = [pictures.find(group[0]) if look else Path(group[0].image) for group in groups.values()]
    return tuple(
        VqaSample(
            path=path,
            question=entry.question,
            answers=entry.answers,
            kind=entry.kind,
            picture=number,
            row=entry.row,
            choices=entry.choices,
        )
        for number, (group, path) in enumerate(zip(groups.values(), paths, strict=True))
        for entry in group
    )
