"""Folders of questions and pictures: their layout, splits and picture files."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from salience.lab.data.readers.text_files import column_name, how_to_save, is_litter
from salience.lab.data.vqa.layouts import easy_vqa, gqa, own_questions, pope, textvqa, vqav2
from salience.lab.data.vqa.picture_files import PictureFiles
from salience.lab.data.vqa.question_file import SUFFIXES, QuestionFile, needs_of, read_content
from salience.lab.data.vqa.sample import Entry, VqaSample

_LAYOUTS = {"vqav2": vqav2, "gqa": gqa, "textvqa": textvqa, "pope": pope, "easy-vqa": easy_vqa, "table": own_questions}
_ALL = "VQAv2, GQA, TextVQA, POPE, easy-VQA, or a table (CSV, TSV, JSONL) with image, question and answer"
_SAVE = "save it as 'CSV UTF-8' with the columns image, question and answer"
_SPLIT = re.compile(
    r"(?<![a-z])(?:(train)(?:ing)?|(test)(?:ing|dev|std)?|(val)(?:id|idation)?)(?![a-z])"
)  # of a path's words; "values" and "testimony" are none


@dataclass(frozen=True, kw_only=True)
class VqaTask:
    """Questions of a folder. samples: to be asked, a picture's together   train: of a training split, if there is one
    layout: name of the folder's layout"""

    samples: tuple[VqaSample, ...]
    train: tuple[VqaSample, ...]
    layout: str


def load_folder(path: str | Path) -> VqaTask:
    """Read the questions of a folder, or of one file whose pictures are beside or below it.

    Files with "train" in their path are used for the baselines only. Of other splits with answers the test split is
    taken, else the validation split, else all files. Hidden files and files that systems make (`.ipynb_checkpoints`,
    `__MACOSX`, `~$`) are not read.

    Raises:  ValueError, one sentence, for a missing folder, no known layout or two of them, a file that can't be read,
             a row without a required value, and a picture that is missing or ambiguous
    """
    root = Path(path)
    if not root.exists():
        raise ValueError(f"task: there is no folder or file {root}.")
    folder = root if root.is_dir() else root.parent
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    only = root if root.is_file() else None
    layout, entries = _read_all(folder, files, only)
    splits: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        splits[_split(entry.source)].append(entry)
    train = [] if only else splits.pop("train", [])
    asked = splits["test"] or splits["val"] or splits[""] or [entry for part in splits.values() for entry in part]
    if not asked:
        raise ValueError(f"task: {root} has no question with an answer outside a training split.")
    if layout == "table":
        _require_one_source(asked)
    return VqaTask(samples=_grouped(asked, PictureFiles(folder, files)), train=_grouped(train, None), layout=layout)


def _split(name: str) -> str:
    """Return the split that a file's path below the folder names, or an empty text."""
    found = _SPLIT.search(name.lower())
    return next(filter(None, found.groups())) if found else ""


def _read_all(folder: Path, files: Sequence[Path], only: Path | None) -> tuple[str, list[Entry]]:
    """Return the layout and the entries of all question files. only: the file to read; None for all"""
    if only is not None and only.suffix.lower() not in SUFFIXES:
        raise ValueError(f"task: {only.name} can't be read: {', '.join(SUFFIXES)} can; {how_to_save(only) or _SAVE}.")
    names = {file: str(file.relative_to(folder)) for file in files if file.suffix.lower() in SUFFIXES}
    names = {file: name for file, name in names.items() if not is_litter(Path(name)) or file == only}
    contents = [read_content(file, name) for file, name in names.items() if only is None or file == only]
    layouts: dict[str, list[QuestionFile]] = {}
    for layout, module in _LAYOUTS.items():  # all files of one layout before those of the next
        taken = [content for others in layouts.values() for content in others]
        if mine := [content for content in contents if content not in taken and module.reads(content)]:
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
        return layout, [entry for content in mine for entry in vqav2.entries(content, answers)]
    return layout, [entry for content in mine for entry in _LAYOUTS[layout].entries(content)]


def _require_whole(contents: Sequence[QuestionFile]) -> None:
    """Refuse a table of questions that lacks a column, beside others that are read."""
    for content in contents:
        missing = needs_of(content.columns)
        if "question" not in missing and "question" in content.columns and missing:
            raise ValueError(f"task: {content.source} {_lacking(content, missing)}.")


def _unknown(folder: Path, only: Path | None, contents: Sequence[QuestionFile], files: Sequence[Path]) -> str:
    """Return the message for a folder without a known layout: what the likeliest file lacks."""
    for content in sorted(contents, key=lambda content: (content.header is None, content.source)):
        missing = needs_of(content.columns)
        if content.header is not None or (content.columns and len(missing) < 3):
            return f"task: {content.source} {_lacking(content, missing)}."
    for content in contents:
        if isinstance(content.value, dict) and not needs_of([column_name(key) for key in content.value]):
            by_rows = "to_json('questions.jsonl', orient='records', lines=True)"
            return f"task: {content.source} is a table by columns; write it by rows, with pandas' {by_rows}."
    sheets = [file for file in files if how_to_save(file) and not is_litter(file.relative_to(folder))]
    hint = f"; {sheets[0].name} can't be read: {how_to_save(sheets[0])}" if sheets else ""
    place = only if only is not None else folder
    return f"task: {place} has no questions in a layout that is known: {_ALL}{hint}."


def _lacking(content: QuestionFile, missing: Sequence[str]) -> str:
    columns = content.header or tuple(content.first)
    if not content.value:
        return f"has the columns {', '.join(columns)} and no row"
    named = ", ".join(name or "(no name)" for name in columns[:8])
    said = f"has no column {' and no column '.join(missing)} but {named}"
    if content.header is not None and len(missing) == 3:
        return f"{said}; its first line must name the columns image, question and answer"
    return f"{said}; rename the column that is meant"


def _require_one_source(entries: Sequence[Entry]) -> None:
    """Refuse the same question about the same picture in two tables, because it would count twice."""
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
    """Return the samples, a picture's together, in the pictures' order. pictures: None to keep the paths as named"""
    found: dict[tuple[str, str], Path] = {}  # search once for each picture
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
