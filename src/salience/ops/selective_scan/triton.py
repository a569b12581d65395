"""Triton path of the selective scan. No autograd.

- One pass over L where batch times blocks of channels fill the GPU; else L is split into segments: what each adds to
  the state (its own pass), carried from segment to segment, then the outputs. It costs the exponentials twice.
- Checkpoints every 16 steps, a tile of the backward pass, not every 64: as much memory as one float32 copy of u
  (N = 16), and no second recomputation of the states, which the exponentials would make dear.
- The forward kernel goes step by step: the loads of a few steps overlap, and a scan over a tile would gain nothing. The
  backward kernel takes one state at a time through a tile with scans over time: all states of a tile would not fit into
  registers. dB and dC are partial sums, one for each block of channels, added up after: no atomics, the same bits
  every time.
- All offsets are 64 bit.

Experimental: compiled for sm_80 and sm_90 and run by Triton's interpreter, but no run on a GPU is recorded
(`benchmarks/scan_gpu.py` makes one).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from salience.ops.constants import LN2, LOG2E
from salience.ops.kernel_arguments import contiguous, current_device
from salience.ops.segment_codes import step_codes
from salience.ops.selective_scan.checks import ScanInputs, grouped, sequence_dtype
from salience.ops.selective_scan.triton_kernels import TILE, backward_kernel, carry_kernel, forward_kernel, step_kernel

#: Warps a multiprocessor wants, to hide the latency of its loads.
WARPS = 8
#: A segment has at least so many tiles.
LEAST_TILES = 8


class TileSize(NamedTuple):
    """Channels of a program, and its warps."""

    channels: int
    warps: int


#: A lane owns one, two or four channels; the first is taken where nothing can be timed.
BLOCKS = (TileSize(32, 1), TileSize(64, 1), TileSize(64, 2), TileSize(128, 2), TileSize(128, 4))
#: The interpreter computes every lane in turn: small blocks, so that tests meet several of them.
INTERPRETED = TileSize(4, 1)

_found: dict[Hashable, TileSize] = {}
_lock = threading.Lock()


def best_block(key: Hashable, run: Callable[[TileSize], object], *, on_gpu: bool) -> TileSize:
    """The block with which `run` is fastest, timed at the first call with this key.

    `run` must give the same whenever it is repeated. While a CUDA graph is being captured nothing can be timed: then
    the first block is taken, and nothing is remembered.
    """
    if not on_gpu:
        return INTERPRETED
    with _lock:
        if key not in _found:
            if torch.cuda.is_current_stream_capturing():
                return BLOCKS[0]
            from triton.testing import do_bench

            times = {block: do_bench(lambda block=block: run(block), warmup=5, rep=20) for block in BLOCKS}
            _found[key] = min(times, key=lambda block: times[block])
        return _found[key]


def segments_for(programs: int, tiles: int, device: torch.device) -> int:
    """Number of segments of L that run at once; 1 if the programs already fill at least a third of the GPU."""
    if device.type != "cuda":
        return 1
    wanted = WARPS * torch.cuda.get_device_properties(device).multi_processor_count // max(programs, 1)
    return max(1, min(wanted, tiles // LEAST_TILES)) if wanted >= 3 else 1


class TritonScanCall:
    """Arguments of forward and backward as Triton kernels take them; None for absent tensors."""

    def __init__(self, given: ScanInputs) -> None:
        self.u, self.dt, A, B, C, D, self.z, dt_bias, _, mask, seq_idx, self.softplus, self.reverse = given
        self.B, self.C, self.compute = grouped(B), grouped(C), sequence_dtype(given)
        self.A2 = (A.to(self.compute) * LOG2E).T.contiguous()  # (N, D), in base 2
        self.D, self.bias = contiguous(D, self.compute), contiguous(dt_bias, self.compute)
        batch, length, width = self.u.shape
        self.channels, self.tiles = width // self.B.shape[2], -(-length // TILE)
        self.per_segment = -(-self.tiles // segments_for(batch * -(-width // 32), self.tiles, self.u.device))
        self.segments = -(-self.tiles // self.per_segment)
        codes = step_codes(mask, seq_idx, self.reverse)  # kernels read them at a step's position
        self.codes = codes.flip(1) if codes is not None and self.reverse else codes

    def state(self, count: int) -> Tensor:
        """(B, count, N, D), not yet filled."""
        batch, _, width = self.u.shape
        return self.u.new_empty(batch, count, self.A2.shape[0], width, dtype=self.compute)

    def kind(self, *more: object) -> tuple[object, ...]:
        """Key of the tuning; calls with the same key, and of similar length, share it."""
        size = (self.u.shape[0] * self.u.shape[2] * self.segments).bit_length()
        return (*more, self.u.device, self.u.dtype, self.channels, self.A2.shape[0], size, self.z is None)

    def blocks(self, block: TileSize) -> int:
        """Blocks of channels of one group."""
        return -(-self.channels // block.channels)

    def grid(self, block: TileSize) -> tuple[int, int, int]:
        return (self.blocks(block) * self.B.shape[2], self.segments, self.u.shape[0])

    def strides(self) -> tuple[int, ...]:
        z = (0, 0, 0) if self.z is None else self.z.stride()
        return (*self.u.stride(), *self.dt.stride(), *z, *self.B.stride(), *self.C.stride())

    def sizes(self) -> tuple[int, ...]:
        return (self.u.shape[1], self.u.shape[2], self.A2.shape[0], self.channels)

    def flags(self, block: TileSize) -> dict[str, Any]:
        return {
            "HAS_Z": self.z is not None, "HAS_D": self.D is not None, "HAS_BIAS": self.bias is not None,
            "HAS_CODES": self.codes is not None, "SOFTPLUS": self.softplus, "REVERSE": self.reverse,
            **arithmetic(self.compute), "TILE": TILE, "BN": triton.next_power_of_2(self.A2.shape[0]),
            "BD": block.channels, "num_warps": block.warps,
        }  # fmt: skip

    def walk(self, u: Tensor, entry: Tensor | None, leave: Tensor, *, y: Tensor | None = None,
             states: Tensor | None = None, sums: Tensor | None = None, adjoint: bool = False) -> None:  # fmt: skip
        """`forward_kernel` over all segments; without y only their states (and `sums`)."""

        def run(block: TileSize) -> None:
            strides = (*u.stride(), *self.strides()[3:])
            flags = self.flags(block)
            loaded = flags["BN"] * max(1, block.channels // (32 * block.warps))  # registers a step's B or C takes
            forward_kernel[self.grid(block)](
                u, self.dt, self.z, self.B, self.C, self.A2, self.D, self.bias, self.codes, entry, y, states, leave,
                sums, *strides, *self.sizes(), self.blocks(block), self.segments, self.tiles, self.per_segment,
                **flags, HAS_ENTRY=entry is not None, SAVE=states is not None, STATE_ONLY=y is None,
                ADJOINT=adjoint, UNROLL=max(1, min(4, 64 // loaded)),
            )  # fmt: skip

        key = self.kind("forward", y is None, adjoint, states is None, self.reverse, self.codes is None)
        run(best_block(key, run, on_gpu=u.is_cuda))

    def carry(self, sums: Tensor, entry: Tensor | None, shares: Tensor, *, backward: bool) -> Tensor:
        """Turn `shares` (B, segments, N, D) into the states before the segments; returns the last state (B, N, D)."""
        batch, segments, states, width = shares.shape
        last = shares.new_empty(batch, states, width)
        carry_kernel[(-(-width // 128), states, batch)](
            self.A2, sums, entry, shares, last, width, states, segments, BACKWARD=backward,
            HAS_ENTRY=entry is not None, COMPUTE=arithmetic(self.compute)["COMPUTE"], BD=128,
        )  # fmt: skip
        return last

    def entries(self, u: Tensor, entry: Tensor | None, *, adjoint: bool) -> tuple[Tensor | None, Tensor | None]:
        """State before each segment (B, segments, N, D), and the state after the last one if it is known."""
        if self.segments == 1:
            return (None if entry is None else entry[:, None]), None
        shares = self.state(self.segments)
        sums = shares.new_empty(shares.shape[0], self.segments, shares.shape[3])
        self.walk(u, None, shares, sums=sums, adjoint=adjoint)
        return shares, self.carry(sums, entry, shares, backward=adjoint)


def saved_shape(batch: int, length: int, channels: int, groups: int, states: int) -> tuple[int, ...]:
    """Shape of `forward`'s checkpoints, the states before each tile of steps: one axis, as the CPU's."""
    return (batch * -(-length // TILE) * states * channels,)


def forward(given: ScanInputs, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y (B, L, D) in u.dtype, the last state (B, D, N), and what `backward` needs (empty unless `save`).

    Shapes as `selective_scan`'s; any strides and floating dtypes.
    """
    u = given.u
    with current_device(u):
        call = TritonScanCall(given)
        y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
        states = call.state(call.tiles) if save else None
        entry, last = call.entries(u, turned(given.initial_state, call.compute), adjoint=False)
        leave = call.state(call.segments)
        call.walk(u, entry, leave, y=y, states=states)
        last = leave[:, 0] if last is None else last
        return y, last.transpose(1, 2).contiguous(), leave.new_empty(0) if states is None else states.flatten()


def backward(dy: Tensor, dstate: Tensor | None, saved: Tensor, given: ScanInputs) -> tuple[Tensor | None, ...]:
    """Gradients of u, dt, A, B, C, D, z, dt_bias, initial_state, None for absent ones; dtypes as the inputs'."""
    u, dt, A, B, C, D, z, dt_bias, initial_state, *_ = given
    shapes, B, C = (B.shape, C.shape), grouped(B), grouped(C)
    with current_device(u):
        call = TritonScanCall(given)
        entry, _ = call.entries(dy, turned(dstate, call.compute), adjoint=True)
        q = call.state(call.segments)
        sums = q.shape[0], call.segments, q.shape[3]
        du, ddt = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (u, dt))
        dz = None if z is None else torch.empty(z.shape, dtype=z.dtype, device=z.device)
        dA = torch.empty_like(q)
        dD, dbias = (None if x is None else q.new_empty(sums) for x in (D, dt_bias))

        def run(block: TileSize) -> tuple[Tensor, Tensor]:
            dB, dC = (q.new_empty(call.blocks(block), *B.shape) for _ in range(2))
            backward_kernel[call.grid(block)](
                dy, u, dt, z, B, C, call.A2, call.D, call.bias, call.codes, saved, entry, du, ddt, dz, dB, dC, dA, dD,
                dbias, q, *dy.stride(), *call.strides(), *call.sizes(), B.shape[2], call.blocks(block), call.segments,
                call.tiles, call.per_segment, **call.flags(block), HAS_ENTRY=entry is not None, LN2=LN2,
            )  # fmt: skip
            return dB, dC

        block = best_block(call.kind("backward", given.reverse, call.codes is None), run, on_gpu=u.is_cuda)
        dB, dC = (x.sum(0).view(shape) for x, shape in zip(run(block), shapes, strict=True))
        return (
            du, ddt, dA.sum((0, 1)).T.to(A.dtype).contiguous(), dB.to(B.dtype), dC.to(C.dtype), total(dD, D), dz,
            total(dbias, dt_bias),
            None if initial_state is None else q[:, 0].transpose(1, 2).to(initial_state.dtype).contiguous(),
        )  # fmt: skip


def step(state: Tensor, u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
         dt_bias: Tensor | None, dt_softplus: bool) -> Tensor:  # fmt: skip
    """y (B, D) in u.dtype; `state` (B, D, N) is updated in place. B and C (B, G, N) or (B, N)."""
    B, C = (x[:, None] if x.dim() == 2 else x for x in (B, C))
    batch, width = u.shape
    compute = torch.float64 if torch.float64 in (u.dtype, state.dtype) else torch.float32
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    size = 32 if u.is_cuda else 8
    with current_device(u):
        step_kernel[(-(-width // size), batch)](
            state, u, dt, z, B, C, A, contiguous(D, compute), contiguous(dt_bias, compute), y,
            *state.stride(), *u.stride(), *dt.stride(), *((0, 0) if z is None else z.stride()), *B.stride(),
            *C.stride(), *A.stride(), width, A.shape[1], width // B.shape[1], HAS_Z=z is not None,
            HAS_D=D is not None, HAS_BIAS=dt_bias is not None, SOFTPLUS=dt_softplus, **arithmetic(compute),
            BN=triton.next_power_of_2(A.shape[1]), BD=size, num_warps=1,
        )  # fmt: skip
    return y


def arithmetic(compute: torch.dtype) -> dict[str, Any]:
    """The type that kernels compute in, and the terms of log1p's series that it needs."""
    return {"COMPUTE": tl.float64, "TERMS": 18} if compute == torch.float64 else {"COMPUTE": tl.float32, "TERMS": 8}


def turned(state: Tensor | None, compute: torch.dtype) -> Tensor | None:
    """(B, D, N) -> (B, N, D), contiguous."""
    return None if state is None else state.detach().to(compute).transpose(1, 2).contiguous()


def total(partial: Tensor | None, like: Tensor | None) -> Tensor | None:
    """(B, segments, D) -> (D,)"""
    return None if partial is None or like is None else partial.sum((0, 1)).to(like.dtype)
