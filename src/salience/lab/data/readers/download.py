"""Download of data sets that no package carries: once, with a checksum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from salience.core.files import write_atomic
from salience.core.progress import progress_bars

_BLOCK = 1 << 20
_PATIENCE = 30  # seconds without a byte


def cache_folder() -> Path:
    """Return the folder of downloads: `$SALIENCE_CACHE/data`, else `~/.cache/salience/data`."""
    return Path(os.environ.get("SALIENCE_CACHE") or Path.home() / ".cache" / "salience") / "data"


def fetch(address: str, *, md5: str, folder: str, offline: str) -> Path:
    """Return a file from an address; download it into the cache unless it is there already.

    Args:    md5: the checksum that the file's authors publish   folder: its folder inside the cache
             offline: advice for users without a network, the end of the error message
    Raises:  OSError, one sentence, where the download fails; ValueError where the checksum differs
    """
    target = cache_folder() / folder / address.rsplit("/", 1)[-1]
    if target.is_file():
        if hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest() == md5:
            return target
        target.unlink()  # damaged on the disk
    content = _download(address, target.name, offline)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{address} is not the published file (its MD5 checksum differs); {offline}.")
    return write_atomic(target, content)


def _download(address: str, name: str, offline: str) -> bytes:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
            blocks, total = [], int(answer.headers.get("QuestionFile-Length") or 0)
            with progress_bars() as bars, bars.bar(f"downloading {name}", max(1, -(-total // _BLOCK))) as tick:
                while block := answer.read(_BLOCK):
                    blocks.append(block)
                    tick()
        return b"".join(blocks)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise OSError(f"{address} can't be downloaded ({reason}); {offline}.") from error
