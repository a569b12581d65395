"""A scorer on another vision tower than its own: refused wherever one comes in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import salience
from salience.core.types import TokenContext
from salience.lab.fit.fit_scorer import scorers_for
from salience.vlm.families import adapter_for, same_tower
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.compose import then, union
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.saliency import Saliency
from salience.vlm.methods.uniform import Uniform

REFUSED = "was trained on another vision tower than this model's"


@pytest.fixture(scope="module")
def theirs(tiny_llava: Callable[..., Any]) -> salience.Scorer:
    """A scorer that was trained on another tower of the same width."""
    return salience.Scorer(24, model=adapter_for(tiny_llava(side=56, layers=3, seed=5)).fingerprint())


@pytest.fixture
def model(tiny_llava: Callable[..., Any]) -> Any:
    return tiny_llava(side=56, layers=3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble(salience.Method):
    """Somebody's own method around scorers."""

    name = "ensemble"
    scorers: Sequence[salience.Scorer]

    def score(self, ctx: TokenContext) -> Tensor:
        return torch.stack([scorer(ctx.features) for scorer in self.scorers]).sum(0)


WAYS: dict[str, Callable[[salience.Scorer], Any]] = {
    "scorer": lambda scorer: scorer,
    "method": lambda scorer: Saliency(scorer=scorer),
    "then": lambda scorer: then(Saliency(scorer=scorer), ClsAttention(), keep=0.5),
    "second": lambda scorer: then(Uniform(), Saliency(scorer=scorer), keep=0.5),
    "union": lambda scorer: union(Uniform(), Saliency(scorer=scorer)),
    "inside": lambda scorer: then(Saliency(scorer=scorer), FastV(layer=1), keep=0.5),
    "nested": lambda scorer: then(union(Uniform(), Saliency(scorer=scorer)), FastV(layer=1), keep=0.5),
    "somebody's": lambda scorer: Ensemble(scorers=[salience.Scorer(24), scorer]),
}


@pytest.mark.parametrize("way", WAYS)
def test_is_refused_as_an_object(model: Any, theirs: salience.Scorer, way: str) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        salience.prune(model, WAYS[way](theirs), keep=0.25)
    own = salience.Scorer(24, model=adapter_for(model).fingerprint())
    salience.prune(model, WAYS[way](own), keep=0.25).undo()
    salience.prune(model, WAYS[way](salience.Scorer(24)), keep=0.25).undo()  # trained on none


def test_is_refused_by_its_folder_and_in_the_model_s(model: Any, theirs: salience.Scorer, tmp_path: Any) -> None:
    home = theirs.save_pretrained(tmp_path / "salience")
    for name in (home, str(home)):
        with pytest.raises(ValueError, match=REFUSED):
            salience.prune(model, name, keep=0.25)
    model.name_or_path = str(tmp_path)
    for name in ("saliency", "auto"):
        with pytest.raises(ValueError, match=REFUSED):
            salience.prune(model, name, keep=0.25)
    with pytest.raises(ValueError, match=REFUSED):
        scorers_for(adapter_for(model))


def test_is_taken_on_one_s_word(model: Any, theirs: salience.Scorer, make_batch: Any) -> None:
    with torch.no_grad(), salience.prune(model, Saliency(scorer=theirs, any_tower=True), keep=0.25) as pruned:
        model(**make_batch([1]))
    assert pruned.method.any_tower  # type: ignore[attr-defined]


def test_the_sentence_says_what_differs(tiny_llava: Callable[..., Any], model: Any, theirs: salience.Scorer) -> None:
    with pytest.raises(ValueError, match="the same shape, but other weights"):
        salience.prune(model, theirs, keep=0.25)
    deeper = salience.Scorer(24, model=adapter_for(tiny_llava(side=56, layers=4)).fingerprint())
    with pytest.raises(ValueError, match="layers 4, here 3"):
        salience.prune(model, deeper, keep=0.25)


def test_a_tower_trained_on_is_another(model: Any) -> None:
    own = salience.Scorer(24, model=adapter_for(model).fingerprint())
    with torch.no_grad():
        for parameter in model.model.vision_tower.parameters():
            parameter.mul_(1.1)
    with pytest.raises(ValueError, match=REFUSED):
        salience.prune(model, own, keep=0.25)


@pytest.mark.filterwarnings("ignore:.*deprecated")  # torch announces that torchao will replace it
class TestFewBits:
    """A quantised tower is compared by what of it is not."""

    def quantised(self, model: Any) -> Any:
        quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        assert callable(quantised.model.vision_tower.encoder.layers[0].mlp.fc1.weight)  # there is no weight to read
        return quantised

    def test_is_the_same_tower(self, model: Any) -> None:
        whole, few = (adapter_for(one).fingerprint() for one in (model, self.quantised(model)))
        assert None in few["sample"]
        assert same_tower(whole, few)
        assert same_tower(json.loads(json.dumps(few)), few)
        salience.prune(self.quantised(model), salience.Scorer(24, model=whole), keep=0.5).undo()

    def test_another_is_another(self, model: Any, theirs: salience.Scorer) -> None:
        with pytest.raises(ValueError, match=REFUSED):
            salience.prune(self.quantised(model), theirs, keep=0.5)


def test_of_the_fallback_family_the_projector_counts(tiny_family: Callable[[str], Any]) -> None:
    """Its features are the projected tokens: another projector makes others."""
    model = tiny_family("aya_vision").model()
    mark = adapter_for(model).fingerprint()
    assert same_tower(mark, adapter_for(tiny_family("aya_vision").model(torch.bfloat16)).fingerprint())
    with torch.no_grad():
        for parameter in model.get_decoder().parameters():
            parameter.mul_(1.1)
    assert same_tower(mark, adapter_for(model).fingerprint())
    with torch.no_grad():
        for name, parameter in model.base_model.named_parameters():
            if "projector" in name or "connector" in name:
                parameter.mul_(1.1)
    assert not same_tower(mark, adapter_for(model).fingerprint())
