"""Writing files so that a crash never leaves half of one under its final name."""

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
    # A name of its own per write: two processes that write the same target must not share the file aside.
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files that only their owner reads; results are for everybody the umask allows.
        Path(aside).chmod(0o666 & ~_umask())
        Path(aside).replace(target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    return target


def _umask() -> int:
    """The process's umask; reading it means setting it and putting it back."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
