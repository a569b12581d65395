"""Text saliency: attention from a picture's questions to its visual tokens, with the questions packed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.evaluate.packing import pack, run
from salience.lab.fit.attention_source import AttentionSource, join_questions
from salience.vlm.families import Adapter
from salience.vlm.in_llm.llm_layers import LLMLayers, watch_layers


@torch.no_grad()
def text_saliency(
    adapter: Adapter,
    pictures: EncodedPictures,
    sources: Sequence[AttentionSource],
    *,
    batch: int = 4,
    tick: Callable[[int], object] | None = None,
) -> Tensor:
    """Return (sources, P, n) float32: shares of the unpruned model's attention, mean over heads, adding up to 1.

    Args:    batch: pictures that run together   tick: called with the number of pictures done
    """
    total, n = len(pictures), pictures.features.shape[1]
    found = torch.zeros(len(sources), total, n)
    every = torch.arange(n)
    for start in range(0, total, batch):
        span = range(start, min(start + batch, total))
        packed = pack([pictures.prompts[i] for i in span], every.expand(len(span), n), n)
        layers: list[Tensor] = []

        def keep(layer: int, shares: Tensor, into: list[Tensor] = layers) -> None:
            into.append(shares.cpu())

        behind = torch.arange(packed.visual.stop, packed.ids.shape[1]).expand(len(span), -1)
        with watch_layers(LLMLayers(adapter.language_model), behind, keep, columns=packed.visual):
            run(adapter, packed, pictures.projected[span.start : span.stop])
        stacked = torch.stack(layers)  # (layers, B, rows, n)
        for row, picture in enumerate(span):
            spans = [(first - packed.visual.stop, last - packed.visual.stop) for first, last in packed.spans[row]]
            for index, source in enumerate(sources):
                found[index, picture] = join_questions(stacked[:, row], spans, source)
        if tick is not None:
            tick(len(span))
    return found
