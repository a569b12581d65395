"""Count the training answers from which the baselines of the `scenes` task are learnt (half a minute).

    python recipes/scenes_answers.py

writes src/salience/lab/data/scenes_answers.json.
"""

from __future__ import annotations

import inspect
import json

from salience.core.files import write_atomic
from salience.lab.data import scenes

#: Pictures whose counts are stored by themselves: a test counts them again, to see whether they are still the same.
CHECKED = 100


def main() -> None:
    """Count, and store the result beside the task."""
    defaults = inspect.signature(scenes.baselines).parameters
    numbers = {name: defaults[name].default for name in ("pictures", "questions")}
    by_text, by_kind = scenes.count_answers(**numbers)
    first = scenes.count_answers(CHECKED, numbers["questions"])
    # The order of the answers is that of their first coming: of equally common ones the first is taken.
    write_atomic(
        scenes.ANSWERS, json.dumps({**numbers, "by_text": by_text, "by_kind": by_kind, "first": first[0]}, indent=0)
    )


if __name__ == "__main__":
    main()
