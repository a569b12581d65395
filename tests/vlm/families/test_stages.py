"""Each family's stages are the model's own, and what methods see is what the projector reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from salience.vlm.families import adapter_for, same_tower

FAMILIES = (
    "vila", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "ovis2",
    "smolvlm", "idefics3", "internvl", "paligemma", "gemma3",
)  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny_family: Any) -> Any:
    return tiny_family(request.param)


@pytest.fixture(scope="module")
def model(family: Any) -> Any:
    return family.model()


@pytest.fixture(scope="module")
def pictures(model: Any, family: Any) -> dict[str, Any]:
    """The arguments of one and two pictures of the sizes the family has."""
    arguments = adapter_for(model).image_arguments
    return {name: value for name, value in family.batch([1, 2]).items() if name in arguments}


@torch.no_grad()
def test_projected_is_get_image_features(model: Any, pictures: Any) -> None:
    encoded = adapter_for(model).encode(**pictures)
    wanted = model.get_image_features(**pictures, return_dict=True).pooler_output
    wanted = torch.cat([rows.reshape(-1, rows.shape[-1]) for rows in wanted])
    every = [torch.arange(len(view)) for view in encoded.views]
    got = [encoded.fill(i, every[i], rows) for i, rows in enumerate(encoded.projected())]
    assert torch.equal(torch.cat(got), wanted)


@torch.no_grad()
def test_features_are_what_the_projector_reads(model: Any, family: Any, pictures: Any) -> None:
    adapter = adapter_for(model)
    encoded = adapter.encode(**pictures)
    checked = 0
    for view, rows, grid in zip(encoded.views, encoded.projected(), encoded.grids, strict=True):
        assert view.shape == (grid.n, adapter.d_features)
        assert adapter.n_tokens in (None, grid.n)
        if family.name == "llava_onevision" and grid.n != 9 and (grid.rows, grid.columns) != (3, 6):
            continue  # a view the model scales down after the projector: its rows are no single token's
        checked += 1
        # the same products in another order, of numbers of order one
        torch.testing.assert_close(adapter.project(view), rows, atol=1e-5, rtol=1e-5)
    assert checked >= 3


@torch.no_grad()
def test_views_are_the_prompts(model: Any, family: Any, pictures: Any) -> None:
    encoded = adapter_for(model).encode(**pictures)
    assert sum(encoded.sizes) == int((family.batch([1, 2])["input_ids"] == 3).sum())
    assert len({encoded.digest(i) for i in range(len(encoded))}) == len(encoded)
    assert [encoded.context(i).image_index for i in range(len(encoded))] == list(encoded.pictures)


def test_fingerprint_tells_towers_apart(model: Any, family: Any) -> None:
    mark = adapter_for(model).fingerprint()
    assert same_tower(mark, adapter_for(family.model(torch.bfloat16)).fingerprint())
    other = family.model()
    with torch.no_grad():
        for parameter in adapter_for(other).tower.parameters():
            parameter.mul_(1.1)
    assert not same_tower(mark, adapter_for(other).fingerprint())


@torch.no_grad()
def test_embed_is_what_the_language_model_gets(model: Any, family: Any) -> None:
    adapter, batch, seen = adapter_for(model), family.batch([1, 2]), []
    handle = adapter.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    model(**batch)
    handle.remove()
    encoded = adapter.encode(**{k: v for k, v in batch.items() if k in adapter.image_arguments})
    every = [torch.arange(len(view)) for view in encoded.views]
    tokens = [encoded.fill(i, every[i], rows) for i, rows in enumerate(encoded.projected())]
    assert torch.equal(adapter.embed(batch["input_ids"], tokens), seen[0])
