"""What choosing the tokens costs, beside the prefill it shortens, at 576 visual tokens.

    python benchmarks/selection_overhead.py

Operations are counted on the shapes of LLaVA-1.5-7B, 64 text tokens. Times are of the bundled model, and of 7B widths:
two layers of the tower, the projector and a layer of the language model, whose prefill counts 32 times. A method's time
is all that it adds: what it reads of the tower and the projector, its scores, its ranking. Prefill is unpruned.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from harness import arguments, median_ms, refuse_unless_close, report
from torch import Tensor

import salience
from salience.lab.profile.operator_counts import count_flops
from salience.lab.profile.shapes_only import shapes_only
from salience.ops.farthest_first import farthest_first
from salience.vlm.families import Adapter, EncodedViews, adapter_for
from salience.vlm.methods.base import Method
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.cls_attention import ClsAttention
from salience.vlm.methods.divprune import DivPrune, unlike
from salience.vlm.methods.saliency import Saliency

N, TEXT, KEEP = 576, 64, 0.25


def llava_7b(*, layers: int, tower_layers: int = 24, words: int = 32064, width: int = 4096) -> Any:
    """LLaVA-1.5-7B's configuration, or with fewer layers and words, or narrower."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=tower_layers, num_attention_heads=16,
        image_size=336, patch_size=14, projection_dim=768,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=width, intermediate_size=width * 11008 // 4096, num_hidden_layers=layers,
        num_attention_heads=width // 128, vocab_size=words, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=3)


def build(config: Any) -> Any:
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration._from_config(config, dtype=torch.float32).eval()


def methods(d_features: int) -> dict[str, Method]:
    """The methods whose cost is told; a scorer of the default shape."""
    scorer = Saliency(scorer=salience.Scorer(d_features).eval())
    return {"saliency": scorer, "cls-attention": ClsAttention(), "divprune": DivPrune()}


def flops_at_7b(layers: int) -> dict[str, int]:
    """Operations of unpruned prefill, and of each method; DivPrune's steps multiply nothing."""
    found = {}
    with shapes_only():
        model = build(llava_7b(layers=layers))
        adapter = adapter_for(model)
        encoded = adapter.encode(torch.empty(1, 3, 336, 336))
        found["prefill"] = count_flops(prefill_of(adapter, N + TEXT))
        scorer = salience.Scorer(adapter.d_features)
        found["saliency"] = count_flops(scorer, encoded.views[0])
        found["cls-attention"] = count_flops(encoded.cls_attention)
        kept = count_flops(adapter.project, encoded.views[0][: int(KEEP * N)])
        projected = torch.empty(1, N, 4096)
        found["divprune"] = count_flops(encoded.projected) - kept + count_flops(unlike, projected)
    return found


def prefill_of(adapter: Adapter, length: int) -> Callable[[], Tensor]:
    """The language model on `length` tokens and the head on the last."""
    width = int(adapter.model.config.get_text_config().hidden_size)
    embedded = torch.randn(1, length, width)

    def run() -> Tensor:
        mask = torch.ones(1, length, dtype=torch.int64)
        out = adapter.language_model(inputs_embeds=embedded, attention_mask=mask, use_cache=True)
        return adapter.lm_head(out.last_hidden_state[:, -1])  # type: ignore[no-any-return]

    return run


def selecting(encoded: EncodedViews, method: Method) -> Callable[[], Tensor]:
    """A method's own work on a picture that has been encoded; nothing it computed before is there."""

    def run() -> Tensor:
        fresh = replace(encoded)
        return method.select(fresh.context(0, method.needs), Budget(keep=KEEP)).kept

    return run


def check(encoded: EncodedViews, adapter: Adapter, chosen: dict[str, Tensor], of: dict[str, Method]) -> None:
    """Each method's tokens against what its definition gives on the same tensors, written out."""
    k = int(KEEP * N)
    attention = adapter.tower.encoder.layers[-2].self_attn  # whose output the features are
    states = adapter.tower(pictures()[0], output_hidden_states=True).hidden_states
    normed = adapter.tower.encoder.layers[-2].layer_norm1(states[-3])
    heads = (*normed.shape[:2], attention.num_heads, attention.head_dim)
    query, key = (part(normed).view(heads).transpose(1, 2) for part in (attention.q_proj, attention.k_proj))
    eager = (query @ key.transpose(2, 3) * attention.scale).softmax(-1)[:, :, 0, 1:].mean(1)
    # float32 sums of 1024 products in another order
    refuse_unless_close("[CLS] attention", replace(encoded).cls_attention(), eager, within=1e-4)
    far = unlike(encoded.projected()[0][None])
    wanted = {
        "saliency": of["saliency"].score(encoded.context(0)).topk(k).indices,
        "divprune": farthest_first(far, k, backend="reference")[0],
    }
    for name, tokens in wanted.items():
        refuse_unless_close(f"{name}'s choice", chosen[name], tokens.sort().values, within=0)


def pictures() -> tuple[Tensor, Tensor]:
    """A picture (1, 3, 336, 336) and one of numbers elsewhere, both standard normal."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, 336, 336, generator=draw), torch.randn(1, 3, 336, 336, generator=draw)


def timed(model: Any, rounds: int, layers: int) -> dict[str, float]:
    """Milliseconds of unpruned prefill, `layers` times that of the model at hand, and of each method."""
    adapter = adapter_for(model)
    encoded, of = adapter.encode(pictures()[0]), methods(adapter.d_features)
    selects = {name: selecting(encoded, method) for name, method in of.items()}
    check(encoded, adapter, {name: select() for name, select in selects.items()}, of)
    found = median_ms({"prefill": prefill_of(adapter, N + TEXT), **selects}, rounds=rounds, warmup=1)
    projecting = median_ms(
        {"all": lambda: adapter.project(encoded.views[0]), "kept": lambda: adapter.project(encoded.views[0][::4])},
        rounds=rounds,
    )
    found["divprune"] -= projecting["kept"]  # which any method pays
    return {**found, "prefill": found["prefill"] * layers, "projecting": projecting["all"] - projecting["kept"]}


def share(found: Mapping[str, float], name: str) -> str:
    """Of unpruned prefill, in two digits."""
    return f"{100 * found[name] / found['prefill']:.2g} %"


def main() -> None:
    told = arguments(__doc__ or "", rounds=7, rounds_wide=3, layers=32, width=4096)
    from transformers import LlavaForConditionalGeneration

    flops = flops_at_7b(told.layers)
    with torch.inference_mode():
        small = timed(LlavaForConditionalGeneration.from_pretrained(salience.bundled_model()).eval(), told.rounds, 1)
        gc.collect()
        large = timed(
            build(llava_7b(layers=1, tower_layers=2, words=64, width=told.width)), told.rounds_wide, told.layers
        )
    lines = []
    for name in ("saliency", "cls-attention", "divprune"):
        counted = f"{share(flops, name)} of the operations at 7B"
        timed_wide = f"{large[name]:.1f} ms, {share(large, name)} of the time at 7B widths"
        bundled = f"{small[name]:.1f} ms, {share(small, name)} on the bundled model"
        lines.append((f"{name}, of unpruned prefill", f"{counted}; {timed_wide}; {bundled}"))
    steps = large["divprune"] - large["projecting"]
    lines.append(("of DivPrune's time at 7B widths", f"{steps:.1f} ms distances and {int(KEEP * N)} steps, the rest "
                  f"projecting all {N} tokens, and not only those kept"))  # fmt: skip
    report(
        f"choosing {int(KEEP * N)} of {N} visual tokens, beside unpruned prefill",
        {"flops_7b": flops, "ms_7b_widths": large, "ms_bundled": small},
        lines,
    )


if __name__ == "__main__":
    main()
