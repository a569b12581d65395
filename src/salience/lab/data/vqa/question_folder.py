"""A folder of questions and pictures: which layout it has, which file is which split, where each picture is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from salience.lab.data.readers.text_files import column_name, how_to_save, is_litter
from salience.lab.data.vqa.layouts import easy_vqa, gqa, own_questions, pope, textvqa, vqav2
from salience.lab.data.vqa.picture_files import PictureFiles
from salience.lab.data.vqa.question_file import SUFFIXES, Content, needs_of, read_content
from salience.lab.data.vqa.sample import Entry, VqaSample

_LAYOUTS = {"gqa": gqa, "textvqa": textvqa, "pope": pope, "easy-vqa": easy_vqa, "table": own_questions}
_ALL = "VQAv2, GQA, TextVQA, POPE, easy-VQA, or a table (CSV, TSV, JSONL) with image, question and answer"
_SAVE = "save it as 'CSV UTF-8' with the columns image, question and answer"
_SPLIT = re.compile(
    r"(?<![a-z])(?:(train)(?:ing)?|(test)(?:ing|dev|std)?|(val)(?:id|idation)?)(?![a-z])"
)  # of a path's words; "values" and "testimony" are none


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
    split is taken, else the validation split, else all there is. Hidden files, and what systems leave in folders
    (`.ipynb_checkpoints`, `__MACOSX`, `~$` files), are not read.

    Raises: ValueError, one sentence, when there is no such place, no file in it in a layout that is known, or files in
        two; when a questions file can't be read; when a row lacks what it must have, or its picture is nowhere, or
        could be one of several
    """
    root = Path(path)
    if not root.exists():
        raise ValueError(f"task: there is no folder or file {root}.")
    folder = root if root.is_dir() else root.parent
    files = _below(folder)
    layout, found = _read_all(folder, files, root if root.is_file() else None)
    pictures = PictureFiles(folder, files)
    parts = {name: list(entries) for name, entries in found.items()}
    train = [entry for name, entries in parts.items() if _split(name) == "train" for entry in entries]
    asked = _chosen({name: entries for name, entries in parts.items() if root.is_file() or _split(name) != "train"})
    if not asked:
        raise ValueError(f"task: {root} has no question with an answer outside a training split.")
    if layout == "table":
        _require_one_source(asked)
    samples = _grouped(asked, pictures)
    return VqaTask(samples=samples, train=() if root.is_file() else _grouped(train, None), layout=layout)


def _below(folder: Path) -> list[Path]:
    """All files below a folder, in order."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _chosen(parts: dict[str, list[Entry]]) -> list[Entry]:
    for split in ("test", "val", ""):
        entries = [entry for name, mine in parts.items() if _split(name) == split for entry in mine]
        if entries:
            return entries
    return [entry for mine in parts.values() for entry in mine]


def _split(name: str) -> str:
    """The split that a file's path below the folder names."""
    found = _SPLIT.search(name.lower())
    return next(filter(None, found.groups())) if found else ""


def _read_all(folder: Path, files: Sequence[Path], only: Path | None) -> tuple[str, dict[str, Iterable[Entry]]]:
    """The layout, and for each questions file, named by its path below the folder, its entries."""
    if only is not None and only.suffix.lower() not in SUFFIXES:
        raise ValueError(f"task: {only.name} can't be read: {', '.join(SUFFIXES)} can; {how_to_save(only) or _SAVE}.")
    names = {file: str(file.relative_to(folder)) for file in files if file.suffix.lower() in SUFFIXES}
    names = {file: name for file, name in names.items() if not is_litter(Path(name)) or file == only}
    contents = [read_content(file, name) for file, name in names.items() if only is None or file == only]
    questions = [content for content in contents if vqav2.reads(content)]
    layouts: dict[str, list[Content]] = {"vqav2": questions} if questions else {}
    for layout, module in _LAYOUTS.items():
        mine = [content for content in contents if content not in questions and module.reads(content)]
        taken = [content for others in layouts.values() for content in others]
        if mine := [content for content in mine if content not in taken]:
            layouts[layout] = mine
    if not layouts:
        raise ValueError(_unknown(folder, only, contents, files))
    if len(layouts) > 1:
        (one, (first, *_)), (two, (second, *_)) = list(layouts.items())[:2]
        raise ValueError(
            f"task: {folder} holds questions in two layouts, {one} ({first.source}) and {two} ({second.source}); name "
            "one file in place of the folder."
        )
    ((layout, mine),) = layouts.items()
    _require_whole([content for content in contents if content not in mine])
    if layout == "vqav2":
        beside = contents if only is None else [read_content(file, name) for file, name in names.items()]
        answers = vqav2.answers_by_question(beside)
        return layout, {content.source: vqav2.entries(content, answers) for content in mine}
    return layout, {content.source: _LAYOUTS[layout].entries(content) for content in mine}


def _require_whole(contents: Sequence[Content]) -> None:
    """Refuse a table that is meant to be questions and lacks a column, beside others that are read."""
    for content in contents:
        columns = list(content.first) if isinstance(content.first, dict) else []
        if content.header is not None and not columns:
            columns = list(content.header)
        missing = needs_of(columns)
        if "question" not in missing and "question" in columns and missing:
            raise ValueError(f"task: {content.source} {_lacking(content, missing)}.")


def _unknown(folder: Path, only: Path | None, contents: Sequence[Content], files: Sequence[Path]) -> str:
    """The sentence for questions that are in no layout: what the likeliest file lacks."""
    for content in sorted(contents, key=lambda content: (content.header is None, content.source)):
        columns = list(content.header or content.first) if isinstance(content.first, dict) or content.header else []
        if content.header is not None or (columns and len(needs_of(columns)) < 3):
            return f"task: {content.source} {_lacking(content, needs_of(columns))}."
    for content in contents:
        if isinstance(content.value, dict) and not needs_of([column_name(key) for key in content.value]):
            by_rows = "to_json('questions.jsonl', orient='records', lines=True)"
            return f"task: {content.source} is a table by columns; write it by rows, with pandas' {by_rows}."
    sheets = [file for file in files if how_to_save(file) and not is_litter(file.relative_to(folder))]
    hint = f"; {sheets[0].name} can't be read: {how_to_save(sheets[0])}" if sheets else ""
    place = only if only is not None else folder
    return f"task: {place} has no questions in a layout that is known: {_ALL}{hint}."


def _lacking(content: Content, missing: Sequence[str]) -> str:
    columns = content.header or tuple(content.first)
    if not content.value:
        return f"has the columns {', '.join(columns)} and no row"
    said = (
        f"has no column {' and no column '.join(missing)} but {', '.join(name or '(no name)' for name in columns[:8])}"
    )
    if content.header is not None and len(missing) == 3:
        return f"{said}; its first line must name the columns image, question and answer"
    return f"{said}; rename the column that is meant"


def _require_one_source(entries: Sequence[Entry]) -> None:
    """Refuse the same question of the same picture in two tables: one is a copy, and each would count twice."""
    seen: dict[tuple[str, str, str], Entry] = {}
    for entry in entries:
        beside = str(Path(entry.source).parent)
        first = seen.setdefault((beside, entry.image, entry.question), entry)
        if first.source != entry.source:
            raise ValueError(
                f"task: {first.row} and {entry.row} ask the same of one picture; name one of the two files in place of "
                "the folder, or delete the copy."
            )


def _grouped(entries: Sequence[Entry], pictures: PictureFiles | None) -> tuple[VqaSample, ...]:
    """Samples, a picture's together, in the order in which pictures first come. pictures: None where none is needed."""
    found: dict[tuple[str, str], Path] = {}  # of a picture once: its questions are many
    groups: dict[str, list[tuple[Entry, Path]]] = {}
    for entry in entries:
        key = str(Path(entry.source).parent), entry.image
        if key not in found:
            found[key] = Path(*key) if pictures is None else pictures.find(entry)
        groups.setdefault(os.path.normpath(found[key]), []).append((entry, found[key]))
    return tuple(
        VqaSample(
            path=path, question=entry.question, answers=entry.answers, kind=entry.kind, picture=number, row=entry.row,
            choices=entry.choices,
        )
        for number, group in enumerate(groups.values())
        for entry, path in group
    )  # fmt: skip
