"""Atomic writing: a crash never leaves half a file under its final name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write `data` beside `path` and rename it into place, creating the folders above it.

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
