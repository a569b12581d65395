"""`text:PATH`: the next byte of your own text.

PATH is a file or a folder (its `.txt`, `.md`, `.py`, ... files, without hidden ones and copies). Ten files or more are
split as whole files, ordered by the hash of their content: one tenth each goes to val and test. Of fewer, the first
eight tenths of each file are for training, the next tenth for val, the last for test. Windows of `length` bytes don't
overlap; the rest at the end of a stretch is dropped. Vocabulary: the 256 bytes.

The licence and the credit are the text's owner's.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from salience.lab.data.readers.text_files import is_litter
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import Stored
from salience.lab.data.sequences.task_options import Options

OPTIONS: Options = {"length": (256, 1, 1 << 20)}
SUFFIXES = (".txt", ".md", ".rst", ".tex", ".py", ".c", ".h", ".cpp", ".rs", ".go", ".js", ".ts", ".java", ".html",
            ".xml", ".json", ".csv", ".log")  # fmt: skip
_MANY = 10  # from so many files on, whole files are split


def windows(stretches: Sequence[bytes], length: int) -> Stored:
    """Return windows of a text without overlap. Inputs are bytes t, targets bytes t + 1."""
    whole = [torch.frombuffer(bytearray(text), dtype=torch.uint8) for text in stretches if len(text) > length]
    rows = [text[: (len(text) - 1) // length * length + 1].unfold(0, length + 1, length) for text in whole]
    cut = torch.cat(rows) if rows else torch.empty(0, length + 1, dtype=torch.uint8)  # (n, L + 1)
    return Stored(inputs=cut[:, :-1], targets=cut[:, 1:], prepare=torch.Tensor.long, length=length)


def build(path: str, *, seed: int, length: int) -> SequenceTask:
    """Make the task. seed: without effect, the data are fixed"""
    files = _files(Path(path))
    stretches = deal(files)
    splits = {split: windows(texts, length) for split, texts in stretches.items()}
    for split, found in splits.items():
        if not found.size:
            raise ValueError(
                f"text: {path} has {len(stretches[split])} stretch(es) for {split}, none of more than {length} bytes; "
                "more text or a smaller length is needed."
            )
    return SequenceTask(
        kind="next-token",
        n_classes=256,
        vocabulary=256,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        metric="accuracy per byte",
        source=f"{len(files)} text(s), {'whole files' if len(files) >= _MANY else 'the end of each file'} held out",
        licence="as the text's owner says",
        credit="as the text's owner says",
    )


def deal(texts: Sequence[bytes]) -> dict[str, list[bytes]]:
    """Return the stretches of text of each split."""
    if len(texts) < _MANY:
        cuts = [(len(text) * 8 // 10, len(text) * 9 // 10) for text in texts]
        return {
            "train": [text[:a] for text, (a, _) in zip(texts, cuts, strict=True)],
            "val": [text[a:b] for text, (a, b) in zip(texts, cuts, strict=True)],
            "test": [text[b:] for text, (_, b) in zip(texts, cuts, strict=True)],
        }
    order = sorted(texts, key=lambda text: hashlib.sha256(text).digest())
    rest = [text for n, text in enumerate(order) if n % 10 not in (0, 1)]
    return {"train": rest, "val": order[0::10], "test": order[1::10]}


def _files(path: Path) -> list[bytes]:
    if path.is_file():
        found = [path]
    elif path.is_dir():
        found = sorted(
            file for file in path.rglob("*")
            if file.suffix.lower() in SUFFIXES and file.is_file() and not is_litter(file.relative_to(path))
        )  # fmt: skip
    else:
        raise ValueError(f"text: there is no file or folder {path}.")
    if not found:
        raise ValueError(f"text: no text file ({', '.join(SUFFIXES[:5])}, ...) is in {path}.")
    texts = list(dict.fromkeys(map(_read, found)))
    if not any(texts):
        raise ValueError(f"text: the files in {path} are empty.")
    return texts


def _read(file: Path) -> bytes:
    """Return a file's bytes without the byte order mark of UTF-8."""
    content = file.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"text: {file} is in UTF-16, where every other byte is easily told; save it in UTF-8.")
    return content.removeprefix(codecs.BOM_UTF8)
