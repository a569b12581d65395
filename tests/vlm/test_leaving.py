"""The model is exactly as before once pruning ends, however it ends."""

from __future__ import annotations

import copy
import functools
import threading
from typing import Any

import pytest
import torch

import salience


def test_nothing_is_left_behind(make_model: Any, make_batch: Any, photograph: Any) -> None:
    model, batch = make_model(), make_batch([1, 2])
    before = photograph(model)
    with salience.prune(model, "cls-attention", keep=0.3) as pruned:
        assert photograph(model) != before
        with torch.no_grad():
            model(**batch)
        model.generate(**batch, max_new_tokens=2)
    assert photograph(model) == before
    assert len(pruned.trace.images) == 3  # still to be read


def test_a_photograph_sees_a_leak(make_model: Any, photograph: Any) -> None:
    """The tests above rest on this: a hook or an attribute that stays makes them fail."""
    model = make_model()
    before = photograph(model)
    handle = model.model.vision_tower.encoder.layers[0].self_attn.register_forward_pre_hook(lambda *args: None)
    assert photograph(model) != before
    handle.remove()
    assert photograph(model) == before
    model.lm_head.something = 1
    assert photograph(model) != before


@pytest.mark.parametrize("where", ["tower", "projector", "language model", "method"])
@pytest.mark.parametrize("door", ["forward", "generate"])
def test_after_an_exception_inside(make_model: Any, make_batch: Any, photograph: Any, where: str, door: str) -> None:
    model, batch = make_model(), make_batch([1])

    def fail(*args: Any) -> None:
        raise RuntimeError("broken on purpose")

    class Broken(salience.Method):
        def score(self, ctx: Any) -> torch.Tensor:
            raise RuntimeError("broken on purpose")

    method: Any = Broken() if where == "method" else "cls-attention"
    part = {
        "tower": model.model.vision_tower.encoder.layers[-1],
        "projector": model.model.multi_modal_projector,
        "language model": model.model.language_model.layers[1],
    }.get(where)
    handle = part.register_forward_pre_hook(fail) if part is not None else None
    before = photograph(model)
    with (
        pytest.raises(RuntimeError, match="broken on purpose"),
        salience.prune(model, method, keep=0.3) as pruned,
    ):
        getattr(model, door)(**batch, **({"max_new_tokens": 2} if door == "generate" else {}))
    assert photograph(model) == before
    assert (pruned.trace.images == ()) == (where != "language model")  # which runs once all is noted
    if handle is not None:
        handle.remove()
        with torch.no_grad():
            assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1]


def test_goes_on_after_an_exception_inside_generate(make_model: Any, make_batch: Any) -> None:
    model, batch = make_model(), make_batch([1])
    with salience.prune(model, "cls-attention", tokens=4):
        with pytest.raises(ValueError, match="max_new_tokens"):
            model.generate(**batch, max_new_tokens=-1)
        with torch.no_grad():
            assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1] - 12


def test_handle(make_model: Any, make_batch: Any, photograph: Any) -> None:
    model, batch = make_model(), make_batch([1])
    before = photograph(model)
    handle = salience.prune(model, "cls-attention", tokens=4)
    with torch.no_grad():
        assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1] - 12
    handle.undo()
    assert photograph(model) == before
    handle.undo()  # once more does nothing
    handle.undo()
    with pytest.raises(ValueError, match="has been undone"), handle:
        pass
    with salience.prune(model, "uniform", tokens=4):  # and it can be pruned again
        pass
    assert photograph(model) == before


def test_entering_a_handle_again_is_refused(make_model: Any) -> None:
    model = make_model()
    with salience.prune(model, "uniform", keep=0.5) as handle:
        with pytest.raises(ValueError, match="entered already"), handle:
            pass
        assert "forward" in vars(model)  # the outer one goes on


def test_twice_is_refused(make_model: Any, photograph: Any) -> None:
    model = make_model()
    before = photograph(model)
    with salience.prune(model, "uniform", keep=0.5):
        with pytest.raises(ValueError, match="already being pruned"):
            salience.prune(model, "random", keep=0.5)
        inside = photograph(model)
    assert photograph(model) == before != inside


def test_two_models_at_once(make_model: Any, make_batch: Any) -> None:
    """Nothing is process-wide: pruning one model leaves another of the same class alone."""
    one, other, batch = make_model(), make_model(), make_batch([1])
    with torch.no_grad():
        wanted = other(**batch).logits
        with salience.prune(one, "uniform", tokens=4):
            assert torch.equal(other(**batch).logits, wanted)
            with salience.prune(other, "uniform", tokens=2):
                assert one(**batch).logits.shape[1] == batch["input_ids"].shape[1] - 12
                assert other(**batch).logits.shape[1] == batch["input_ids"].shape[1] - 14


def test_what_others_put_on_the_instance_comes_back(make_model: Any, make_batch: Any) -> None:
    """accelerate replaces an instance's forward as well."""
    model, batch = make_model(), make_batch([1])
    calls = []
    original = model.forward

    @functools.wraps(original)
    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    model.forward = theirs
    with salience.prune(model, "uniform", tokens=4), torch.no_grad():
        model(**batch)
    assert calls == [1]
    assert model.__dict__["forward"] is theirs


def test_what_others_wrap_meanwhile_stays_theirs(make_model: Any, make_batch: Any) -> None:
    model, batch = make_model(), make_batch([1])
    handle = salience.prune(model, "uniform", tokens=4)
    ours = model.forward

    def theirs(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    model.forward = theirs
    handle.undo()
    assert model.__dict__["forward"] is theirs
    with torch.no_grad():
        assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1]  # ours lets everything through


def test_pruned_again_though_others_wrapped_it(make_model: Any, make_batch: Any) -> None:
    """functools.wraps copies what marks ours."""
    model, batch = make_model(), make_batch([1])
    handle = salience.prune(model, "uniform", tokens=4)
    ours = model.forward
    model.forward = functools.wraps(ours)(lambda *args, **kwargs: ours(*args, **kwargs))
    handle.undo()
    with torch.no_grad(), salience.prune(model, "uniform", tokens=2):
        assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1] - 14


def test_transformers_still_sees_what_the_model_takes(make_model: Any) -> None:
    model = make_model()
    with salience.prune(model, "uniform", keep=0.5):
        assert model._supports_mm_encoder_outputs()
        assert model._supports_logits_to_keep()


def test_callers_scorer_stays_as_it_is(make_model: Any, make_batch: Any) -> None:
    model, scorer = make_model(torch.bfloat16), salience.Scorer(24).train()
    before = copy.deepcopy(scorer.state_dict())
    with salience.prune(model, scorer, keep=0.25) as pruned, torch.no_grad():
        model(**make_batch([1]))
    assert scorer.training
    assert all(torch.equal(before[k], v) for k, v in scorer.state_dict().items())
    assert pruned.trace.images[0].scores is not None


def test_generate_in_another_thread(make_model: Any, make_batch: Any) -> None:
    """As with a TextIteratorStreamer: generate runs in a thread, the caller reads."""
    from queue import Queue

    model, batch = make_model(), make_batch([1])
    heard: Queue[Any] = Queue()

    class Streamer:
        put = heard.put

        def end(self) -> None:
            heard.put(None)

    with salience.prune(model, "cls-attention", tokens=4):
        options = {**batch, "streamer": Streamer(), "max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
        thread = threading.Thread(target=model.generate, kwargs=options)
        thread.start()
        parts = list(iter(heard.get, None))
        thread.join()
    assert torch.equal(parts[0], batch["input_ids"])
    assert len(parts) == 4
