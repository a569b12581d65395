"""Token metrics and teacher-forced marks against runs of the model itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import salience
from salience.core.types import VisualGrid
from salience.lab.evaluate.encoded_pictures import encode_pictures, load_pictures
from salience.lab.evaluate.packed_answers import answer, divergence, pick
from salience.lab.evaluate.prompts import prompt_text
from salience.lab.evaluate.ranking import RankedPictures, Ranking, merged_tokens
from salience.lab.tradeoff.controls import other_picture, question_cuts, question_oracle
from salience.lab.tradeoff.encoded_task import EncodedTask, KeptTokens, tokens_in_boxes
from salience.lab.tradeoff.methods_under_test import MethodUnderTest, oracle_for
from salience.lab.tradeoff.token_metrics import TokenMetrics, token_metrics
from salience.vlm.families import adapter_for
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.random import Random


@pytest.fixture(scope="module")
def task(tiny_llava: Callable[..., Any], tiny_processor: Callable[[int], Any]) -> EncodedTask:
    adapter, processor = adapter_for(tiny_llava(84)), tiny_processor(84)
    test = encode_pictures(adapter, processor, load_pictures("scenes", split="test", pictures=4, questions=5))
    train = encode_pictures(adapter, processor, load_pictures("scenes", split="train", pictures=6, questions=1))
    return EncodedTask(test=RankedPictures(adapter, test), train=RankedPictures(adapter, train))


def metrics(task: EncodedTask, method: Method | None, keep: float) -> TokenMetrics:
    under_test = None if method is None else MethodUnderTest(name="any", seed=0, method=method)
    return token_metrics(task, *task.kept(under_test, keep))


def test_keeping_all_loses_nothing(task: EncodedTask) -> None:
    found, whole = metrics(task, Random(), 1.0), metrics(task, None, 1.0)
    assert found == whole  # the same run twice: the same bits
    # Means and sums of 36 float32 numbers.
    assert found.feature_cosine == pytest.approx(1.0, abs=1e-5)
    assert found.saliency_mass == pytest.approx(1.0, abs=1e-5)


def test_divergence_is_positive_and_of_the_right_questions(task: EncodedTask) -> None:
    kept = Ranking(Random(seed=0), task.test.pictures).kept(0.1)
    whole, found = task.test.all_tokens, answer(task.test.adapter, task.test.pictures, kept)
    each = divergence(whole, found)
    assert each.shape == (20,) and (each > 0).all()
    # By hand, for one question: the mean over its two tokens (the word and the end) of the KL between the two.
    mine = whole.question == 7
    full, pruned = whole.log_probs[mine], found.log_probs[mine]
    assert mine.sum() == 2
    assert each[7] == pytest.approx(float((full.exp() * (full - pruned)).sum(-1).mean()), rel=1e-5)
    assert torch.equal(pick(found, [7]).log_probs, found.log_probs[mine])


@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_right_means_that_generate_answers_so(
    task: EncodedTask, tiny_processor: Callable[[int], Any], keep: float
) -> None:
    """Mark each question by its own greedy generation under `prune`, with the wanted answer set to what came out."""
    from dataclasses import replace

    processor, model, method = tiny_processor(84), task.test.adapter.model, Random(seed=1)
    pictures = task.test.pictures
    kept = Ranking(method, pictures).kept(keep)
    prompts, wanted = [], []
    for group, asked in zip(pictures.samples, pictures.prompts, strict=True):
        mine = []
        for number, (sample, prompt) in enumerate(zip(group, asked, strict=True)):
            inputs = processor(images=sample.image, text=prompt_text(processor, sample.question), return_tensors="pt")
            with salience.prune(model, method, keep=keep):
                out = model.generate(**inputs, max_new_tokens=3, do_sample=False)
            said = tuple(out[0, inputs["input_ids"].shape[1] :].tolist())
            right = number % 2 == 0
            mine.append(replace(prompt, answer=said if right else (*said[:-1], (said[-1] + 1) % 40)))
            wanted.append(right)
        prompts.append(mine)
    found = answer(task.test.adapter, pictures, kept, prompts=prompts)
    assert found.correct.tolist() == wanted


def test_ranking_selects_as_the_method_itself_does(task: EncodedTask) -> None:
    pictures = task.test.pictures
    for method in (Random(seed=3), ClsAttention(), oracle_for(pictures.samples)):
        ranking = Ranking(method, pictures)
        for keep in (0.5, 0.05):
            for picture, kept in enumerate(ranking.kept(keep)):
                assert torch.equal(kept, method.select(pictures.context(picture), Budget(keep=keep)).kept)


def test_the_question_oracle_serves_every_question_once(task: EncodedTask) -> None:
    cuts = question_cuts(task.test.pictures, 0.1)
    served = sorted((picture, number) for picture, _, numbers in cuts for number in numbers)
    assert served == [(p, q) for p, group in enumerate(task.test.pictures.samples) for q in range(len(group))]
    # GenerateEvaluator with the cuts of all tokens is asking with all tokens: the same numbers in another order.
    found, questions, kept = question_oracle(task.test, 1.0, 4)
    assert sorted(questions) == list(range(20)) and len(kept.kept) == 20
    assert [found.right[questions.index(q)] for q in range(20)] == task.test.all_tokens.correct.float().tolist()
    # Other questions share the row, so float32 sums come in another order.
    assert found.answer_kl == pytest.approx([0.0] * 20, abs=1e-6)
    assert token_metrics(task, kept, None).probe_accuracy is None


def test_tokens_in_boxes_by_hand() -> None:
    # cells of 84 x 168 pixels: middles at x = 42, 126, 210, 294 and y = 84, 252
    inside = tokens_in_boxes([(0, 0, 127, 90), (200, 240, 300, 336)], VisualGrid(rows=2, columns=4))
    assert inside.tolist() == [True, True, False, False, False, False, True, True]


def test_the_oracle_keeps_items(task: EncodedTask) -> None:
    found, whole = metrics(task, oracle_for(task.test.pictures.samples), 0.05), metrics(task, None, 1.0)
    assert found.item_share is not None and whole.item_share is not None
    assert found.item_share > 2 * whole.item_share > 0
    assert task.train is not None  # the probe learns on the items of its own pictures
    _, train = task.kept(MethodUnderTest(name="oracle", seed=0, method=oracle_for(task.test.pictures.samples)), 0.05)
    wanted = Ranking(oracle_for(task.train.pictures.samples), task.train.pictures).kept(0.05)
    assert train is not None and all(map(torch.equal, train.kept, wanted))


def test_another_picture_is_really_another(task: EncodedTask) -> None:
    """One shift, worked out by hand: picture p's questions beside the tokens of picture p + 1."""
    adapter, pictures, every = task.test.adapter, task.test.pictures, task.test.every()
    blind = [number % 3 == 0 for number in range(20)]
    found = other_picture(task.test, 4, 1, blind)
    by_hand = answer(adapter, pictures, every, which=[1, 2, 3, 0], prompts=pictures.prompts)
    assert found is not None
    assert found["accuracy"] == pytest.approx(by_hand.accuracy)
    above = found["accuracy"] - sum(blind) / len(blind)
    assert found["above_low"] <= above <= found["above_high"]
    everyone = other_picture(task.test, 4, 9, blind)  # there are only three others
    assert everyone is not None and 0 <= everyone["low"] <= everyone["accuracy"] <= everyone["high"] <= 1
    each = [
        answer(adapter, pictures, every, which=[(p + shift) % 4 for p in range(4)], prompts=pictures.prompts).accuracy
        for shift in (1, 2, 3)
    ]
    assert everyone["accuracy"] == pytest.approx(sum(each) / 3)


def test_mass_is_of_the_unpruned_reference(task: EncodedTask) -> None:
    kept = Ranking(Random(seed=0), task.test.pictures).kept(0.25)
    wanted = sum(float(task.attention[p, k].sum()) for p, k in enumerate(kept)) / 4
    assert metrics(task, Random(seed=0), 0.25).saliency_mass == pytest.approx(wanted)


def test_merged_tokens_are_what_the_language_model_and_the_probe_see() -> None:
    """A method that merges and one that finds its own count, on made-up encoded pictures."""
    from types import SimpleNamespace
    from typing import cast

    from salience.core.types import VisualGrid
    from salience.lab.evaluate.encoded_pictures import EncodedPictures
    from salience.vlm.methods.prumerge import PruMerge

    draw = torch.Generator().manual_seed(0)
    features = torch.randn(2, 36, 8, generator=draw)
    pictures = EncodedPictures(
        samples=[[], []], prompts=[[], []], features=features, projected=2 * features, digests=[0, 1],
        cls_attention=(2 * torch.randn(2, 36, generator=draw)).softmax(-1), grid=VisualGrid(rows=6, columns=6),
        keys=torch.randn(2, 36, 2, 4, generator=draw),
    )  # fmt: skip
    ranking = Ranking(PruMerge(neighbours=4), pictures)
    adapter = cast("Any", SimpleNamespace(project=lambda rows: 2 * rows))
    cut = ranking.selections(Budget(keep=0.5))
    seen = merged_tokens(adapter, pictures, cut)
    assert seen is not None
    for i, (tokens, selection) in enumerate(zip(seen, cut, strict=True)):
        assert len(tokens) == len(selection.kept) < 18
        assert torch.equal(tokens, 2 * selection.take(features[i]))
        assert not torch.equal(tokens, pictures.projected[i][selection.kept])
    kept = KeptTokens(pictures=pictures, which=range(2), kept=[one.kept for one in cut], merged=seen)
    assert all(map(torch.equal, kept.projected(), seen))
    assert merged_tokens(adapter, pictures, ranking.selections(Budget(keep=1.0))) is None
