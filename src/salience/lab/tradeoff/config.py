"""What a trade-off compares, and on how much."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Literal

from salience.vlm.methods import METHODS as TABLE
from salience.vlm.methods import method_class
from salience.vlm.methods.class_path import is_class_path
from salience.vlm.methods.in_llm_method import InLLMMethod

KEEPS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05, 0.025)
#: Published methods of the default comparison; the strongest training-free ones at a tenth of the tokens and below.
RIVALS = ("divprune", "vispruner", "visionzip")
#: Methods compared by the study, and by a trade-off that names none.
STUDY = (
    "saliency", "cls-attention", *RIVALS, "uniform", "random", "oracle", "oracle-question", "saliency-shuffled",
    "saliency-untrained",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TradeoffConfig:
    """What is compared, and on how much.

    task: "scenes", "easy-vqa", or "vqa:PATH", a folder in one of the layouts of `salience.lab.data.vqa`
    instruction: put behind every question of other tasks than scenes, such as "Answer with one word."
    keeps: ratios in (0, 1]; 1 is always among them
    methods: of `nameable`, under their own names, or "module:Class"; None for those of STUDY that this model has
    pictures, questions: of the test split, at most so many questions a picture
    probe_pictures: training pictures of the probe   ceiling_pictures: of the oracle of the items asked about, whose
    questions cannot share a picture's prefix   control_pictures: whose questions are asked of
    `control_shifts` other ones
    draws: of `random`   untrained: scorers with random weights, a control   repeats: rounds of the timing
    costs: whether times, operations and bytes are measured; their columns are null otherwise
    examples: qualitative samples   save_pictures: contact sheets, of the first pictures
    """

    task: str = "scenes"
    instruction: str = ""
    keeps: tuple[float, ...] = KEEPS
    methods: tuple[str, ...] | None = None
    pictures: int = 100
    questions: int = 12
    probe_pictures: int = 300
    ceiling_pictures: int = 24
    control_pictures: int = 100
    control_shifts: int = 3
    draws: int = 5
    untrained: int = 5
    repeats: int = 11
    costs: bool = True
    examples: int = 6
    save_pictures: int = 0
    positions: Literal["original", "compact"] = "original"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in ("scenes", "easy-vqa") and not (self.task.startswith("vqa:") and len(self.task) > 4):
            raise ValueError(f"task must be scenes, easy-vqa, or vqa:PATH with a folder's path, not {self.task!r}.")
        for keep in self.keeps:
            if not (isinstance(keep, float | int) and math.isfinite(keep) and 0 < keep <= 1):
                raise ValueError(f"keeps must be numbers above 0 and at most 1, not {keep!r}.")
        if not self.keeps:
            raise ValueError("keeps must hold at least one ratio.")
        known = nameable()
        for method in self.methods or ():
            if is_class_path(method):
                method_class(method)  # raises
            elif method not in known:
                near = difflib.get_close_matches(str(method).lower(), known, n=1)
                meant = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(
                    f"methods must be of {', '.join(known)}, or a class of your own as 'module:Class', not "
                    f"{method!r}{meant}."
                )
        if self.methods is not None:
            object.__setattr__(self, "methods", tuple(dict.fromkeys(map(_own_name, self.methods))))
        counts = "pictures questions draws repeats ceiling_pictures control_pictures control_shifts"
        for name in counts.split():
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}.")
        # All tokens are the reference of every column, so they are always measured.
        object.__setattr__(self, "keeps", tuple(sorted({1.0, *map(float, self.keeps)}, reverse=True)))

    def wants(self, method: str) -> bool:
        """Whether the method is asked for."""
        return method in STUDY if self.methods is None else method in self.methods

    @property
    def before(self) -> tuple[str, ...]:
        """Published methods under test that prune before the language model, behind the whole tower."""
        others = [name for name in STUDY if name not in RIVALS]  # built by the study itself
        return tuple(name for name in self.methods or RIVALS if name not in others and not works_inside(name))

    @property
    def inside(self) -> tuple[str, ...]:
        """Named ones that work inside the tower or the language model: asked through the model's own `generate`."""
        return tuple(name for name in self.methods or () if works_inside(name))


def nameable() -> tuple[str, ...]:
    """What a trade-off can compare: the study's methods, and every method of the library's table."""
    return (*STUDY, *(name for name in TABLE if name not in STUDY))


def reads_keys(config: TradeoffConfig) -> bool:
    """Whether a method under test reads the keys of the tower's attention, which are large to store."""
    return any("keys" in method_class(name).needs for name in config.before)


def works_inside(method: str) -> bool:
    """Whether a method works inside the vision tower or the language model."""
    return (method in TABLE or is_class_path(method)) and (
        method_class(method).in_tower or issubclass(method_class(method), InLLMMethod)
    )


def _own_name(method: str) -> str:
    """The name that a method's rows have: one may be listed under several."""
    return method if method in STUDY or is_class_path(method) else method_class(method).name
