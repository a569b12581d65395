"""What a trade-off does about methods that a model can't carry, whichever way its questions are asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from salience.lab.tradeoff import run as tradeoff
from salience.vlm.tower.tower_attention import SUBSTITUTE

SMALL = {"keeps": (0.25,), "pictures": 1, "questions": 1, "draws": 1, "control_pictures": 1, "control_shifts": 1}
SMALL |= {"probe_pictures": 0, "costs": False, "examples": 0}

Ask = Callable[..., Any]


def packed(model: Any, processor: Any, config: tradeoff.TradeoffConfig) -> Any:
    """A picture's questions in one run of the language model."""
    return tradeoff.run(model, config, processor=processor, quiet=True).to_json()


def generated(model: Any, processor: Any, config: tradeoff.TradeoffConfig) -> Any:
    """Without boxes: answers are generated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tradeoff, "can_pack", lambda adapter: False)
        return packed(model, processor, config)


@pytest.fixture
def attentionless(tiny_llava: Callable[..., Any]) -> Any:
    """Its features are the tower's embeddings, which no layer's attention belongs to."""
    model = tiny_llava(84)
    model.config.vision_feature_layer = 0
    yield model
    model.config.vision_feature_layer = -2


@pytest.mark.parametrize("way", [packed, generated])
@pytest.mark.parametrize("method", ["cls-attention", "vispruner", "visionzip", "prumerge+", "temporal"])
def test_a_named_method_is_refused_in_a_sentence(
    attentionless: Any, tiny_processor: Callable[[int], Any], way: Ask, method: str
) -> None:
    config = tradeoff.TradeoffConfig(methods=("uniform", method), **SMALL)
    with pytest.raises(ValueError, match=f"method '{re.escape(method)}' (needs|compares)") as refused:
        way(attentionless, tiny_processor(84), config)
    assert "use " in str(refused.value)


@pytest.mark.parametrize("way", [packed, generated])
def test_nobody_named_it(attentionless: Any, tiny_processor: Callable[[int], Any], way: Ask) -> None:
    record = way(attentionless, tiny_processor(84), tradeoff.TradeoffConfig(**SMALL))
    methods = {row["method"] for row in record["rows"]}
    assert {"uniform", "random"} <= methods
    assert "cls-attention" not in methods


@pytest.mark.parametrize("way", [packed, generated])
def test_a_substitute_is_told_where_it_is_used(
    tiny_family: Callable[[str], Any], tiny_processor: Callable[[int], Any], way: Ask
) -> None:
    """SigLIP has no [CLS]."""
    model, processor = tiny_family("llava_siglip").model(), tiny_processor(42)
    for methods, told in ((("cls-attention",), SUBSTITUTE), (("uniform",), None)):
        record = way(model, processor, tradeoff.TradeoffConfig(methods=methods, **SMALL))
        assert record["config"]["substitute"] == told


def test_a_control_that_only_the_study_has(
    tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]
) -> None:
    config = tradeoff.TradeoffConfig(methods=("saliency-shuffled", "random"), **SMALL)
    with pytest.raises(ValueError, match="only `salience study` makes"):
        packed(tiny_llava(84), tiny_processor(84), config)


def test_a_methods_other_name_is_its_own() -> None:
    assert tradeoff.TradeoffConfig(methods=("fastervlm", "cls-attention")).methods == ("cls-attention",)
