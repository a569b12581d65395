"""Costs against hand counts: operations, bytes alive and stage medians."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from salience.lab.profile.latency import Stopwatch, measure
from salience.lab.profile.operator_counts import count_flops
from salience.lab.profile.peak_memory import kv_bytes, peak_bytes


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_products_count_two_per_multiply_add(device: str) -> None:
    layer = nn.Linear(6, 10, device=device)
    assert count_flops(layer, torch.zeros(4, 6, device=device)) == 2 * 4 * 6 * 10


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("inference", [False, True])
def test_attention_counts_as_the_full_square(device: str, inference: bool) -> None:
    query, key = torch.zeros(2, 4, 5, 8, device=device), torch.zeros(2, 4, 9, 8, device=device)
    mask = torch.ones(5, 9, dtype=torch.bool, device=device).tril()
    with torch.inference_mode(inference):
        found = count_flops(nn.functional.scaled_dot_product_attention, query, key, key, attn_mask=mask)
    assert found == 2 * (2 * 2 * 4 * 5 * 9 * 8)


def test_peak_is_what_is_alive_at_once() -> None:
    def three_then_one() -> torch.Tensor:
        first = torch.zeros(1000)
        second, third = first + 1, first + 2
        kept = second + third  # four of 4,000 bytes alive
        del first, second, third
        return kept * 2

    assert peak_bytes(three_then_one) == 4 * 4000


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_peak_includes_the_weights_and_not_the_inputs(device: str) -> None:
    layer, given = nn.Linear(100, 100, device=device), torch.zeros(1, 100, device=device)
    assert peak_bytes(lambda: layer(layer(given)), layer.parameters()) == 4 * (100 * 100 + 100) + 2 * 400


def test_views_share_their_bytes() -> None:
    assert peak_bytes(lambda: torch.zeros(10, 10).t().reshape(-1, 5)[1:].numel()) <= 2 * 400


def test_cache_bytes() -> None:
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(3):
        cache.update(torch.zeros(1, 2, 7, 4), torch.zeros(1, 2, 7, 4), layer)
    assert kv_bytes(cache) == 3 * 2 * (2 * 7 * 4 * 4)


def test_cases_are_interleaved_and_the_warm_up_dropped() -> None:
    order: list[str] = []

    def case(name: str, pause: float) -> None:
        order.append(name)
        time.sleep(pause if len(order) > 2 else 0.05)

    def timed(name: str, pause: float):  # type: ignore[no-untyped-def]
        def call(watch: Stopwatch) -> None:
            case(name, pause)
            watch.lap("work")

        return call

    found = measure({"a": timed("a", 0.001), "b": timed("b", 0.01)}, repeats=3, warmup=1)
    assert order == ["a", "b"] * 4
    # The dropped round slept 50 ms; a sleep of 1 ms may overrun, but a median of three by no 40 ms.
    assert 1 <= found["a"]["work"] < 41 and 10 <= found["b"]["work"] < 50


def test_measure_refuses_no_repeats() -> None:
    with pytest.raises(ValueError, match="repeats is 0"):
        measure({}, repeats=0)
