"""Qwen3-VL: the tokens that go into the first layers are cut along."""

from __future__ import annotations

from typing import Any

import torch

import salience


@torch.no_grad()
def test_layers_tokens_are_those_kept(tiny_family: Any) -> None:
    family = tiny_family("qwen3_vl")
    model, batch = family.model(), family.batch([1, 2])
    seen: list[Any] = []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["deepstack_visual_embeds"]), with_kwargs=True
    )
    model(**batch)
    with salience.prune(model, "uniform", keep=0.5) as pruned:
        model(**batch)
        model.generate(**batch, max_new_tokens=1, num_beams=2)
    handle.remove()
    sizes = [image.grid.n for image in pruned.trace.images]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    kept = torch.cat([start + image.kept for start, image in zip(starts, pruned.trace.images, strict=True)])
    assert len(seen[0]) == len(seen[1]) == 2
    for whole, cut in zip(seen[0], seen[1], strict=True):
        assert torch.equal(cut, whole[kept])
    assert all(layer.shape[0] == 2 * len(kept) for layer in seen[2])
