"""Fitting: the target, the objective, learning at all, and going on after a kill with the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from salience.core.progress import ProgressBars
from salience.lab.evaluate.encoded_pictures import EncodedPictures, encode_pictures, load_pictures
from salience.lab.fit import fit_scorer, training_pictures
from salience.lab.fit.attention_source import REFERENCE, AttentionSource, candidate_sources, top_tokens
from salience.lab.fit.config import FitConfig, attention_kl
from salience.lab.fit.fit_scorer import Target, distil, fit, load_target
from salience.lab.fit.question_attention import text_saliency
from salience.lab.fit.training_pictures import PackedPictures
from salience.lab.train import checkpoint
from salience.vlm.families import Adapter, adapter_for
from salience.vlm.scorers.scorer import Scorer

SMALL = FitConfig(pictures=5, validation=3, questions=4, steps=12, batch=3, hidden=8, save_every=4)


@pytest.fixture(scope="module")
def scene(tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]) -> tuple[Adapter, EncodedPictures]:
    adapter = adapter_for(tiny_llava(84))
    groups = load_pictures("scenes", split="train", pictures=5, questions=4)
    return adapter, encode_pictures(adapter, tiny_processor(84), groups, batch=2)


def test_every_source_is_a_distribution(scene: tuple[Adapter, EncodedPictures]) -> None:
    adapter, pictures = scene
    sources = [REFERENCE, AttentionSource(layer=1, rows="answer"), AttentionSource(layer=1, rows="answer", power=3.0)]
    shares = text_saliency(adapter, pictures, sources, batch=2)
    assert shares.shape == (3, 5, 36)
    # A sum of 36 float32 shares.
    torch.testing.assert_close(shares.sum(-1), torch.ones(3, 5), atol=1e-5, rtol=0)
    assert (shares[2].amax(-1) > shares[1].amax(-1)).all()


def test_saliency_does_not_depend_on_the_batch(scene: tuple[Adapter, EncodedPictures]) -> None:
    adapter, pictures = scene
    one, all_ = (text_saliency(adapter, pictures, [REFERENCE], batch=batch) for batch in (1, 5))
    # Padding and batching change the order of float32 sums only.
    torch.testing.assert_close(one, all_, atol=1e-6, rtol=1e-5)


def test_the_source_that_answers_best_is_chosen(
    scene: tuple[Adapter, EncodedPictures], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, pictures = scene
    sources = candidate_sources(adapter)
    assert {source.layer for source in sources} == {None, 0, 1}
    packed = PackedPictures(adapter, None, replace(SMALL, keeps=(0.25,)), ProgressBars(), pictures)
    monkeypatch.setattr(training_pictures, "prepare", lambda *_: pictures)
    chosen, tried = packed.choose_source(sources)
    assert len(tried) == len(sources)
    best = max(entry["accuracy"] for entry in tried)
    assert next(entry for entry in tried if entry["accuracy"] == best) == {**asdict(chosen), "accuracy": best}


def test_top_tokens() -> None:
    kept = top_tokens(torch.tensor([0.1, 0.4, 0.4, 0.0, 0.1, 0.0]), 0.5)
    assert kept.tolist() == [0, 1, 2]


def test_attention_kl() -> None:
    target = torch.tensor([[0.5, 0.5, 0.0]])
    assert attention_kl(torch.tensor([[3.0, 3.0, -60.0]]), target) == pytest.approx(0.0, abs=1e-6)
    # Against a uniform guess: ln 3 minus the target's entropy ln 2.
    assert attention_kl(torch.zeros(1, 3), target) == pytest.approx(0.405465, abs=1e-5)


def _by_norm(pictures: EncodedPictures) -> Target:
    """A target that a token's own features do tell."""
    return Target(shares=(pictures.features[..., 0] * 2).softmax(-1), about={})


def _agreement(scorer: Scorer, pictures: EncodedPictures, shares: Tensor) -> float:
    with torch.no_grad():
        return float(attention_kl(scorer(pictures.features), shares))


def test_a_scorer_learns_what_features_tell_and_nothing_from_shuffled_targets(
    scene: tuple[Adapter, EncodedPictures],
) -> None:
    adapter, pictures = scene
    target = _by_norm(pictures)
    config = replace(SMALL, steps=150, rate=1e-2)
    uniform = float(attention_kl(torch.zeros(5, 36), target.shares))
    learned = distil(adapter, config, pictures.features, target, aside=None, bars=ProgressBars())
    shuffled = distil(
        adapter, replace(config, shuffled=True), pictures.features, target, aside=None, bars=ProgressBars()
    )
    assert _agreement(learned, pictures, target.shares) < 0.3 * uniform
    assert _agreement(shuffled, pictures, target.shares) > 0.7 * uniform


class Killed(BaseException):
    """Nothing in the library catches this, as nothing catches kill -9."""


def test_a_killed_fit_goes_on_and_ends_with_the_same_weights(
    tiny_llava: Callable[..., Any],
    tiny_processor: Callable[[int], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, processor = tiny_llava(84), tiny_processor(84)
    whole = fit(model, SMALL, processor=processor, out=tmp_path / "whole", quiet=True)
    step, seen = fit_scorer._step, []

    def dying(*arguments: Any) -> None:
        seen.append(arguments[-1])
        if arguments[-1] == 9:
            raise Killed
        step(*arguments)

    monkeypatch.setattr(fit_scorer, "_step", dying)
    with pytest.raises(Killed):
        fit(model, SMALL, processor=processor, out=tmp_path / "broken", quiet=True)
    assert not (tmp_path / "broken").exists()
    monkeypatch.setattr(fit_scorer, "_step", lambda *arguments: (seen.append(arguments[-1]), step(*arguments)))
    monkeypatch.setattr(fit_scorer, "make_target", None)  # the stored target serves
    again = fit(model, SMALL, processor=processor, out=tmp_path / "broken", quiet=True)
    assert seen[-4:] == [8, 9, 10, 11]  # from the checkpoint at 8
    for name in ("model.safetensors", "config.json"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "whole"]


def test_what_another_configuration_left_is_not_taken(tmp_path: Path) -> None:
    made = Target(shares=torch.eye(2), about={"look": 1})
    checkpoint.claim(tmp_path / "aside", {"seed": 0})
    assert load_target(tmp_path / "aside", lambda: made).about == {"look": 1}
    checkpoint.claim(tmp_path / "aside", {"seed": 0})
    assert load_target(tmp_path / "aside", lambda: pytest.fail("it is stored")).shares.equal(torch.eye(2))
    checkpoint.claim(tmp_path / "aside", {"seed": 1})
    assert not (tmp_path / "aside" / "target.safetensors").exists()


def test_the_folder_tells_how_it_was_made(
    tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any], tmp_path: Path
) -> None:
    config = replace(SMALL, source=AttentionSource(layer=0))
    folder = fit(tiny_llava(84), config, processor=tiny_processor(84), out=tmp_path / "scorer", quiet=True)
    about = json.loads((folder / "config.json").read_text())
    assert about["objective"] == "attention"
    assert about["training"]["seed"] == 0 and about["training"]["look"]["layer"] == 0
    assert Scorer.from_pretrained(folder).config.d_features == 24


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"objective": "luck"}, "objective"), ({"steps": 0}, "steps"), ({"rate": float("nan")}, "rate")],
)
def test_bad_configurations(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} must be"):
        replace(SMALL, **wrong)
