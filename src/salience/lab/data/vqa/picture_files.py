"""Search for the picture files that a folder's questions name."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from filecmp import cmp
from pathlib import Path, PurePosixPath

from salience.lab.data.readers.text_files import is_litter
from salience.lab.data.vqa.sample import Entry

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2",
}  # fmt: skip
#: COCO's own names: COCO_val2014_000000310196.jpg, 000000310196.jpg; and its numbers, 310196.
_COCO = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class PictureFiles:
    """The pictures below a folder.

    A path is relative to the question file, to `images` beside it, to the folder, or to its `images`, in this order. A
    bare name may be anywhere below the folder if only one picture has it. A name without a suffix matches any suffix; a
    number also matches a COCO picture. The case of a suffix and the Unicode form of an accent make no difference.
    """

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        self.folder = folder
        self._named: dict[str, list[Path]] = defaultdict(list)
        self._coco: dict[int, list[Path]] = defaultdict(list)
        self._listed: dict[Path, dict[str, list[Path]]] = {}
        for file in files:
            if file.suffix.lower() in SUFFIXES and not is_litter(file.relative_to(folder)):
                for key in _keys(file.name):
                    self._named[key].append(file)
                if number := _COCO.fullmatch(file.stem):
                    self._coco[int(number[1])].append(file)

    def find(self, entry: Entry) -> Path:
        """Return the picture's file. Raises ValueError that names the row for a missing and an ambiguous picture."""
        image = entry.image
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", image):
            raise ValueError(f"{entry.row}: image: {image} is an address; download the picture and name its file.")
        try:
            for name in dict.fromkeys([image, image.replace("\\", "/")]):
                if found := self._at(name, entry):
                    return found
        except OSError as error:  # such as a name that is too long for the system
            raise ValueError(f"{entry.row}: image: {_short(image)} can't be looked for ({error.strerror}).") from None
        if "/" in image or "\\" in image:
            absolute = Path(image).is_absolute() or _WINDOWS.match(image)
            bases = "" if absolute else ", from " + " and ".join(map(str, self._bases(entry)))
            raise ValueError(
                f"{entry.row}: image: there is no file {_short(image)}; it is a path, and so only looked for at itself"
                f"{bases}."
            )
        if found := self._one_of(self._anywhere(image), entry):
            return found
        raise ValueError(f"{entry.row}: image: there is no file {_short(image)} below {self.folder}.")

    def _bases(self, entry: Entry) -> list[Path]:
        beside = (self.folder / entry.source).parent
        return list(dict.fromkeys([beside, beside / "images", self.folder, self.folder / "images"]))

    def _at(self, name: str, entry: Entry) -> Path | None:
        """Return the picture at its path. A path with folders is taken from the first base that has it."""
        path = Path(name)
        if path.is_absolute():
            return self._one_of(self._resolved(Path(path.anchor), path.parts[1:]), entry)
        found = [here for base in self._bases(entry) if (here := self._resolved(base, path.parts))]
        if found and (len(path.parts) > 1 or name.startswith("./")):
            return self._one_of(found[0], entry)
        named = [file for here in found for file in here]
        # Splits may repeat names, so those below the question file come first.
        beside = (self.folder / entry.source).parent
        return self._one_of([file for file in named if beside in file.parents] or named, entry)

    def _resolved(self, base: Path, parts: Sequence[str]) -> list[Path]:
        """Return the files that a path may mean: the exact one, else those that differ in accents or suffix."""
        exact = base.joinpath(*parts)
        if exact.is_file() and parts:
            return [exact]
        if not parts or parts[-1] in ("..", "."):
            return []
        here = base
        for part in parts[:-1]:
            alike = [here / part] if (here / part).is_dir() else self._in(here).get(_plain(part), [])
            folders = [file for file in alike if file.is_dir()]
            if len(folders) != 1:
                return []
            here = folders[0]
        return [file for file in self._in(here).get(_key(parts[-1]), []) if file.is_file() and _means(parts[-1], file)]

    def _in(self, folder: Path) -> dict[str, list[Path]]:
        """Return the entries of a folder by name, and its pictures also by their keys."""
        if folder not in self._listed:
            found: dict[str, list[Path]] = defaultdict(list)
            for file in sorted(folder.iterdir()) if folder.is_dir() else ():
                picture = file.suffix.lower() in SUFFIXES and not is_litter(Path(file.name))
                for key in {_plain(file.name), *(_keys(file.name) if picture else ())}:
                    found[key].append(file)
            self._listed[folder] = found
        return self._listed[folder]

    def _anywhere(self, name: str) -> list[Path]:
        """Return every picture below the folder that a bare name may mean."""
        found = [file for file in self._named.get(_key(name), []) if _means(name, file)]
        path = PurePosixPath(name)
        number, suffix = path.name, ""
        if path.suffix.lower() in SUFFIXES:
            number, suffix = path.stem, path.suffix.lower()
        coco = _COCO.fullmatch(number)
        if coco or re.fullmatch(r"0|[1-9]\d{0,11}", number):
            like = self._coco.get(int(coco[1] if coco else number), [])
            found += [file for file in like if suffix in ("", file.suffix.lower()) and file not in found]
        exact = [file for file in found if file.name == name]
        return exact or found

    def _one_of(self, found: Sequence[Path], entry: Entry) -> Path | None:
        """Return the only file, or the first of identical copies.

        Raises:  ValueError that names the row and two files that differ
        """
        if not found:
            return None
        for other in found[1:]:
            if not cmp(found[0], other, shallow=False):
                raise ValueError(
                    f"{entry.row}: image: {entry.image} may be {found[0]} or {other}; name it by its path, from the "
                    "folder of the questions file on."
                )
        return found[0]


def _plain(name: str) -> str:
    """Return the name in one Unicode form; macOS splits accents from letters."""
    return unicodedata.normalize("NFC", name)


def _key(name: str) -> str:
    """Return the name with a picture's suffix in lower case."""
    name = _plain(name)
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] + suffix.lower() if suffix.lower() in SUFFIXES else name


def _means(name: str, file: Path) -> bool:
    """Whether a name with the key of a file means it: a name with a suffix must have the file's suffix."""
    return PurePosixPath(name).suffix.lower() not in SUFFIXES or _key(name) == _key(file.name)


def _short(name: str) -> str:
    return name if len(name) < 200 else f"{name[:200]}..."


def _keys(name: str) -> tuple[str, str]:
    """Return the keys of a picture's file: its name with and without suffix."""
    key = _key(name)
    return key, key[: -len(PurePosixPath(key).suffix)]
