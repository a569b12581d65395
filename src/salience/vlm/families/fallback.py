"""Fallback for models without a family of their own, if their signature fits: methods see the projected tokens."""

from __future__ import annotations

import inspect
import math
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from salience.core.types import VisualGrid
from salience.vlm.families.base import Adapter, RopeIndexPositions
from salience.vlm.thread_hooks import lock
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.fingerprint import tower_fingerprint


class FallbackAdapter(Adapter):
    """A model that takes `mm_encoder_outputs` and whose `get_image_features` gives each picture's projected tokens.

    Features are the projected tokens, (n_i, d_llm), and a scorer is trained on these. The grid is a guess: the one
    nearest to a square. Positions are assumed to be one number for each token, counted from 0.

    Raises:  ValueError when the model does not fit, with what is missing
    """

    read_as_tensor = "image"  # where this thread's call gave a tensor
    several_axes = False  # whether positions of several axes can be counted

    def __init__(self, model: Any) -> None:
        if missing := missing_in(model, several_axes=self.several_axes):
            raise ValueError(
                f"model is a {type(model).__name__}, of a family that is not known here, and cannot be pruned without "
                f"one: it lacks {missing}."
            )
        self.model = model
        names = ("vision_tower", "vision_model", "visual")
        self.tower: Any = next((t for n in names if (t := getattr(model.base_model, n, None)) is not None), model)
        self._now = threading.local()  # this thread's call: whether the model reads a tensor

    @property
    def language_model(self) -> nn.Module:
        module: nn.Module = self.model.get_decoder()
        return module

    @property
    def lm_head(self) -> nn.Module:
        module: nn.Module = self.model.get_output_embeddings()
        return module

    @property
    def image_token_id(self) -> int:
        return int(_image_token(self.model.config) or 0)

    @property
    def d_features(self) -> int:
        return int(self.model.config.get_text_config().hidden_size)

    def encode(self, pixel_values: Tensor, **options: Any) -> EncodedViews:
        """See `Adapter.encode`."""
        with _no_recording_hooks(self.model.base_model, self.language_model):
            output = self.model.base_model.get_image_features(pixel_values=pixel_values, **options, return_dict=True)
        if getattr(output, "deepstack_features", None):
            raise ValueError(
                f"{type(self.model).__name__} adds visual tokens in several layers: it needs a family of its own."
            )
        tokens = getattr(output, "pooler_output", None)
        if tokens is None:
            raise ValueError(
                f"the get_image_features of {type(self.model).__name__} gives no projected tokens as pooler_output: it "
                "needs a family of its own."
            )
        self._now.reads_tensor = isinstance(tokens, Tensor)
        views = _views(tokens)
        return EncodedViews(
            views=views,
            grids=[nearest_square(view.shape[0]) for view in views],
            pixels=list(pixel_values) if len(pixel_values) == len(views) else views,
            project=self.project,
            project_all=lambda: views,
        )

    def project(self, features: Tensor) -> Tensor:
        return features

    def fingerprint(self) -> dict[str, Any]:
        """See `Adapter.fingerprint`; the projector is included, because its output is the features."""
        base = self.model.base_model
        return tower_fingerprint(
            base, without=self.language_model, family=str(self.model.config.model_type), d=self.d_features
        )

    def forward_layout(self, options: dict[str, Any]) -> dict[str, Any]:
        return super().forward_layout(options) if getattr(self._now, "reads_tensor", False) else options


class AxesFallbackAdapter(RopeIndexPositions, FallbackAdapter):
    """A fallback for models whose `get_rope_index` alone decides the positions, as the tests found."""

    several_axes = True
    no_compact = "its pictures' positions lie on a canvas, and there is no rule for closing gaps in it"


def missing_in(model: Any, *, several_axes: bool = False) -> str:
    """Part that a model lacks for pruning without a family of its own, a clause; empty if it lacks nothing."""
    encode = getattr(getattr(model, "base_model", None), "get_image_features", None)
    if encode is None:
        return "get_image_features on its base model"
    if "pixel_values" not in inspect.signature(encode).parameters:
        return "a get_image_features that takes pixel_values"
    if not callable(getattr(model, "generate", None)):
        return "a language model head, load the class that generates"
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        return "a forward that takes mm_encoder_outputs"
    if _image_token(model.config) is None:
        return "an image_token_id in its config"
    if hasattr(model.base_model, "get_rope_index") and not several_axes:
        return "positions of one number a token, its get_rope_index gives several"
    return ""


def _views(tokens: Sequence[Tensor] | Tensor) -> Sequence[Tensor]:
    """`pooler_output`, a list or a tensor by family -> for each view (n_i, d_llm)."""
    if not isinstance(tokens, Tensor):
        return list(tokens)
    return tokens.unbind() if tokens.dim() > 2 else [tokens]


def nearest_square(n: int) -> VisualGrid:
    """The grid of n cells nearest to a square."""
    rows = next(rows for rows in range(math.isqrt(n), 0, -1) if n % rows == 0)
    return VisualGrid(rows=rows, columns=n // rows)


def _image_token(config: Any) -> int | None:
    token = getattr(config, "image_token_id", None)
    return token if token is not None else getattr(config, "image_token_index", None)


class _RecordingHooks:
    """Removal of the hooks that transformers leaves on a tower to record hidden states.

    They are removed when the last of the threads that run the tower is done, because all of these share them.
    """

    mark = "_output_capturing_hooks_installed"

    def __init__(self) -> None:
        self.running = 0
        self.before: list[tuple[nn.Module, set[int], bool]] = []

    def begin(self, modules: Iterable[nn.Module]) -> None:
        self.running += 1
        if self.running == 1:
            self.before = [(m, set(m._forward_hooks), self.mark in m.__dict__) for m in modules]

    def end(self) -> None:
        self.running -= 1
        if self.running:
            return
        for module, hooks, marked in self.before:
            for key, hook in list(module._forward_hooks.items()):
                if key not in hooks and str(getattr(hook, "__module__", "")).startswith("transformers."):
                    del module._forward_hooks[key]
            if not marked:
                module.__dict__.pop(self.mark, None)
        self.before = []


_recordings: weakref.WeakKeyDictionary[nn.Module, _RecordingHooks] = weakref.WeakKeyDictionary()


@contextmanager
def _no_recording_hooks(module: nn.Module, language_model: nn.Module) -> Iterator[None]:
    """Context of a run of `get_image_features`; hooks on the language model, which others may use, are left alone."""
    text = set(language_model.modules())
    with lock:
        recording = _recordings.setdefault(module, _RecordingHooks())
        recording.begin(m for m in module.modules() if m not in text)
    try:
        yield
    finally:
        with lock:
            recording.end()
