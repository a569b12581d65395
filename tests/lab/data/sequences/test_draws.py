"""Random numbers by number: even, independent between neighbours, and fixed for good."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from salience.lab.data.sequences.draws import integers, order_of, places, uniform


def test_the_numbers_never_change() -> None:
    # written down once: data made from a seed must stay what they were when results were committed
    assert uniform(0, 0, np.array([0, 1]), 2).tolist() == [
        [0.21749422697012066, 0.5941153466169096],
        [0.2941301202147246, 0.3506526192799657],
    ]
    assert integers(3, 1, np.array([4, 5]), 6, 10)[1].tolist() == [9, 2, 3, 5, 8, 7]
    assert order_of(0, 784, 784)[:6].tolist() == [343, 389, 462, 585, 140, 63]  # psMNIST's permutation


def test_draws_are_even_and_neighbours_tell_nothing() -> None:
    drawn = uniform(0, 0, np.arange(1000), 200)
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    # chi-square with 99 degrees of freedom: mean 99, deviation 14; five deviations
    assert abs(((counts - 2000) ** 2 / 2000).sum() - 99) < 70
    flat = drawn - 0.5
    for pair in (flat[1:] * flat[:-1], flat[:, 1:] * flat[:, :-1]):
        # a product of two has standard deviation 1/12; the mean of 199,000 of them 1.9e-4; five deviations
        assert abs(float(pair.mean())) < 1e-3
    others = [uniform(1, 0, np.arange(1000), 200), uniform(0, 1, np.arange(1000), 200)]
    assert all(abs(float((flat * (other - 0.5)).mean())) < 1e-3 for other in others)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(-5, 2**70), count=st.integers(1, 20), more=st.integers(0, 20))
def test_places_are_different_rising_and_within(seed: int, count: int, more: int) -> None:
    found = places(seed, 0, np.arange(50), count, count + more)
    assert found.shape == (50, count) and found.min() >= 0 and found.max() < count + more
    assert (np.diff(found, axis=1) > 0).all()


def test_orders_are_permutations_and_differ() -> None:
    orders = [order_of(seed, number, 300) for seed in (0, 1) for number in (0, 1)]
    assert all((np.sort(order) == np.arange(300)).all() for order in orders)
    assert len({order.tobytes() for order in orders}) == 4
