"""Decoding with a model of mamba-130m's shape: ms a token, beside transformers and the time to read the weights once.

python benchmarks/mamba_decode.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness import arguments, median_ms, refuse_unless_close, report
from mamba_forward import both

import salience


def reader(model: Any) -> Callable[[], object]:
    """Reads every weight once, as a matrix-vector product does: the floor of decoding one sequence."""
    weights = [p.detach() for p in model.parameters() if p.dim() == 2]
    vectors = {p.shape[1]: torch.randn(p.shape[1]) for p in weights}
    return lambda: [torch.mv(p, vectors[p.shape[1]]) for p in weights]


def main() -> None:
    told = arguments(__doc__ or "", layers=24, tokens=16, rounds=7)
    theirs, ours = both(told.layers)
    prompt = torch.randint(0, 50277, (1, 8), generator=torch.Generator().manual_seed(1))

    def decode(model: Any) -> torch.Tensor:
        found: torch.Tensor = model.generate(
            prompt, max_new_tokens=told.tokens, min_new_tokens=told.tokens, do_sample=False
        )
        return found

    with torch.inference_mode():
        refuse_unless_close("the tokens", decode(ours), decode(theirs), within=0)
        cases: dict[str, Callable[[], object]] = {
            "transformers": lambda: decode(theirs),
            "salience": lambda: decode(ours),
        }
        ms = {name: value / told.tokens for name, value in median_ms(cases, rounds=told.rounds, warmup=1).items()}
        ms |= median_ms({"read": reader(ours)}, rounds=4 * told.rounds)
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
            ("transformers after salience.fuse", f"{ms['fused']:.1f} ms, {ms['transformers'] / ms['fused']:.1f}x"),
        ],
    )


if __name__ == "__main__":
    main()
