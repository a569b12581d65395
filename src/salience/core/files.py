"""Files: atomic writing, JSON from outside, and the folder of the bundled model."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

DEEPEST = 100  # levels of lists and objects; code that reads the result recurses once a level


def bundled_model() -> Path:
    """Folder of the bundled model: a stock LLaVA with its processor, for `from_pretrained`, and its scorer."""
    return Path(__file__).parents[1] / "bundled" / "llava-scenes"


def write_atomic(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write `data` beside `path` and rename it into place: a crash leaves no half-written file. Creates the folders.

    Returns: the path. Raises: OSError when the folder cannot be made or written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    # Each write has its own temporary name: two processes may write the same target.
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files that only the owner can read; results follow the umask.
        Path(aside).chmod(0o666 & ~_umask())
        Path(aside).replace(target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return target


def _umask() -> int:
    """The process's umask. It can be read only by setting it and setting it back."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:  ValueError when it is not JSON in UTF-8 or nested deeper than DEEPEST; OSError when it cannot be read
    """
    too_deep = f"{path} has lists and objects in each other, more than {DEEPEST} deep: it is none of ours."
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON.") from error
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [found]
    for _ in range(DEEPEST):
        level = [each for one in level for each in _inside(one)]
        if not level:
            return found
    raise ValueError(too_deep)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
