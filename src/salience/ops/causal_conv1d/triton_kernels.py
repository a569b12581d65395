"""The causal convolution's kernels for a GPU, in ranks: the place of a valid step among those of its row.

A window is then W neighbours, whatever is masked. Ranks below 0 are the initial state's. Where nothing is masked or
packed there is no table: a rank is a position.
"""

# ruff: noqa: RUF005 - Triton's language has `+` for tuples and no stars
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def position(places, b, r, on, length, TABLE: tl.constexpr, REVERSE: tl.constexpr):
    """Positions of these ranks in their row."""
    at = r
    if TABLE:
        at = tl.load(places + b * length + r, mask=on, other=0)
    elif REVERSE:
        at = length - 1 - r
    return at


@triton.jit
def beginning(starts, b, r, on, length, TABLE: tl.constexpr, BEFORE: tl.constexpr):
    """The rank where the sequence of each rank begins; the initial state belongs to the first."""
    start = tl.zeros_like(r) - BEFORE
    if TABLE:
        start = tl.load(starts + b * length + r, mask=on, other=-BEFORE)
    return start


@triton.jit
def inputs(x, initial, places, b, r, d, live, count, length, width, x_b, x_l, x_d, TABLE: tl.constexpr,
           HAS_INITIAL: tl.constexpr, REVERSE: tl.constexpr, BEFORE: tl.constexpr,
           COMPUTE: tl.constexpr):  # fmt: skip
    """(ranks, channels): the inputs of these ranks, zeros where there are none."""
    on = (r >= 0) & (r < count)
    at = position(places, b, r, on, length, TABLE, REVERSE)
    found = tl.load(x + b * x_b + (at * x_l)[:, None] + (d * x_d)[None, :], mask=on[:, None] & live[None, :], other=0.0)
    found = found.to(COMPUTE)
    if HAS_INITIAL:
        early = (r < 0) & (r >= -BEFORE)
        rows = initial + ((b * BEFORE + r + BEFORE) * width)[:, None] + d[None, :]
        found += tl.load(rows, mask=early[:, None] & live[None, :], other=0.0).to(COMPUTE)
    return found


@triton.jit(do_not_specialize=("length",))
def forward_kernel(x, weight, bias, initial, places, starts, counts, y, state, x_b, x_l, x_d, length, width,
                   HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, TABLE: tl.constexpr, REVERSE: tl.constexpr,
                   SILU: tl.constexpr, COMPUTE: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
                   BD: tl.constexpr):  # fmt: skip
    """y of a tile of ranks, and what of the state falls into it; y and state are zero where no valid step is."""
    b = tl.program_id(2).to(tl.int64)
    d = tl.program_id(0).to(tl.int64) * BD + tl.arange(0, BD)
    r = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS) - (WIDTH - 1)
    live = d < width
    count = tl.full((), 0, tl.int64) + length
    if TABLE:
        count = tl.load(counts + b)
    on = (r >= 0) & (r < count)
    start = beginning(starts, b, r, on, length, TABLE, WIDTH - 1)
    out = tl.zeros((ROWS, BD), COMPUTE)
    if HAS_BIAS:
        out += tl.load(bias + d, mask=live, other=0.0)[None, :]
    for i in tl.static_range(WIDTH):
        tap = inputs(x, initial, places, b, r - i, d, live, count, length, width, x_b, x_l, x_d, TABLE, HAS_INITIAL,
                     REVERSE, WIDTH - 1, COMPUTE)  # fmt: skip
        if i == 0:
            last = tl.zeros((), tl.int64) - (WIDTH - 1)
            if TABLE:
                last = tl.load(starts + b * length + count - 1, mask=count > 0, other=-(WIDTH - 1))
            row = r - count + WIDTH - 1
            kept = (row >= 0) & (row < WIDTH - 1) & (r >= last)
            spot = state + ((b * (WIDTH - 1) + row) * width)[:, None] + d[None, :]
            tl.store(spot, tap.to(state.dtype.element_ty), mask=kept[:, None] & live[None, :])
        w = tl.load(weight + (WIDTH - 1 - i) * width + d, mask=live, other=0.0)
        out += tl.where((r - i >= start)[:, None], tap, 0.0) * w[None, :]
    if SILU:
        out = out * sigmoid(out)
    at = position(places, b, r, on, length, TABLE, REVERSE)
    spot = y + ((b * length + at) * width)[:, None] + d[None, :]
    tl.store(spot, out.to(y.dtype.element_ty), mask=on[:, None] & live[None, :])


@triton.jit(do_not_specialize=("length",))
def backward_kernel(dy, dstate, x, weight, bias, initial, places, starts, counts, dx, dinitial, partial,
                    dy_b, dy_l, dy_d, x_b, x_l, x_d, length, width,
                    HAS_STATE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_INITIAL: tl.constexpr, TABLE: tl.constexpr,
                    REVERSE: tl.constexpr, SILU: tl.constexpr, COMPUTE: tl.constexpr, WIDTH: tl.constexpr,
                    ROWS: tl.constexpr, TILES: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """Gradients of TILES tiles of ranks: of inputs and initial state, and a partial sum of the weight's and the bias's.

    dx_r = sum over j of w_j g_{r + j}, g the gradient of the sum before silu: the W sums are computed again.
    """
    b, part = tl.program_id(2).to(tl.int64), tl.program_id(1).to(tl.int64)
    d = tl.program_id(0).to(tl.int64) * BD + tl.arange(0, BD)
    live = d < width
    count = tl.full((), 0, tl.int64) + length
    last = tl.zeros((), tl.int64) - (WIDTH - 1)
    if TABLE:
        count = tl.load(counts + b)
        last = tl.load(starts + b * length + count - 1, mask=count > 0, other=-(WIDTH - 1))
    ws = ()
    for i in tl.static_range(WIDTH):
        ws = ws + (tl.load(weight + (WIDTH - 1 - i) * width + d, mask=live, other=0.0)[None, :],)
    sums = tl.zeros((8, BD), COMPUTE)  # a row for each tap
    shift = tl.zeros((BD,), COMPUTE)
    if HAS_BIAS:
        shift = tl.load(bias + d, mask=live, other=0.0)
    d_shift = tl.zeros((BD,), COMPUTE)
    taps = tl.arange(0, 8)
    for k in range(TILES):
        r = (part * TILES + k) * ROWS + tl.arange(0, ROWS) - (WIDTH - 1)
        xs = ()
        for s in tl.static_range(2 * WIDTH - 1):
            xs = xs + (inputs(x, initial, places, b, r + s - (WIDTH - 1), d, live, count, length, width, x_b, x_l, x_d,
                              TABLE, HAS_INITIAL, REVERSE, WIDTH - 1, COMPUTE),)  # fmt: skip
        found = tl.zeros((ROWS, BD), COMPUTE)
        for j in tl.static_range(WIDTH):
            later = r + j
            on = (later >= 0) & (later < count)
            start = beginning(starts, b, later, on, length, TABLE, WIDTH - 1)
            at = position(places, b, later, on, length, TABLE, REVERSE)
            g = tl.load(dy + b * dy_b + (at * dy_l)[:, None] + (d * dy_d)[None, :],
                        mask=on[:, None] & live[None, :], other=0.0).to(COMPUTE)  # fmt: skip
            if SILU:
                before = tl.zeros((ROWS, BD), COMPUTE) + shift[None, :]
                for i in tl.static_range(WIDTH):
                    before += tl.where((later - i >= start)[:, None], xs[WIDTH - 1 + j - i], 0.0) * ws[i]
                slope = sigmoid(before)
                g = g * slope * (1 + before * (1 - slope))
            found += tl.where((r >= start)[:, None], g, 0.0) * ws[j]
            if j == 0:
                d_shift += tl.sum(g, axis=0)
                for i in tl.static_range(WIDTH):
                    share = tl.sum(tl.where((r - i >= start)[:, None], xs[WIDTH - 1 - i], 0.0) * g, axis=0)
                    sums += tl.where((taps == WIDTH - 1 - i)[:, None], share[None, :], 0.0)
        if HAS_STATE:
            row = r - count + WIDTH - 1
            kept = (row >= 0) & (row < WIDTH - 1) & (r >= last)
            spot = dstate + ((b * (WIDTH - 1) + row) * width)[:, None] + d[None, :]
            found += tl.load(spot, mask=kept[:, None] & live[None, :], other=0.0).to(COMPUTE)
        on = (r >= 0) & (r < count)
        at = position(places, b, r, on, length, TABLE, REVERSE)
        spot = dx + ((b * length + at) * width)[:, None] + d[None, :]
        tl.store(spot, found.to(dx.dtype.element_ty), mask=on[:, None] & live[None, :])
        if HAS_INITIAL:
            spot = dinitial + ((b * (WIDTH - 1) + r + WIDTH - 1) * width)[:, None] + d[None, :]
            tl.store(spot, found.to(dinitial.dtype.element_ty), mask=(r < 0)[:, None] & live[None, :])
    base = partial + (b * tl.num_programs(1) + part) * (WIDTH + 1) * width + d
    tl.store(base[None, :] + taps[:, None] * width, sums, mask=(taps < WIDTH)[:, None] & live[None, :])
    tl.store(base + WIDTH * width, d_shift, mask=live)


@triton.jit
def step_kernel(state, x, weight, bias, y, s_b, s_w, s_d, x_b, x_d, width, HAS_BIAS: tl.constexpr,
                SILU: tl.constexpr, COMPUTE: tl.constexpr, WIDTH: tl.constexpr, BD: tl.constexpr):  # fmt: skip
    """One more input: y, and the state a place on. A lane reads a row before it writes the one before."""
    b = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0).to(tl.int64) * BD + tl.arange(0, BD)
    live = d < width
    here = state + b * s_b + d * s_d
    out = tl.zeros((BD,), COMPUTE)
    if HAS_BIAS:
        out += tl.load(bias + d, mask=live, other=0.0)
    for i in tl.static_range(WIDTH):
        if i < WIDTH - 1:
            value = tl.load(here + i * s_w, mask=live, other=0.0)
        else:
            value = tl.load(x + b * x_b + d * x_d, mask=live, other=0.0).to(state.dtype.element_ty)
        if i > 0:
            tl.store(here + (i - 1) * s_w, value, mask=live)
        out += value.to(COMPUTE) * tl.load(weight + i * width + d, mask=live, other=0.0)
    if SILU:
        out = out * sigmoid(out)
    tl.store(y + b * width + d, out.to(y.dtype.element_ty), mask=live)
