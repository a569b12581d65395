"""Findings about time, arithmetic and memory."""

from collections.abc import Callable

from salience.lab.report.tradeoff import cost_findings as costs
from salience.lab.report.tradeoff.findings import TIMES
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

Make = Callable[..., TradeoffData]
FLAT = {"saliency": (0.9, 0.9, 0.9)}


def of(column: str, *values: float) -> dict[str, dict[str, tuple[float, ...]]]:
    return {column: {"saliency": values}}


def test_a_tower_that_rules(view_of: Make) -> None:
    found = costs.tower(view_of(FLAT, columns=of("encode_ms", 20, 20, 20) | of("first_token_ms", 60, 30, 25)))
    assert found is not None
    assert (found.tone, found.lead) == (
        "bad",
        "At 25% and 5% the vision tower takes most of the time to the first token.",
    )
    assert found.text == (
        "Encoding takes 33% of the time to the first token with all tokens and 80% at 5%. Going from 25% down to 5% "
        "brings the first token 1.2\u00d7 sooner."
    )


def test_a_tower_that_does_not(view_of: Make) -> None:
    found = costs.tower(view_of(FLAT, columns=of("encode_ms", 1, 1, 1) | of("first_token_ms", 60, 30, 25)))
    assert found is not None
    assert found.lead == "The vision tower takes less than half of the time to the first token."
    assert found.text == "Its largest share is 4%, at 5%."


def test_a_tower_that_rules_in_one_place_is_said_to_rule_there_alone(view_of: Make) -> None:
    found = costs.tower(view_of(FLAT, columns=of("encode_ms", 20, 20, 10) | of("first_token_ms", 60, 30, 25)))
    assert found is not None
    assert found.lead == "At 25% the vision tower takes most of the time to the first token."


def test_a_cache_that_does_not_shrink_is_not_said_to(view_of: Make) -> None:
    found = costs.memory(view_of(FLAT, columns=of("kv_bytes", 2**20, 2**20, 2**20)))
    assert found is not None and found.text == "The KV cache goes from 1.0 MiB to 1.0 MiB."


def test_flops_that_predict_and_flops_that_do_not(view_of: Make) -> None:
    flops = of("flops_llm", 16e9, 4e9, 1e9)
    near = costs.prediction(view_of(FLAT, columns=of("prefill_ms", 40, 11, 3) | flops))
    far = costs.prediction(view_of(FLAT, columns=of("prefill_ms", 40, 11, 8) | flops))
    assert near is not None
    assert far is not None
    assert (near.tone, far.tone) == ("good", "bad")
    assert far.text == "Prefill at 5% (at 5%: 5.0\u00d7 measured, 16\u00d7 predicted)."
    beside = costs.prediction(
        view_of(FLAT, columns=of("prefill_ms", 40, 16, 8) | of("prefill_batch4_ms", 120, 31, 9) | flops)
    )
    assert beside is not None
    assert "at 25%, batch 4 is 3.9\u00d7 faster and batch 1 is 2.5\u00d7 faster; 4.0\u00d7 is predicted." in beside.text


def test_the_cost_of_selection(view_of: Make) -> None:
    cheap = costs.selection(view_of(FLAT, columns=of("prefill_ms", 40, 11, 3) | of("select_ms", 0, 0.4, 0.4)))
    dear = costs.selection(view_of(FLAT, columns=of("prefill_ms", 40, 11, 3) | of("select_ms", 0, 4.0, 4.0)))
    assert cheap is not None
    assert dear is not None
    assert (cheap.tone, cheap.text) == ("good", "0.4 ms at 25%, 1% of an unpruned prefill.")
    assert dear.tone == "bad"


def test_peak_memory_that_does_not_fall(view_of: Make) -> None:
    found = costs.memory(view_of(FLAT, columns=of("peak_bytes", 2**20, 2**20, 2**20)))
    assert found is not None
    assert (found.tone, found.text) == ("bad", "Peak memory does not fall (1.0 MiB before, 1.0 MiB at 25%).")


def test_nothing_is_said_of_what_was_not_measured(view_of: Make) -> None:
    assert [tell(view_of(FLAT)) for tell in (*TIMES, costs.memory)] == [None] * 4
