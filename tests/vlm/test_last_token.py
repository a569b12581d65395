"""A prompt that ends in a picture goes on from the picture's last token, which every method leaves."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import salience
from salience.core.types import Merge, Selection
from salience.vlm.token_choice import with_last

OPTIONS = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "suppress_tokens": [0, 3, 6]}
BEFORE = ["uniform", "random", "cls-attention", "divprune", "vispruner"]
MERGING = ["visionzip", "prumerge", "prumerge+"]
INSIDE = ["fastv", "pyramiddrop", "sparsevlm"]


def ending(batch: dict[str, Any]) -> dict[str, Any]:
    """Its rows cut behind their last picture."""
    ids = batch["input_ids"]
    rows = [row[mask != 0] for row, mask in zip(ids, batch["attention_mask"], strict=True)]
    rows = [row[: int(torch.nonzero(row == 3)[-1]) + 1] for row in rows]
    width = max(map(len, rows))
    cut = [torch.cat([row.new_zeros(width - len(row)), row]) for row in rows]
    mask = [torch.cat([row.new_zeros(width - len(row)), torch.ones_like(row)]) for row in rows]
    return {**batch, "input_ids": torch.stack(cut), "attention_mask": torch.stack(mask)}


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("method", BEFORE)
def test_equals_the_masked_sequence(method: str, positions: Any, make_model: Any, make_batch: Any, oracle: Any) -> None:
    model, batch = make_model(), ending(make_batch([1, 2]))
    with torch.no_grad(), salience.prune(model, method, tokens=5, positions=positions) as pruned:
        got, ids = model(**batch).logits[:, -1], model.generate(**batch, **OPTIONS)
    assert [int(columns[-1]) for columns in pruned.trace.columns] == [batch["input_ids"].shape[1] - 1] * 2
    assert [len(image.kept) for image in pruned.trace.images] == [5, 5, 5]
    whole = oracle(model=model, batch=batch, pruned=pruned, positions=positions)
    torch.testing.assert_close(got, whole.forward().logits[:, -1], atol=1e-5, rtol=0)  # float32, another order of sums
    assert torch.equal(ids, whole.generate(**OPTIONS))


@pytest.mark.parametrize("method", [*MERGING, *INSIDE])
def test_every_method_leaves_it(method: str, tiny_family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tiny_family("llava")
    monkeypatch.setitem(sys.modules["tiny_families"].TEXT, "num_hidden_layers", 4)
    model, batch = family.model(), ending(family.batch([1, 2]))
    for keep in (0.1, 0.5):
        with torch.no_grad(), salience.prune(model, method, keep=keep) as pruned:
            for call in (model, model.generate):
                call(**batch, **(OPTIONS if call is not model else {}))
                for row, image in enumerate([pruned.trace.images[0], pruned.trace.images[2]]):
                    assert int(image.kept[-1]) == 8
                    assert int(pruned.trace.columns[row][-1]) == batch["input_ids"].shape[1] - 1
                    assert all(int(stage.kept[-1]) == 8 for stage in image.stages)
                counts = {len(image.kept) for image in pruned.trace.images}
                assert counts == {1 if keep == 0.1 else 5} or method == "prumerge"


@pytest.mark.parametrize("method", INSIDE)
def test_inside_equals_the_model_that_does_not_see_them(
    method: str, tiny_family: Any, in_llm_oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = tiny_family("llava")
    monkeypatch.setitem(sys.modules["tiny_families"].TEXT, "num_hidden_layers", 4)
    model, batch = family.model(), ending(family.batch([1]))
    with torch.no_grad(), salience.prune(model, method, keep=0.3) as pruned:
        got, ids = model(**batch).logits[:, -1], model.generate(**batch, **OPTIONS)
    with torch.no_grad(), in_llm_oracle(model, batch, pruned):
        torch.testing.assert_close(got, model(**batch).logits[:, -1], atol=1e-5, rtol=0)  # another order of sums
        assert torch.equal(ids, model.generate(**batch, **OPTIONS))


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision", "mistral3"])
def test_families_with_newlines_and_sizes(name: str, tiny_family: Any) -> None:
    """A large picture ends in a newline, which is there while a token of its row is."""
    family = tiny_family(name)
    model, batch = family.model(), ending(family.batch([1, 1]))
    width = batch["input_ids"].shape[1]
    for method in ("uniform", "sparsevlm"):
        with torch.no_grad(), salience.prune(model, method, keep=0.1) as pruned:
            model.generate(**batch, **OPTIONS)
            assert [int(columns[-1]) for columns in pruned.trace.columns] == [width - 1] * 2


def test_merged_away_inside_the_tower_is_refused_or_there(tiny_family: Any) -> None:
    family = tiny_family("llava")
    model, batch = family.model(), ending(family.batch([1]))
    with (
        torch.no_grad(),
        salience.prune(model, "tome", tokens=3),
        pytest.raises(ValueError, match="ends in a picture whose last token method 'tome' merged"),
    ):
        model(**batch)


def test_who_gives_way() -> None:
    kept, scores = torch.tensor([1, 2, 4]), torch.tensor([0.0, 0.3, 0.1, 0.0, 0.2, 0.0])
    assert with_last(Selection(kept=kept), 5, "m").kept.tolist() == [1, 2, 4]
    assert with_last(Selection(kept=kept), 6, "m").kept.tolist() == [1, 2, 5]
    assert with_last(Selection(kept=kept, scores=scores), 6, "m").kept.tolist() == [1, 4, 5]
    merge = Merge(target=torch.tensor([1, 2]), source=torch.tensor([3, 3]), weight=torch.ones(2))
    spared = with_last(Selection(kept=kept, scores=scores, merge=merge), 6, "m")
    assert spared.kept.tolist() == [2, 4, 5]
    assert spared.merge is not None
    assert spared.merge.target.tolist() == [0, 1]
    merge = Merge(target=torch.tensor([0, 1, 2]), source=torch.tensor([3, 0, 3]), weight=torch.ones(3))
    cut = with_last(Selection(kept=kept, scores=scores, merge=merge), 6, "m")
    assert cut.kept.tolist() == [1, 4, 5]
    assert cut.merge is not None
    assert (cut.merge.target.tolist(), cut.merge.source.tolist()) == ([0, 1], [3, 3])
