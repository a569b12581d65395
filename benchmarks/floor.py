"""What bounds a selective scan on this machine: the arithmetic that none can leave out, from registers, and its bytes.

    python benchmarks/floor.py

A state update is one element of h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t, y_t += C_t h_t; there are B L D N of them.
With A in base 2, and dt u computed once for all states, each needs in float32 at least

- forward: a product and an exp2 for the decay, a product and a multiply-add for h, a multiply-add into y;
- backward: the decay and h again from a checkpoint (a product, an exp2, a product, a multiply-add); then, g being the
  gradient of h, multiply-adds for g += gy C, dC += gy h, dB += dt u g, du += g B, products for g *= decay and
  q = g h_before, multiply-adds for ddt += q A, dA += q dt. That is an exp2, 4 products and 7 multiply-adds.

The loops below are these instructions (and one multiply-add a step, which moves the operands on), with the scan's own
exp2, on as many threads as torch uses. Values stay in registers as far as there are enough: no tensor is read or
written. Not counted: loads and stores, sums across lanes, and what belongs to a step and not to a state (softplus,
gate, skip). Two to six chains run side by side, of the numbers tried those that are fastest on AVX2, of vectors of 64
bytes and of one register: the faster counts. The operands come
from memory and change from step to step, and all results end in a sum that is stored and looked at: a compiler can
neither leave work out nor do it once for all steps.

The bytes are those of the sequences, once; the bandwidth is that of a large copy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from harness import arguments, median_ms, report

from salience.ops.simd.arithmetic import exp2_within, fma, splat
from salience.ops.simd.element import F32, Element
from salience.ops.simd.kernel import Kernel, kernel
from salience.ops.simd.load_store import load, store
from salience.ops.simd.registers import native

LANES, ROW = 16, 64  # of a row of operands: values, bytes
PARAMS = np.dtype([("out", "i8"), ("operands", "i8"), ("steps", "i8")])
LONG_MS = 20.0  # a run of a loop takes at least as long: threads wake up in a hundredth of it
ROUNDS = 15


@kernel(PARAMS)
def fma_loop(tag, params, task):
    """Six multiply-adds a step, each on its own sum."""
    p = params[0]
    x, keep, grow = load(tag, p.operands), load(tag, p.operands + ROW), load(tag, p.operands + 2 * ROW)
    s0, s1, s2, s3, s4, s5 = x, x + x, x + keep, x * keep, x * grow, x - grow
    for _ in range(p.steps):
        s0, s1, s2 = fma(s0, keep, grow), fma(s1, keep, grow), fma(s2, keep, grow)
        s3, s4, s5 = fma(s3, keep, grow), fma(s4, keep, grow), fma(s5, keep, grow)
    store(tag, p.out + task * ROW, s0 + s1 + s2 + s3 + s4 + s5)


@kernel(PARAMS)
def exp2_loop(tag, params, task):
    """Four exp2 a step, each of the one before, halved and below zero again: a product beside each exp2."""
    p = params[0]
    x, minus = load(tag, p.operands), load(tag, p.operands + 3 * ROW)
    s0, s1, s2, s3 = x, x + x, x * x, x * x * x
    for _ in range(p.steps):
        s0, s1, s2, s3 = (
            exp2_within(s0 * minus),
            exp2_within(s1 * minus),
            exp2_within(s2 * minus),
            exp2_within(s3 * minus),
        )
    store(tag, p.out + task * ROW, s0 + s1 + s2 + s3)


@kernel(PARAMS)
def forward_loop(tag, params, task):
    """Four state updates a step."""
    p = params[0]
    d, keep, grow, at = load(tag, p.operands), load(tag, p.operands + ROW), load(tag, p.operands + 2 * ROW), p.operands
    a0, a1, a2, a3 = load(tag, at + 3 * ROW), load(tag, at + 4 * ROW), load(tag, at + 5 * ROW), load(tag, at + 6 * ROW)
    b0, b1, b2, b3 = load(tag, at + 7 * ROW), load(tag, at + 8 * ROW), load(tag, at + 9 * ROW), load(tag, at + 10 * ROW)
    h0 = splat(tag, 0.0)
    h1, h2, h3, y = h0, h0, h0, h0
    for _ in range(p.steps):
        d = fma(d, keep, grow)
        h0, h1 = fma(exp2_within(d * a0), h0, d * b0), fma(exp2_within(d * a1), h1, d * b1)
        h2, h3 = fma(exp2_within(d * a2), h2, d * b2), fma(exp2_within(d * a3), h3, d * b3)
        y = fma(b0, h3, fma(b1, h2, fma(b2, h1, fma(b3, h0, y))))
    store(tag, p.out + task * ROW, y)


@kernel(PARAMS)
def backward_loop(tag, params, task):
    """Two state updates a step."""
    p = params[0]
    d, keep, grow, at = load(tag, p.operands), load(tag, p.operands + ROW), load(tag, p.operands + 2 * ROW), p.operands
    a0, a1, b0, b1 = load(tag, at + 3 * ROW), load(tag, at + 4 * ROW), load(tag, at + 7 * ROW), load(tag, at + 8 * ROW)
    h0 = splat(tag, 0.0)
    h1, g0, g1, da0, da1, db, dc, du, ddt = h0, h0, h0, h0, h0, h0, h0, h0, h0
    for _ in range(p.steps):
        d = fma(d, keep, grow)
        e, before = exp2_within(d * a0), h0
        h0, g0 = fma(e, h0, d * b0), fma(d, b1, g0)
        dc, db, du = fma(d, h0, dc), fma(d, g0, db), fma(g0, b0, du)
        g0 = g0 * e
        q = g0 * before
        ddt, da0 = fma(q, a0, ddt), fma(q, d, da0)
        e, before = exp2_within(d * a1), h1
        h1, g1 = fma(e, h1, d * b1), fma(d, b0, g1)
        dc, db, du = fma(d, h1, dc), fma(d, g1, db), fma(g1, b1, du)
        g1 = g1 * e
        q = g1 * before
        ddt, da1 = fma(q, a1, ddt), fma(q, d, da1)
    store(tag, p.out + task * ROW, da0 + da1 + db + dc + du + ddt)


@kernel(PARAMS)
def read_loop(tag, params, task):
    """Four streams, a row of each a step: what lies at `operands`, once."""
    p = params[0]
    stream = p.steps * ROW
    at = p.operands + task * 4 * stream
    s0 = splat(tag, 0.0)
    s1, s2, s3 = s0, s0, s0
    for i in range(0, stream, ROW):
        s0, s1 = s0 + load(tag, at + i), s1 + load(tag, at + stream + i)
        s2, s3 = s2 + load(tag, at + 2 * stream + i), s3 + load(tag, at + 3 * stream + i)
    store(tag, p.out + task * ROW, s0 + s1 + s2 + s3)


LOOPS = {"fma": (fma_loop, 6), "exp2": (exp2_loop, 4), "forward": (forward_loop, 4), "backward": (backward_loop, 2)}


def operands() -> torch.Tensor:
    """(11, 16): d; what keeps d in (0, 1), 0.99 d + 0.005; four values of A, in base 2; four of B."""
    found = torch.linspace(0.1, 0.9, 11 * LANES).view(11, LANES)
    found[1], found[2] = 0.99, 0.005
    found[3:7] *= -2
    return found


def prepared(loop: Kernel, element: Element, steps: int) -> Callable[[], torch.Tensor]:
    """A call that runs a loop on every thread: (threads, lanes), what its sums came to."""
    threads, x = torch.get_num_threads(), operands()
    out = torch.full((threads, LANES), torch.nan)
    job = loop.job((element,), threads, (out.data_ptr(), x.data_ptr(), steps))

    def run(held: torch.Tensor = x) -> torch.Tensor:  # holds what the addresses point to
        job.run()
        return out[:, : element.lanes]

    return run


@functools.cache
def per_ms(name: str, rounds: int = ROUNDS) -> float:
    """How many multiply-adds, exp2 or state updates all threads together do in a millisecond, by the median round."""
    return max(_per_ms(name, element, rounds) for element in _elements())


def _elements() -> tuple[Element, ...]:
    return tuple(dict.fromkeys((F32, native(F32))))


def _per_ms(name: str, element: Element, rounds: int) -> float:
    loop, each = LOOPS[name]
    steps = 1 << 12
    found = prepared(loop, element, steps)()
    if not (found.isfinite().all() and (found == found[0]).all()):
        raise SystemExit(f"the loop for {name} gives {found.tolist()}: nothing is measured.")

    def median(steps: int, rounds: int) -> float:
        return median_ms({name: prepared(loop, element, steps)}, rounds=rounds, warmup=1)[name]

    while median(steps, 1) < LONG_MS:
        steps *= 4
    return steps * each * element.lanes * torch.get_num_threads() / median(steps, rounds)


def reader(size: int) -> Callable[[], object]:
    """Reads so many bytes once, on every thread: the fastest of the ways to read that were tried."""
    threads = torch.get_num_threads()
    steps = size // (4 * ROW * threads)
    held, out = torch.ones(4 * LANES * steps * threads), torch.empty(threads, LANES)
    job = read_loop.job((F32,), threads, (out.data_ptr(), held.data_ptr(), steps))

    def read(held: torch.Tensor = held) -> torch.Tensor:  # holds what the addresses point to
        job.run()
        return out

    if float(read().sum()) != held.numel():
        raise SystemExit("the loop that reads gives a wrong sum: nothing is measured.")
    return read


def floor(*names: str, updates: int) -> Callable[[], object]:
    """A call that does only the arithmetic of so many state updates: a contender that takes its turn among the others.

    `names`: "forward", and "backward" for their gradients, the states' recomputation included. A machine's speed
    changes from one second to the next; a floor measured before or after would tell that too.
    """

    def one(name: str) -> Callable[[], object]:
        loop, each = LOOPS[name]
        element = max(_elements(), key=lambda element: _per_ms(name, element, 3))
        return prepared(loop, element, round(updates / (each * element.lanes * torch.get_num_threads())))

    runs = [one(name) for name in names]
    return lambda: [run() for run in runs]


@functools.cache
def bytes_per_ms(rounds: int = ROUNDS) -> float:
    """Bytes read and written in a millisecond by a copy of 128 MB, too large for any cache."""
    source = torch.ones(1 << 25)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_ms({"copy": lambda: target.copy_(source)}, rounds=rounds)["copy"]


def bytes_floor_ms(moved: int) -> float:
    """Milliseconds that so many bytes take at the speed of a large copy."""
    return moved / bytes_per_ms()


def main() -> None:
    rounds = arguments(__doc__ or "", rounds=ROUNDS).rounds
    told = {name: per_ms(name, rounds) / 1e6 for name in LOOPS}  # in a nanosecond: G/s
    copied = bytes_per_ms(rounds) / 1e6
    report(
        f"the floor of this machine, float32, {torch.get_num_threads()} threads",
        {f"{name}_per_ns": value for name, value in told.items()} | {"bytes_per_ns": copied},
        [
            ("multiply-adds", f"{told['fma']:.1f} G/s"),
            ("exp2, with a product each", f"{told['exp2']:.2f} G/s"),
            ("state updates, forward", f"{told['forward']:.2f} G/s"),
            ("state updates, backward", f"{told['backward']:.2f} G/s"),
            ("copy, read and written", f"{copied:.1f} GB/s"),
        ],
    )


if __name__ == "__main__":
    main()
