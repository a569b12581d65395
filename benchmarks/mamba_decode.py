"""Decoding with a model of mamba-130m's shape: ms a token, beside transformers and the time to read the weights once.

    python benchmarks/mamba_decode.py

Both run transformers' own `generate`, greedy, from a prompt of 8 tokens, and a token's time is all of it divided by the
tokens: prompt and bookkeeping included. The floor is a loop that reads as many bytes as the weights have and does
nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from floor import reader
from harness import arguments, median_ms, refuse_unless_close, report
from mamba_forward import both

import salience


def main() -> None:
    told = arguments(__doc__ or "", layers=24, tokens=16, rounds=7)
    theirs, ours = both(told.layers)
    half = copy.deepcopy(ours).to(torch.bfloat16)
    prompt = torch.randint(0, 50277, (1, 8), generator=torch.Generator().manual_seed(1))
    size = sum(p.nbytes for p in ours.parameters())

    def decode(model: Any) -> torch.Tensor:
        found: torch.Tensor = model.generate(
            prompt, max_new_tokens=told.tokens, min_new_tokens=told.tokens, do_sample=False
        )
        return found

    with torch.inference_mode():
        refuse_unless_close("the tokens", decode(ours), decode(theirs), within=0)
        # 24 random layers magnify the rounding to 8 bits: ours may be no further than transformers' from the model that
        # computes in float32 with the same rounded weights
        wanted = copy.deepcopy(half).float()(prompt).logits
        other = copy.deepcopy(theirs).to(torch.bfloat16)(prompt, use_cache=False).logits
        allowed = float((other - wanted).abs().max() / wanted.abs().max())
        refuse_unless_close("MambaLM in bfloat16", half(prompt).logits, wanted, within=allowed)
        state = ours.init_state(1)
        cases: dict[str, Callable[[], object]] = {
            "transformers": lambda: decode(theirs),
            "salience": lambda: decode(ours),
            "bfloat16": lambda: decode(half),
        }
        ms = {name: value / told.tokens for name, value in median_ms(cases, rounds=told.rounds, warmup=1).items()}
        inner: dict[str, Callable[[], object]] = {"read": reader(size), "step": lambda: ours.step(prompt[:, 0], state)}
        ms |= median_ms(inner, rounds=4 * told.rounds)
        with salience.fuse(theirs):
            fused = median_ms({"fused": lambda: decode(theirs)}, rounds=told.rounds, warmup=1)
    ms["fused"] = fused["fused"] / told.tokens
    report(
        "mamba-130m's shape, decoding one sequence",
        {f"{name}_ms_per_token": value for name, value in ms.items()},
        [
            ("MambaLM.generate", f"{ms['salience']:.1f} ms a token"),
            ("transformers", f"{ms['transformers']:.1f} ms a token"),
            ("faster than transformers", f"{ms['transformers'] / ms['salience']:.1f}x"),
            ("over reading the weights once", f"{ms['salience'] / ms['read']:.2f}x of {ms['read']:.1f} ms"),
            (
                "a step alone, without prompt and bookkeeping",
                f"{ms['step']:.1f} ms, {ms['step'] / ms['read']:.2f}x of the reading, which bounds it",
            ),
            (
                "MambaLM in bfloat16",
                f"{ms['bfloat16']:.1f} ms a token, {ms['salience'] / ms['bfloat16']:.1f}x as fast as in float32",
            ),
            ("transformers after salience.fuse", f"{ms['fused']:.1f} ms, {ms['transformers'] / ms['fused']:.1f}x"),
        ],
    )


if __name__ == "__main__":
    main()
