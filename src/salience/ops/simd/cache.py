"""Disk cache of compiled kernels: one file for each kernel, element types, machine and version of the sources.

numba's own cache stamps the file that holds a function, not the helpers it calls, and numbers its entries in an index
that two processes can rewrite at once. Here the name of a file is the hash of everything that went into it, and files
are written under another name and renamed. A kernel is compiled if its file is unreadable, damaged or not writable.
The folder is $SALIENCE_CACHE, or ~/.cache/salience.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba

from salience.core.files import write_atomic
from salience.ops.simd.element import Element

OPS = Path(__file__).parents[1]  # kernels and their helpers live below `ops`
SHARED = ("constants.py", "segment_codes.py")  # numbers that kernels read


def folder() -> Path | None:
    """Folder of the compiled kernels; None without a home directory."""
    if chosen := os.environ.get("SALIENCE_CACHE"):
        return Path(chosen)
    try:
        return Path.home() / ".cache" / "salience"
    except RuntimeError:
        return None


@cache
def sources() -> str:
    """Hash of every source file that a kernel can be made of, and of the compiler's versions."""
    digest = hashlib.sha256(f"{sys.version}|{numba.__version__}|{llvmlite.__version__}".encode())
    for path in sorted([*(OPS / name for name in SHARED), *OPS.glob("simd/*.py"), *OPS.glob("*/cpu*.py")]):
        digest.update(str(path.relative_to(OPS)).encode() + path.read_bytes())
    return digest.hexdigest()


class DiskCache:
    """A cache as numba's compiler asks it; see the module."""

    def __init__(self, function: Callable[..., Any], elements: tuple[Element, ...]) -> None:
        self.name, self.elements = f"{function.__module__}.{function.__qualname__}", elements
        code = function.__code__
        own = Path(code.co_filename)  # a kernel may live elsewhere: in a test, in somebody's program
        self.source = own.read_bytes() if own.is_file() else code.co_code + repr(code.co_consts).encode()

    def path(self, signature: Any, codegen: Any) -> Path | None:
        """The file for these element types on one machine."""
        if (root := folder()) is None:
            return None
        key = "|".join([self.name, str(self.elements), str(signature), str(codegen.magic_tuple()), sources()]).encode()
        key += self.source
        return root / f"{self.name.rpartition('.')[2]}-{hashlib.sha256(key).hexdigest()[:32]}.kernel"

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled kernel, or None."""
        target.refresh()
        path = self.path(signature, target.codegen())
        try:
            data = path.read_bytes() if path is not None else b""
        except OSError:
            return None
        digest, payload = data[:32], data[32:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        return numba.core.compiler.CompileResult._rebuild(target, *pickle.loads(payload))

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Store a compiled kernel, if the folder is writable."""
        if (path := self.path(signature, compiled.codegen)) is None:
            return
        payload = numba.core.serialize.dumps(compiled._reduce())
        # A read-only or full disk: this process has its kernel, the next one compiles again.
        with contextlib.suppress(OSError):
            write_atomic(path, hashlib.sha256(payload).digest() + payload)
