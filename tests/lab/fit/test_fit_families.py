"""Fitting beyond LLaVA-1.5: targets view by view that are the model's own attention, and scorers that `prune` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import salience
from salience.core.progress import ProgressBars
from salience.core.types import Selection
from salience.lab.evaluate.encoded_pictures import encode_pictures
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.lab.evaluate.teacher_forcing import loglikelihood
from salience.lab.fit import fit_scorer, training_pictures
from salience.lab.fit.attention_source import AttentionSource, join_questions
from salience.lab.fit.config import FitConfig, attention_kl
from salience.lab.fit.fit_scorer import Target, distil, fit
from salience.lab.fit.picture_views import answered, token_columns, view_picture
from salience.lab.fit.question_attention import require_attention, text_saliency, view_saliency
from salience.lab.fit.training_pictures import ViewPictures
from salience.vlm.families import adapter_for
from salience.vlm.methods.budget import Budget
from salience.vlm.scorers.scorer import Scorer

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own, about its deprecated names

SOURCES = [
    AttentionSource(layer=0, rows="answer"),
    AttentionSource(layer=1),
    AttentionSource(layer=1, rows="answer", power=2.0, join="turns"),
    AttentionSource(),
]
SMALL = FitConfig(
    pictures=3, validation=1, questions=2, steps=6, batch=2, hidden=8, save_every=2, source=SOURCES[2], keeps=(0.25,)
)
QUESTIONS = (("which digit is red ?", "yes"), ("is red ?", "no"))


def scene(number: int) -> list[Any]:
    """Two questions of unlike length about a picture whose shape depends on its number."""
    width, height = [(100, 70), (60, 110), (84, 84)][number % 3]
    image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))
    return [SimpleNamespace(image=image, question=question, answer=answer) for question, answer in QUESTIONS]


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = lambda *_, pictures, **__: [scene(i) for i in range(pictures)]  # noqa: E731
    monkeypatch.setattr(training_pictures, "load_pictures", drawn)


@pytest.mark.usefixtures("scenes")
@pytest.mark.parametrize(
    "family",
    ["llava_next", "llava_onevision", "idefics3", "smolvlm", "internvl", "gemma3", "paligemma", "vila", "qwen2_vl",
     "qwen2_5_vl", "qwen3_vl", "mistral3"],
)  # fmt: skip
def test_a_fitted_scorer_prunes_its_family(
    family: str, tiny_family: Callable[[str], Any], family_processor: Callable[[str], Any], tmp_path: Path
) -> None:
    model = tiny_family(family).model()
    adapter = adapter_for(model)
    folder = fit(model, SMALL, processor=family_processor(family), out=tmp_path / "scorer", quiet=True)
    scorer = Scorer.from_pretrained(folder)
    assert scorer.config.d_features == adapter.d_features
    assert scorer.config.model == adapter.fingerprint()
    batch = tiny_family(family).batch()
    with salience.prune(model, scorer, keep=0.5) as pruned:
        model(**batch)
    for image in pruned.trace.images:
        assert image.scores is not None and len(image.scores) == image.grid.n
        assert len(image.kept) == max(1, int(0.5 * image.grid.n + 0.5))


@pytest.mark.parametrize("family", ["llava_next", "idefics3", "gemma3", "qwen2_5_vl", "paligemma"])
def test_the_target_is_the_attention_in_the_model_s_own_forward(
    family: str, tiny_family: Callable[[str], Any], family_processor: Callable[[str], Any]
) -> None:
    """Against eager attention of the model on each whole prompt by itself, cut to the views' columns."""
    model, processor = tiny_family(family).model(), family_processor(family)
    adapter, group = adapter_for(model), scene(0)
    picture = view_picture(adapter, processor, group)
    found = view_saliency(adapter, picture, SOURCES[:1])[0]
    model.set_attn_implementation("eager")
    shares = []
    for sample in group:
        inputs = GenerateEvaluator(model, processor, [group]).inputs(sample.image, [sample.question])
        with torch.no_grad():
            paid = model(**inputs, output_attentions=True).attentions[0].mean(1)  # (1, T, T)
        shares.append(paid[0, -1, token_columns(adapter, picture, inputs["input_ids"])[0]])
    wanted = torch.stack(shares).split([len(tokens) for tokens in picture.encoded.views], dim=1)
    assert len(found) == len(wanted)
    for mine, its in zip(found, wanted, strict=True):
        # Another kernel, and rows with padding beside them: float32 sums in another order.
        torch.testing.assert_close(mine, (its / its.sum(-1, keepdim=True)).mean(0), atol=1e-5, rtol=1e-4)


def test_on_llava_it_is_what_packed_questions_give(
    tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]
) -> None:
    adapter, processor = adapter_for(tiny_llava(84)), tiny_processor(84)
    group = [SimpleNamespace(image=scene(2)[0].image, question=q, answer="red") for q in ("is red there?", "how many?")]
    packed = text_saliency(adapter, encode_pictures(adapter, processor, [group]), SOURCES)  # (looks, 1, n)
    for mine, its in zip(view_saliency(adapter, view_picture(adapter, processor, group), SOURCES), packed, strict=True):
        # Float32 sums in another order; a turn changes only where two tokens tie to within that.
        torch.testing.assert_close(mine[0], its[0], atol=1e-5, rtol=1e-4)


def test_answers_are_weighed_as_generate_weighs_them(
    tiny_family: Callable[[str], Any], family_processor: Callable[[str], Any]
) -> None:
    """All tokens, and a part of them, against the model as its users call it."""
    model, processor, group = tiny_family("idefics3").model(), family_processor("idefics3"), scene(1)
    adapter = adapter_for(model)
    picture = view_picture(adapter, processor, group)
    evaluator = GenerateEvaluator(model, processor, [group])
    inputs = evaluator.inputs(group[0].image, [sample.question for sample in group])
    kept = [Selection(kept=torch.arange(0, len(tokens), 2)) for tokens in picture.encoded.views]
    every = [Selection(kept=torch.arange(len(tokens))) for tokens in picture.encoded.views]
    for chosen, method in ((every, None), (kept, _Every())):
        right, likely = answered(adapter, processor.tokenizer, picture, chosen)
        with evaluator.pruned(method, Budget(keep=0.5), 0):
            wanted = [
                float(loglikelihood(model, processor.tokenizer, inputs, sample.answer)[0][row])
                for row, sample in enumerate(group)
            ]
        assert likely == pytest.approx(wanted, abs=1e-4)  # log-probabilities of float32 logits
        assert len(right) == 2


class _Every(salience.vlm.methods.base.Method):
    """Every other token, which of nine are five."""

    name = "every"
    scored = False

    def score(self, ctx: Any) -> torch.Tensor:
        return (torch.arange(len(ctx.features)) % 2 == 0).float()


@pytest.mark.usefixtures("scenes")
def test_the_source_that_answers_best_is_chosen(
    tiny_family: Callable[[str], Any], family_processor: Callable[[str], Any]
) -> None:
    adapter = adapter_for(tiny_family("internvl").model())
    pictures = ViewPictures(adapter, family_processor("internvl"), SMALL, ProgressBars())
    chosen, tried = pictures.choose_source(SOURCES[:3])
    best = max(tried, key=lambda entry: (entry["accuracy"], entry["answer_log_prob"]))
    assert {name: best[name] for name in asdict(chosen)} == asdict(chosen)
    assert len(tried) == 3 and all(entry["answer_log_prob"] < 0 for entry in tried)


class Killed(BaseException):
    """Nothing in the library catches this, as nothing catches kill -9."""


@pytest.mark.usefixtures("scenes")
def test_a_killed_fit_goes_on_and_ends_with_the_same_weights(
    tiny_family: Callable[[str], Any], family_processor: Callable[[str], Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With views of several sizes."""
    model, processor = tiny_family("llava_next").model(), family_processor("llava_next")
    whole = fit(model, SMALL, processor=processor, out=tmp_path / "whole", quiet=True)
    step = fit_scorer._step

    def dying(*arguments: Any) -> None:
        if arguments[-1] == 5:
            raise Killed
        step(*arguments)

    monkeypatch.setattr(fit_scorer, "_step", dying)
    with pytest.raises(Killed):
        fit(model, SMALL, processor=processor, out=tmp_path / "broken", quiet=True)
    seen: list[int] = []
    monkeypatch.setattr(fit_scorer, "_step", lambda *arguments: (seen.append(arguments[-1]), step(*arguments)))
    again = fit(model, SMALL, processor=processor, out=tmp_path / "broken", quiet=True)
    assert seen == [4, 5]  # from the checkpoint at 4, with the target that was stored
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert (whole / "config.json").read_bytes() == (again / "config.json").read_bytes()


def test_views_of_several_sizes_are_learned_and_shuffled_ones_are_not(tiny_family: Callable[[str], Any]) -> None:
    adapter = adapter_for(tiny_family("llava_next").model())
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(n, adapter.d_features, generator=generator) for n in (9, 18, 12, 27)]
    shares = [(tokens[:, 0] * 2).softmax(-1) for tokens in features]  # what a token's own features do tell
    config = FitConfig(steps=120, batch=3, hidden=8)

    def left(**changes: Any) -> float:
        given = FitConfig(**{**vars(config), **changes})
        target = Target(shares=shares, about={})
        scorer = distil(adapter, given, features, target, aside=None, bars=ProgressBars())
        with torch.no_grad():
            return sum(float(attention_kl(scorer(x)[None], y[None])) for x, y in zip(features, shares, strict=True))

    uniform = sum(float(attention_kl(torch.zeros(1, len(share)), share[None])) for share in shares)
    assert left() < 0.3 * uniform
    assert left(shuffled=True) > 0.7 * uniform


def test_a_picture_that_nobody_looks_at_has_equal_shares() -> None:
    nothing = torch.zeros(2, 3, 4)
    for source in (AttentionSource(), AttentionSource(layer=0, rows="answer", join="turns")):
        assert join_questions(nothing, [(0, 1), (2, 2)], source).tolist() == [0.25] * 4
    seen = torch.zeros(1, 2, 4)
    seen[0, 1, 3] = 0.5  # the second question alone looks
    assert join_questions(seen, [(0, 0), (1, 1)], AttentionSource()).tolist() == [0, 0, 0, 1]


def test_a_model_whose_attention_cannot_be_read_is_refused_in_a_sentence() -> None:
    adapter: Any = SimpleNamespace(language_model=torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="which Linear does not have: use a training-free method"):
        require_attention(adapter)
