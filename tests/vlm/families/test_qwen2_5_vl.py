"""Qwen2.5-VL: the tower's output is in its windows' order, the prompt in raster order."""

from __future__ import annotations

from typing import Any

import torch

from salience.vlm.families import adapter_for


@torch.no_grad()
def test_windows_are_undone(tiny_family: Any) -> None:
    family = tiny_family("qwen2_5_vl")
    model, batch = family.model(), family.batch([1, 2])
    pictures = {name: batch[name] for name in ("pixel_values", "image_grid_thw")}
    adapter = adapter_for(model)
    features = torch.cat(list(adapter.encode(**pictures).views))
    as_is = model.get_image_features(**pictures, return_dict=True).last_hidden_state.reshape(features.shape)
    wrong = (features != as_is).any(1)
    assert 0 < int(wrong.sum()) < len(wrong)  # the test's pictures have more than one window
    tokens = torch.cat(list(adapter.encode(**pictures).projected()))
    off = lambda rows: (adapter.project(rows) - tokens).abs().amax(1) > 1e-4  # noqa: E731
    assert not off(features).any()  # raster order, as the tokens are; float32 sums in another order
    assert torch.equal(off(as_is), wrong)
