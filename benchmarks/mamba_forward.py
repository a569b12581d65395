"""A whole model of mamba-130m's shape, forward at L 512: beside transformers', and how much of it is matrix products.

    python benchmarks/mamba_forward.py

The weights are random, the shape is the published model's; both run the same ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from harness import arguments, median_ms, refuse_unless_close, report
from torch import Tensor

import salience
from salience.ops.linear_rows import linear_rows


def both(layers: int) -> tuple[Any, Any]:
    """transformers' model of mamba-130m's shape, and ours with the same weights."""
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=50280, hidden_size=768, num_hidden_layers=layers, state_size=16)
    theirs = MambaForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, salience.MambaLM.from_pretrained(folder).eval()


def products(model: Any, length: int) -> list[tuple[Tensor, Tensor]]:
    """The matrix products of one forward: (inputs, weights) of every linear layer, the head included."""
    found = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            found.append((torch.randn(length, module.in_features), module.weight.detach()))
    return found


def main() -> None:
    told = arguments(__doc__ or "", length=512, layers=24, rounds=7)
    theirs, ours = both(told.layers)
    ids = torch.randint(0, 50277, (1, told.length), generator=torch.Generator().manual_seed(1))
    linear = products(theirs, told.length)

    def multiply(product: Callable[..., Tensor]) -> None:
        for x, weight in linear:
            product(x, weight)

    with torch.inference_mode():
        # 24 layers of float32 sums in another order: each of the two is up to 7e-4 from the same model in float64
        refuse_unless_close("MambaLM", ours(ids).logits, theirs(ids, use_cache=False).logits, within=1.5e-3)
        ms = median_ms(
            {
                "salience": lambda: ours(ids),
                "transformers": lambda: theirs(ids, use_cache=False),
                "matrix products": lambda: multiply(linear_rows),
                "matrix products, torch": lambda: multiply(torch.nn.functional.linear),
            },
            rounds=told.rounds,
            warmup=1,
        )
        with salience.fuse(theirs):
            ms |= median_ms({"fused": lambda: theirs(ids, use_cache=False)}, rounds=told.rounds, warmup=1)
    share = ms["matrix products"] / ms["salience"]
    report(
        f"mamba-130m's shape, forward at L {told.length}",
        {**ms, "length": told.length},
        [
            ("MambaLM", f"{ms['salience']:.0f} ms, {100 * share:.0f} % of it matrix products"),
            ("the same products by torch", f"{ms['matrix products, torch']:.0f} ms"),
            ("transformers", f"{ms['transformers']:.0f} ms"),
            ("faster than transformers", f"{ms['transformers'] / ms['salience']:.1f}x"),
            ("transformers after salience.fuse", f"{ms['fused']:.0f} ms, {ms['transformers'] / ms['fused']:.1f}x"),
        ],
    )


if __name__ == "__main__":
    main()
