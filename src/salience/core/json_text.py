"""Reading of JSON from outside; errors are one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

DEEPEST = 100  # lists and objects inside each other: what walks through what was read, walks one call a level


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:  ValueError when it is not JSON in UTF-8, or nested deeper than any of ours; OSError when it can't be read
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON.") from error
    except RecursionError:
        raise _too_deep(path) from None
    level = [found]
    for _ in range(DEEPEST):
        level = [each for one in level for each in _inside(one)]
        if not level:
            return found
    raise _too_deep(path)


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _too_deep(path: str | os.PathLike[str]) -> ValueError:
    return ValueError(f"{path} has lists and objects in each other, more than {DEEPEST} deep: it is none of ours.")
