"""The language model as it is trained: a stock Llama's weights, visual tokens first, many questions behind one prefix.

The residual stream stays in float32, products run in the weights' dtype. A question sees the prefix and itself; visual
tokens keep the positions of their cells, so what is left out leaves a gap, as pruning does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from describe import FIRST, PREFIX, Batch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from vocabulary import BOS, EOS, PAD, VOCABULARY

WIDTH, HEADS, LAYERS, INNER = 256, 8, 6, 512


def language_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=2048, tie_word_embeddings=False,
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip


@torch.no_grad()
def initialise(model: LlamaForCausalLM, seed: int) -> None:
    """Small embeddings: with large ones the residual stream drowns attention and nothing is learnt for long."""
    torch.manual_seed(seed)
    model.model.embed_tokens.weight.normal_(0, 0.05)
    model.lm_head.weight.normal_(0, 0.02)
    for name, weight in model.model.layers.named_parameters():
        if weight.dim() == 2:
            late = name.endswith(("o_proj.weight", "down_proj.weight"))
            weight.normal_(0, (0.4 if late else 1.0) * weight.shape[1] ** -0.5)


def _norm(hidden: Tensor, weight: Tensor) -> Tensor:
    scaled = hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + 1e-6)
    return (scaled * weight.float()).to(weight.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def _layer(layer: torch.nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cut: int) -> Tensor:
    """One Llama layer on (B, T, width); gives back the states from column `cut` on."""
    own, rows, size = layer.self_attn, hidden.shape[0], WIDTH // HEADS
    seen = _norm(hidden, layer.input_layernorm.weight)
    dtype = seen.dtype
    weight = torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight])
    q, k, v = F.linear(seen, weight).view(rows, -1, 3, HEADS, size).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = _rotate(q.float(), cos, sin) * size**-0.5, _rotate(k.float(), cos, sin)
    logits = q[:, :, cut:].to(dtype) @ k.to(dtype).transpose(-1, -2)
    share = (logits.float() + mask[:, :, cut:]).softmax(-1).to(dtype)
    mixed = (share @ v).transpose(1, 2).reshape(rows, -1, WIDTH)
    hidden = hidden[:, cut:] + own.o_proj(mixed).float()
    inner = _norm(hidden, layer.post_attention_layernorm.weight)
    gate, up = F.linear(inner, torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])).chunk(2, -1)
    return hidden + layer.mlp.down_proj(F.silu(gate) * up).float()


def _mask(batch: Batch, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, T) additive: causal, no padding, and each question apart from the others."""
    rows, visual = batch.cells.shape
    prefix = len(PREFIX) + visual
    block = torch.cat([torch.full((rows, prefix), -2), batch.block], 1)
    real = torch.cat([torch.ones(rows, len(PREFIX), dtype=torch.bool), batch.cells >= 0, batch.block >= 0], 1)
    length = block.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = causal & real[:, None] & ((block[:, None] == -2) | (block[:, None] == block[:, :, None]))
    seen |= torch.eye(length, dtype=torch.bool)  # a padded row sees itself, so that its softmax is finite
    return torch.where(seen, 0.0, float("-inf")).to(dtype)[:, None]


def answer_logits(model: LlamaForCausalLM, visual: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (m, vocabulary) where there is something to predict, what (m,), and its weight (m,).

    visual: (B, n, width) embeddings of the cells named by batch.cells.
    """
    core, rows = model.model, len(visual)
    table = core.embed_tokens.weight
    start = F.embedding(torch.tensor(PREFIX), table).expand(rows, -1, -1)
    hidden = torch.cat([start.float(), visual.float(), F.embedding(batch.ids, table).float()], 1)
    at = torch.arange(len(PREFIX)).expand(rows, -1)
    positions = torch.cat([at, batch.cells.clamp(min=0) + FIRST, batch.positions], 1)
    size = WIDTH // HEADS
    rates = 10000.0 ** (-torch.arange(0, size, 2) / size)
    angles = (positions[..., None] * rates).repeat(1, 1, 2)[:, None]
    cos, sin, mask = angles.cos(), angles.sin(), _mask(batch, torch.float32)
    # Nothing reads the visual tokens' own states after the last layer's keys and values.
    cut = len(PREFIX) + visual.shape[1]
    want = batch.answers
    for layer in core.layers[:-1]:
        hidden = _layer(layer, hidden, cos, sin, mask, 0)
    hidden = _layer(core.layers[-1], hidden, cos, sin, mask, cut)
    asked = want != -100
    final = _norm(hidden[asked], core.norm.weight)
    return F.linear(final, model.lm_head.weight).float(), want[asked], batch.weights[batch.answers != -100]


def answer_loss(logits: Tensor, want: Tensor, weight: Tensor) -> Tensor:
    return (F.cross_entropy(logits, want, reduction="none") * weight).sum() / weight.sum()
