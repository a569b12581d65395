"""Training forward of the language model: a stock Llama, visual tokens first, many questions behind one prefix.

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


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, prefix: int, last: bool) -> Tensor:
    """(B, heads, T, size): the prefix is causal by itself, the questions (rows from `prefix` on) see what `mask` says.

    q and k in float32, scaled; v in the weights' dtype. Padding stands behind the prefix's tokens, so causality alone
    keeps it out there. In the last layer the prefix's own rows are left out: nothing reads them.
    """
    logits = q[:, :, prefix:].to(v.dtype) @ k.to(v.dtype).transpose(-1, -2)
    asked = (logits.float() + mask).softmax(-1).to(v.dtype) @ v
    if last:
        return asked
    whole = (x[:, :, :prefix] for x in (q, k, v.float()))
    return torch.cat([F.scaled_dot_product_attention(*whole, is_causal=True, scale=1.0).to(v.dtype), asked], 2)


def _layer(
    layer: torch.nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, prefix: int, last: bool
) -> Tensor:
    """One Llama layer on (B, T, width); the last one returns only the questions' rows."""
    own, rows, size = layer.self_attn, hidden.shape[0], WIDTH // HEADS
    seen = _norm(hidden, layer.input_layernorm.weight)
    weight = torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight])
    q, k, v = F.linear(seen, weight).view(rows, -1, 3, HEADS, size).permute(2, 0, 3, 1, 4).unbind(0)
    q, k = _rotate(q.float(), cos, sin) * size**-0.5, _rotate(k.float(), cos, sin)
    mixed = _attend(q, k, v, mask, prefix, last).transpose(1, 2).reshape(rows, -1, WIDTH)
    hidden = (hidden[:, prefix:] if last else hidden) + own.o_proj(mixed).float()
    inner = _norm(hidden, layer.post_attention_layernorm.weight)
    gate, up = F.linear(inner, torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])).chunk(2, -1)
    return hidden + layer.mlp.down_proj(F.silu(gate) * up).float()


def _mask(batch: Batch) -> Tensor:
    """(B, 1, q, T) additive, for the questions' rows: causal, no padding, and each question apart from the others."""
    rows = len(batch.cells)
    prefix = torch.cat([torch.ones(rows, len(PREFIX), dtype=torch.bool), batch.cells >= 0], 1)
    asked = batch.block.shape[1]
    own = (batch.block[:, None] == batch.block[:, :, None]) & torch.ones(asked, asked, dtype=torch.bool).tril()
    seen = torch.cat([prefix[:, None].expand(-1, asked, -1), own], 2)
    return torch.where(seen, 0.0, float("-inf"))[:, None]


def answer_logits(model: LlamaForCausalLM, visual: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (m, vocabulary) at the answers' places, the targets (m,), and their weights (m,).

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
    cos, sin, mask = angles.cos(), angles.sin(), _mask(batch)
    prefix = len(PREFIX) + visual.shape[1]
    for n, layer in enumerate(core.layers):
        hidden = _layer(layer, hidden, cos, sin, mask, prefix, last=n == len(core.layers) - 1)
    want = batch.answers
    asked = want != -100
    final = _norm(hidden[asked], core.norm.weight)
    return F.linear(final, model.lm_head.weight).float(), want[asked], batch.weights[batch.answers != -100]


def answer_loss(logits: Tensor, want: Tensor, weight: Tensor) -> Tensor:
    return (F.cross_entropy(logits, want, reduction="none") * weight).sum() / weight.sum()
