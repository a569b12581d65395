"""Output of the vision tower for a call's pictures: features for methods, tokens for the prompt."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from salience.core.types import Selection, TokenContext, VisualGrid

#: Reads one value of each view; called once at most.
ReadViews = Callable[[], Sequence[Tensor] | Tensor]


@dataclass(kw_only=True, eq=False)
class EncodedViews:
    """The vision tower's output for a batch of pictures, before the projector, as views in the prompt's order.

    A view is a rectangle of tokens with its own budget: a picture, or a tile of one in families that cut pictures up.
    Fields with one value for each view:

    views: features (n_i, d).   grids: arrangement of the n_i tokens.   pixels: its pixels, in any shape.
    pictures: index of its picture or video.   kinds: "image" or "video".
    breaks: (m_i,) bool, True at its places in the prompt that hold `newline` (d_llm,) instead of a token, or None.
    left: tokens that remain after merging in the tower, other rows being zero; empty without merging.
    attend: reads (n_i,) float32, the attention of [CLS] or received attention, see `Adapter.tower_attention`, or None.
    attend_keys: reads (n_i, heads, d_head) float32, the keys of that attention; None where `attend` is.
    project_all: returns (n_i, d_llm), exactly the numbers of the model's own forward.

    project: tokens (..., d) -> (..., d_llm), each token by itself.
    deepstack: for some layers of the language model, each view's (n_i, d_llm), added to the hidden states.
    stacked: all views as one tensor (views, n, d), if they have one size.
    """

    views: Sequence[Tensor]
    grids: Sequence[VisualGrid]
    pixels: Sequence[Tensor]
    project: Callable[[Tensor], Tensor]
    project_all: Callable[[], Sequence[Tensor]]
    attend: ReadViews | None = None
    attend_keys: ReadViews | None = None
    pictures: Sequence[int] = ()
    kinds: Sequence[str] = ()
    breaks: Sequence[Tensor | None] = ()
    newline: Tensor | None = None
    deepstack: Sequence[Sequence[Tensor]] = ()
    left: Sequence[Selection] = ()
    stacked: Tensor | None = None

    def __post_init__(self) -> None:
        self.pictures = self.pictures or range(len(self.views))
        self.breaks = self.breaks or [None] * len(self.views)
        self.kinds = self.kinds or ["image"] * len(self.views)
        self.project_all = cache(self.project_all)
        self.attend = self.attend and cache(self.attend)
        self.attend_keys = self.attend_keys and cache(self.attend_keys)

    def __len__(self) -> int:
        return len(self.views)

    @property
    def features(self) -> Tensor:
        """(views, n, d), if all views have one size.

        Raises:  ValueError when they do not
        """
        if self.stacked is None:
            sizes = sorted({view.shape[0] for view in self.views})
            if len(sizes) != 1:
                raise ValueError(f"the views have {' or '.join(map(str, sizes))} tokens: take `views`, not `features`.")
            self.stacked = torch.stack(list(self.views))
        return self.stacked

    @property
    def grid(self) -> VisualGrid:
        """The grid that all views share.

        Raises:  ValueError when they do not
        """
        if len(set(self.grids)) != 1:
            raise ValueError("the views have different grids: take `grids`, not `grid`.")
        return self.grids[0]

    @property
    def sizes(self) -> list[int]:
        """Number of places of each view in the prompt, newlines included."""
        pairs = zip(self.views, self.breaks, strict=True)
        return [view.shape[0] if breaks is None else breaks.shape[0] for view, breaks in pairs]

    def cls_attention(self) -> Tensor:
        """(views, n) float32: attention of [CLS] to each token, or its substitute, mean over heads; computed once.

        Raises:  ValueError when the tower's attention can't be read, or the views have different sizes
        """
        attention = self._attention()
        return attention if isinstance(attention, Tensor) else torch.stack(list(attention))

    def _attention(self) -> Sequence[Tensor] | Tensor:
        return _read("attention", self.attend)

    def keys(self) -> Sequence[Tensor] | Tensor:
        """For each view (n_i, heads, d_head) float32: the keys of `cls_attention`; computed once.

        Raises:  ValueError when the tower's attention can't be read
        """
        return _read("keys", self.attend_keys)

    def projected(self) -> Sequence[Tensor]:
        """Result of `project_all`, computed once."""
        return self.project_all()

    def digest(self, image: int) -> int:
        """A 32-bit number of one view's pixels: equal for equal pixels, at any place in the batch."""
        pixels = self.pixels[image].detach().reshape(-1)
        step = max(1, pixels.numel() // 4096)  # enough to tell pictures apart, at little cost
        return zlib.crc32(pixels[::step].double().cpu().numpy().tobytes())

    def context(self, image: int, needs: frozenset[str] = frozenset()) -> TokenContext:
        """The input of a method with these `needs` for one view."""
        return TokenContext(
            features=self.views[image],
            grid=self.grids[image],
            image_index=self.pictures[image],
            cls_attention=self._attention()[image] if "cls_attention" in needs else None,
            keys=self.keys()[image] if "keys" in needs else None,
            projected=self.projected()[image] if "projected" in needs else None,
            digest=self.digest(image) if "digest" in needs else None,
            left=self.left[image] if self.left else None,
            frame=self.frame(image),
        )

    def frame(self, image: int) -> int | None:
        """Index of a view's frame in its video, None for a picture."""
        if self.kinds[image] == "image":
            return None
        return image - next(i for i in range(len(self)) if self.pictures[i] == self.pictures[image])

    def places(self, image: int, kept: Tensor) -> Tensor:
        """(m_i,) bool, on the CPU: the kept places of one view; a newline is kept if a token of its row is."""
        return places_of(self.views[image].shape[0], self.breaks[image], kept)

    def fill(self, image: int, kept: Tensor, tokens: Tensor) -> Tensor:
        """Kept tokens (k, d_llm) -> the embeddings of the view's kept places in the prompt, newlines included."""
        breaks = self.breaks[image]
        if breaks is None or self.newline is None:
            return tokens
        is_newline = breaks[self.places(image, kept)].to(tokens.device)
        filled = self.newline.to(tokens).expand(is_newline.shape[0], -1).clone()
        filled[~is_newline] = tokens
        return filled


def concatenated(first: EncodedViews, second: EncodedViews) -> EncodedViews:
    """Pictures and videos of one call as one, the pictures first; both have the same projector."""
    after = len(set(first.pictures))
    return EncodedViews(
        views=[*first.views, *second.views],
        grids=[*first.grids, *second.grids],
        pixels=[*first.pixels, *second.pixels],
        project=first.project,
        project_all=lambda: [*first.projected(), *second.projected()],
        attend=_both(first.attend, second.attend),
        attend_keys=_both(first.attend_keys, second.attend_keys),
        pictures=[*first.pictures, *(after + picture for picture in second.pictures)],
        kinds=[*first.kinds, *second.kinds],
        breaks=[*first.breaks, *second.breaks],
        newline=first.newline if first.newline is not None else second.newline,
        deepstack=[[*a, *b] for a, b in zip(first.deepstack, second.deepstack, strict=True)],
    )


def _read(name: str, read: ReadViews | None) -> Sequence[Tensor] | Tensor:
    if read is None:
        raise ValueError(f"the method needs the vision tower's {name}, which can't be read in this model or layer.")
    return read()


def _both(first: ReadViews | None, second: ReadViews | None) -> ReadViews | None:
    """Values of both, one after the other; None unless both can be read."""
    if first is None or second is None:
        return None
    return lambda: [*first(), *second()]


def places_of(n: int, breaks: Tensor | None, kept: Tensor) -> Tensor:
    """(m,) bool, on the CPU: the kept places of a view of n tokens; `breaks` are its newlines, see `EncodedViews`."""
    stays = torch.zeros(n, dtype=torch.bool)
    stays[kept] = True
    if breaks is None:
        return stays
    places = torch.zeros_like(breaks)
    places[~breaks] = stays
    row = breaks.long().cumsum(0) - breaks.long()  # (m,), row of each place; a newline belongs to the row that it ends
    in_row = torch.zeros(int(row[-1]) + 1, dtype=torch.bool).index_put((row[places],), torch.tensor(True))
    return places | (breaks & in_row[row])
