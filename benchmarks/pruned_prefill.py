"""Prefill at a quarter of 576 visual tokens: how much faster than all of them, beside what the operations predict.

    python benchmarks/pruned_prefill.py

The language model alone, 64 text tokens, on the bundled model and on layers of a 1B model (2048 wide, random weights).
Operations count attention as the full square. Causal kernels skip half of it, which unpruned prompts gain more by; so
that ratio is told as well. One picture and four at once: 208 rows are few for what a call costs whatever its size, and
for the weights, which are read once by either prompt (400 MB in two layers of a 1B model). Then the most bytes alive in
a whole call of one, vision tower included, pruned over unpruned.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from harness import arguments, median_ms, refuse_unless_close, report
from torch import Tensor

import salience
from salience.lab.profile.operator_counts import count_flops
from salience.lab.profile.peak_memory import peak_bytes
from salience.vlm.families import adapter_for

N, TEXT, KEEP = 576, 64, 0.25
METHODS = ("uniform", "cls-attention", "divprune", "visionzip")  # one of each kind: order, scores, steps, merging


def wide(model: Any, layers: int, width: int) -> Any:
    """Layers of a 1B language model behind the same small tower."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=width // 64,
        num_key_value_heads=width // 256, vocab_size=4096, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(vision_config=model.config.vision_config, text_config=text, image_token_index=4)
    torch.manual_seed(0)
    return LlavaForConditionalGeneration._from_config(config, dtype=torch.float32).eval()


class Prompt:
    """Prompts of a picture each, whole and pruned, as the language model gets them."""

    def __init__(self, model: Any, pictures: int = 1) -> None:
        self.model, self.adapter, self.pictures = model, adapter_for(model), pictures
        draw = torch.Generator().manual_seed(0)
        image = self.adapter.image_token_id
        ids = torch.tensor([[9] * 4 + [image] * N + [9] * (TEXT - 4)] * pictures)
        self.batch = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.randn(pictures, 3, 336, 336, generator=draw),
        }

    def prefill(self, keep: float) -> Callable[[], Tensor]:
        """The language model on what is left of the prompt, as `prune` hands it over, and the head on the last."""
        with salience.prune(self.model, "uniform", keep=keep) as pruned:
            self.model(**self.batch, logits_to_keep=1)
        columns = pruned.trace.columns[0]
        encoded = self.adapter.encode(self.batch["pixel_values"])
        kept = [view[image.kept] for view, image in zip(encoded.views, pruned.trace.images, strict=True)]
        visual = [self.adapter.project(rows) for rows in kept]
        embedded = self.adapter.embed(self.batch["input_ids"][:, columns], visual)
        mask = torch.ones(embedded.shape[:2], dtype=torch.int64)

        def run() -> Tensor:
            out = self.adapter.language_model(
                inputs_embeds=embedded,
                attention_mask=mask,
                position_ids=columns.expand(self.pictures, -1),
                use_cache=True,
            )
            return self.adapter.lm_head(out.last_hidden_state[:, -1])  # type: ignore[no-any-return]

        return run

    def check(self, prefill: Callable[[], Tensor]) -> None:
        """What is timed says what the pruned model says, and that is what the masked whole prompt says."""
        with salience.prune(self.model, "uniform", keep=KEEP) as pruned:
            said = self.model(**self.batch, logits_to_keep=1).logits[:, -1]
        mask = torch.zeros_like(self.batch["attention_mask"])
        mask[:, pruned.trace.columns[0]] = 1
        positions = torch.arange(N + TEXT).expand(self.pictures, -1)
        whole = self.model(**{**self.batch, "attention_mask": mask}, position_ids=positions, logits_to_keep=1)
        # float32 sums in another order, layer after layer
        refuse_unless_close("the pruned prompt", said, whole.logits[:, -1], within=1e-4)
        refuse_unless_close("what is timed", prefill(), said, within=1e-4)

    def peaks(self) -> dict[str, float]:
        """The most bytes alive in a whole call, of each method over those unpruned; weights are in neither."""

        def call() -> None:
            self.model(**self.batch, logits_to_keep=1)

        unpruned = peak_bytes(call)
        found = {}
        for method in METHODS:
            with salience.prune(self.model, method, keep=KEEP):
                found[method] = peak_bytes(call) / unpruned
        return found


def measured(model: Any, rounds: int, pictures: int) -> dict[str, Any]:
    prompt = Prompt(model, pictures)
    cases = {"all": prompt.prefill(1), "quarter": prompt.prefill(KEEP)}
    prompt.check(cases["quarter"])
    ms = median_ms(cases, rounds=rounds, warmup=1)
    flops = {name: count_flops(case) for name, case in cases.items()}
    text = model.config.get_text_config()
    lengths = {"all": N + TEXT, "quarter": int(KEEP * N) + TEXT}
    square = {name: pictures * 4 * text.num_hidden_layers * length**2 * text.num_attention_heads * text.head_dim
              for name, length in lengths.items()}  # fmt: skip
    causal = {name: flops[name] - square[name] / 2 for name in flops}
    return {
        "ms": ms, "flops": flops, "faster": ms["all"] / ms["quarter"], "by_flops": flops["all"] / flops["quarter"],
        "by_causal_flops": causal["all"] / causal["quarter"],
    }  # fmt: skip


def main() -> None:
    told = arguments(__doc__ or "", rounds=7, rounds_of_four=3, layers=2, width=2048)
    from transformers import LlavaForConditionalGeneration

    found: dict[str, Any] = {}
    lines = []
    with torch.inference_mode():
        model = LlavaForConditionalGeneration.from_pretrained(salience.bundled_model()).eval()
        for name in ("the bundled model", f"{told.layers} layers of a 1B model"):
            model = model if not found else wide(model, told.layers, told.width)
            found[name] = one = {}
            for pictures, which, rounds in ((1, "", told.rounds), (4, " of four pictures", told.rounds_of_four)):
                one[str(pictures)] = own = measured(model, rounds, pictures)
                gc.collect()
                lines.append((f"prefill{which}, {name}", f"{own['ms']['all']:.1f} ms to {own['ms']['quarter']:.1f}, "
                              f"{own['faster']:.2f}x; operations predict {own['by_flops']:.2f}x, "
                              f"{own['by_causal_flops']:.2f}x with half the square"))  # fmt: skip
            one["peak"] = peak = Prompt(model).peaks()
            worst = max(peak, key=lambda method: peak[method])
            lines.append((f"peak bytes, {name}", f"{peak[worst]:.2f} of unpruned (the most, {worst})"))
    report(f"prefill with {int(KEEP * N)} of {N} visual tokens and {TEXT} of text, beside all", found, lines)


if __name__ == "__main__":
    main()
