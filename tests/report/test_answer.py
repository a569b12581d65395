"""The title and the two sentences, for outcomes of every sort."""

from collections.abc import Callable

from salience.report.answer import answer, headline, operating_keep, telling_keep, tiles
from salience.report.series import View

Make = Callable[..., View]
TIMES = {"first_token_ms": {"saliency": (60.0, 30.0, 25.0)}}


def test_a_method_that_wins(view_of: Make) -> None:
    view = view_of(
        {"saliency": (0.9, 0.9, 0.88), "random": (0.9, 0.8, 0.4), "cls-attention": (0.9, 0.89, 0.8)},
        columns=TIMES | {"tokens_kept": {"saliency": (576, 144, 29)}},
        n_visual_tokens=576,
    )
    assert operating_keep(view) == 0.05
    assert telling_keep(view) == 0.25
    assert (
        headline(view) == "5% of the visual tokens keep 98% of the accuracy, and the first token comes 2.4\u00d7 sooner"
    )
    first, second = answer(view)
    assert first == (
        "With the learned saliency, 29 of 576 visual tokens (5%) answer 0.88 of the questions correctly, against 0.90 "
        "with all of them, and the first token comes after 25 ms instead of 60 ms."
    )
    assert "at 25%, it answers 0.90, 10 points more than random tokens" in second
    assert "only within the intervals better than the best training-free method, [CLS] attention (0.89)" in second


def test_a_method_that_beats_everything(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.88, 0.85), "random": (0.9, 0.7, 0.4), "uniform": (0.9, 0.8, 0.5)})
    assert "and beats the best training-free method, a uniform grid (0.80)" in answer(view)[1]
    assert "first token" not in headline(view)


def test_a_method_that_loses_to_the_best_training_free_one(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.88, 0.6), "random": (0.9, 0.88, 0.4), "cls-attention": (0.9, 0.88, 0.8)})
    first, second = answer(view)
    assert "(but random tokens do as well at that ratio: 0.88)" in first
    assert (
        "but does not beat the best training-free method, [CLS] attention (0.80), which is 20 points better" in second
    )


def test_a_method_that_does_not_beat_random(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.75, 0.5), "random": (0.9, 0.755, 0.5)})
    assert headline(view) == "Pruning visual tokens cost accuracy at every ratio tried"
    first, second = answer(view)
    assert first.startswith("With the learned saliency, even 25% of the tokens lower the accuracy from 0.90 to 0.75")
    assert "it does not beat random tokens clearly (0.75 against 0.76)" in second
    assert "and no training-free method does better than those" in second


def test_a_method_worse_than_random(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.5, 0.2), "random": (0.9, 0.7, 0.5)})
    assert "20 points fewer than random tokens" in answer(view)[1]


def test_no_ratio_that_separates(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.9, 0.9), "random": (0.9, 0.9, 0.89)})
    assert answer(view)[1].startswith("No ratio tried separates the methods by much: at 5%, it does not beat random")


def test_without_a_learned_method_the_best_training_free_one_is_the_subject(view_of: Make) -> None:
    view = view_of({"random": (0.9, 0.7, 0.3), "uniform": (0.9, 0.8, 0.5)})
    assert view.subject == "uniform"
    assert "it answers 0.80, 10 points more than random tokens," in answer(view)[1]
    assert "best training-free" not in answer(view)[1]


def test_no_time_is_won(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.9, 0.9)}, columns={"first_token_ms": {"saliency": (60.0, 60.0, 59.0)}})
    assert headline(view).endswith("but the first token comes no sooner")


def test_a_ratio_counts_only_when_all_larger_ones_hold(view_of: Make) -> None:
    assert operating_keep(view_of({"saliency": (0.9, 0.5, 0.9)})) is None


def test_nothing_but_all_tokens(view_of: Make) -> None:
    view = view_of({"saliency": (0.9,)}, keeps=(1.0,))
    assert headline(view) == "What pruning visual tokens saves, and what it costs"
    assert answer(view) == []


def test_a_model_that_answers_nothing(view_of: Make) -> None:
    view = view_of({"saliency": (0.0, 0.0, 0.0), "random": (0.0, 0.0, 0.0)})
    assert headline(view) == "What pruning visual tokens saves, and what it costs"


def test_a_model_that_does_not_look(view_of: Make) -> None:
    view = view_of({"saliency": (0.25, 0.25, 0.2), "random": (0.25, 0.2, 0.2)}, question_only_accuracy=0.24)
    assert headline(view) == "What pruning visual tokens saves, and what it costs"
    assert (
        "answers 0.25 of the questions correctly, no better than without looking at the picture (0.24)"
        in answer(view)[0]
    )


def test_what_became_slower_is_called_so(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.9, 0.9)}, columns={"first_token_ms": {"saliency": (30.0, 60.0, 59.0)}})
    told = {tile.label: tile.value for tile in tiles(view)}
    assert told["later to the first token at 25%"] == "2.0\u00d7"


def test_tiles_leave_out_what_was_not_measured(view_of: Make) -> None:
    view = view_of({"saliency": (0.9, 0.9, 0.8)}, columns=TIMES)
    told = {tile.label: tile.value for tile in tiles(view)}
    assert told["accuracy with all tokens"] == "0.90"
    assert told["sooner to the first token at 25%"] == "2.0\u00d7"
    assert not any("prefill" in label or "cache" in label for label in told)
