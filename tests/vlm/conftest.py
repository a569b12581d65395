"""Tiny LLaVAs whose attention is sharp enough to notice a missing token, batches for them, and the masked oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from salience.core.transformers_names import cache_in

IMAGE, PAD = 3, 0  # the tiny model's image and padding tokens
N = 16  # visual tokens of a 56-pixel picture


@dataclass(kw_only=True)
class Oracle:
    """The unpruned model on the whole sequence, dropped tokens masked: what every pruned call must equal."""

    model: Any
    batch: dict[str, Tensor]
    pruned: Any
    positions: str

    def drop(self) -> Tensor:
        """(B, T) bool: the columns the trace says are gone."""
        ids = self.batch["input_ids"]
        stays = torch.zeros_like(ids, dtype=torch.bool)
        for row, columns in enumerate(self.pruned.trace.columns):
            stays[row, columns[columns >= 0]] = True
        return ~stays & (ids == IMAGE)

    def mask(self) -> Tensor:
        return self.batch["attention_mask"].masked_fill(self.drop(), 0)

    def position_ids(self, *, generating: bool) -> Tensor:
        """(B, T): the caller's, or those the model would make up itself, gaps closed under "compact"."""
        mask = self.batch["attention_mask"]
        counted = (mask.cumsum(1) - 1).masked_fill(mask == 0, 0)
        ids = counted if generating else torch.arange(mask.shape[1]).expand_as(mask)
        return (ids - self.drop().cumsum(1)).clamp_min(0) if self.positions == "compact" else ids

    def forward(self, **options: Any) -> Any:
        with torch.no_grad():
            position_ids = self.position_ids(generating=False)
            return self.model(**{**self.batch, "attention_mask": self.mask()}, position_ids=position_ids, **options)

    def generate(self, **options: Any) -> Any:
        position_ids = self.position_ids(generating=True)
        return self.model.generate(
            **{**self.batch, "attention_mask": self.mask()}, position_ids=position_ids, **options
        )


@pytest.fixture(scope="session")
def make_model(tiny_llava: Callable[..., Any]) -> Callable[..., Any]:
    """`make_model(dtype)` -> a fresh tiny LLaVA of 16 tokens a picture."""

    def make(dtype: torch.dtype = torch.float32, *, attention: str = "sdpa") -> Any:
        model = tiny_llava(side=56, layers=3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 2:  # from the initial .02: attention far from uniform, logits of order one
                    parameter.mul_(2 if "vision_tower" in name else 6)
        model.set_attn_implementation(attention)
        return model.to(dtype)

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., Any]) -> Any:
    """The float32 model the tests share; `untouched` checks that each leaves it as it was."""
    return make_model()


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., dict[str, Tensor]]:
    """`make_batch([1, 2])` -> two rows with one and two pictures, padded on the left; `more`: words at their ends."""

    def make(
        pictures: Sequence[int], *, side: str = "left", seed: int = 0, more: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        words = lambda n: torch.randint(4, 50, (n,), generator=generator)  # noqa: E731
        rows = []
        for row, count in enumerate(pictures):
            parts = [words(2 + row)]
            for _ in range(count):
                parts += [torch.full((N,), IMAGE), words(3)]
            parts.append(words(more[row] if more else 0))
            rows.append(torch.cat(parts))
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), PAD)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[i, place], mask[i, place] = row, 1
        pixels = torch.randn(sum(pictures), 3, 56, 56, generator=generator)
        return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}

    return make


@pytest.fixture(scope="session")
def oracle() -> type[Oracle]:
    """`oracle(model=, batch=, pruned=, positions=)`; see `Oracle`."""
    return Oracle


def snapshot(model: Any) -> dict[str, Any]:
    """All that a caller could find changed on the model: attributes, hooks, classes, weights."""
    seen: dict[str, Any] = {}
    for name, module in model.named_modules():
        seen[name] = (
            type(module),
            sorted(module.__dict__),
            {key: [id(hook) for hook in value.values()] for key, value in module.__dict__.items() if "hooks" in key},
            module.training,
        )
    seen["parameters"] = [(name, p.data_ptr(), p._version, p.requires_grad) for name, p in model.named_parameters()]
    return seen


@pytest.fixture(scope="session")
def photograph() -> Callable[[Any], dict[str, Any]]:
    """`photograph(model)`: compare two to see whether anything was left behind."""
    return snapshot


class InLLMOracle:
    """The unpruned model while, from each stage's layer on, nobody sees what the trace says was dropped there.

    A hook in front of each such layer masks those columns in the mask the layer is handed, prefill and later tokens
    alike, and puts merged hidden states in their places. Sequence, positions and cache stay whole.
    """

    def __init__(self, model: Any, batch: dict[str, Any], pruned: Any, language_model: Any = None) -> None:
        from salience.vlm.families import adapter_for

        self.language_model: Any = language_model or adapter_for(model).language_model
        self.batch, self.images = batch, pruned.trace.images
        adapter = adapter_for(model)
        encoded = adapter.encode(**{n: v for n, v in batch.items() if n in adapter.image_arguments})
        slots = torch.nonzero(batch["input_ids"] == adapter.image_token_id)  # (places, 2), row by row
        self.views = torch.split(slots, encoded.sizes)
        self.encoded = encoded
        self.handles: list[Any] = []

    def tokens(self, view: int) -> Tensor:
        """(n,) the columns of a view's tokens, newlines left out."""
        breaks = self.encoded.breaks[view]
        columns = self.views[view][:, 1]
        return columns if breaks is None else columns[~breaks]

    def gone(self, layer: int) -> Tensor:
        """(B, T) bool: the columns that layer `layer` must not see."""
        gone = torch.zeros_like(self.batch["input_ids"], dtype=torch.bool)
        for view, image in enumerate(self.images):
            kept = image.entered
            for stage in image.stages:
                kept = stage.kept if stage.layer <= layer else kept
            row, columns = self.views[view].T
            gone[row, columns] = ~self.encoded.places(view, kept)
        return gone

    def hook(self, layer: int) -> Callable[..., Any]:
        gone = self.gone(layer)

        def mask_dropped(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            rows, new = hidden.shape[:2]
            mask, width = kwargs["attention_mask"], gone.shape[1]
            prefill = new == width
            total = width if prefill else int(cache_in(kwargs).get_seq_length())
            if mask is None:
                mask = torch.ones(total, total, dtype=torch.bool).tril()[-new:].expand(rows, 1, new, total)
            hidden_ones = gone.repeat_interleave(rows // len(gone), 0)
            hidden_ones = torch.nn.functional.pad(hidden_ones, (0, total - width))
            hidden_ones = hidden_ones[:, None, None, -mask.shape[-1] :]  # a window's mask is of its last columns
            boolean = mask.dtype == torch.bool
            mask = mask & ~hidden_ones if boolean else mask.masked_fill(hidden_ones, torch.finfo(mask.dtype).min)
            if prefill:
                hidden = self.merged(layer, hidden)
            return (hidden, *args[1:]), {**{k: v for k, v in kwargs.items() if k != "hidden_states"},
                                         "attention_mask": mask}  # fmt: skip

        return mask_dropped

    def merged(self, layer: int, hidden: Tensor) -> Tensor:
        new = hidden.clone()
        for view, image in enumerate(self.images):
            for stage in image.stages:
                if stage.layer != layer or stage.merge is None:
                    continue
                columns, row = self.tokens(view), int(self.views[view][0, 0])
                for target in set(stage.merge.target.tolist()):
                    summands = stage.merge.target == target
                    old = hidden[row, columns[stage.merge.source[summands]]]
                    new[row, columns[stage.kept[target]]] = (stage.merge.weight[summands, None] * old).sum(0)
        return new

    def __enter__(self) -> InLLMOracle:
        first = min((stage.layer for image in self.images for stage in image.stages), default=10**6)
        for index, layer in enumerate(self.language_model.layers):
            if index >= first:
                self.handles.append(layer.register_forward_pre_hook(self.hook(index), with_kwargs=True))
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.fixture(scope="session")
def in_llm_oracle() -> type[InLLMOracle]:
    """`with in_llm_oracle(model, batch, pruned):` the whole model; see `InLLMOracle`."""
    return InLLMOracle
