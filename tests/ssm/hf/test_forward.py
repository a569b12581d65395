"""One call of a fused model against transformers, and against the rows alone where transformers is wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import salience


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 63, 64, 65, 130])
def test_without_a_mask(model: Any, fused: Any, ids: Any, logits: Any, near: Any, length: int) -> None:
    tokens = ids(2, length)
    near(logits(fused, tokens), logits(model, tokens))


@torch.no_grad()
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_a_named_backend(model: Any, ids: Any, logits: Any, near: Any, backend: str) -> None:
    tokens = ids(2, 9)
    wanted = logits(model, tokens)
    with salience.fuse(model, backend=backend):
        near(logits(model, tokens), wanted)


@torch.no_grad()
def test_left_padding(model: Any, fused: Any, ids: Any, logits: Any, near: Any) -> None:
    tokens, mask = ids(3, 11), torch.ones(3, 11, dtype=torch.long)
    mask[0, :4], mask[1, :9] = 0, 0
    near(logits(fused, tokens, attention_mask=mask), logits(model, tokens, attention_mask=mask))


@torch.no_grad()
def test_right_padding(model: Any, fused: Any, ids: Any, logits: Any, near: Any) -> None:
    tokens, mask = ids(3, 11), torch.ones(3, 11, dtype=torch.long)
    mask[0, 4:], mask[1, 9:] = 0, 0
    got, wanted = logits(fused, tokens, attention_mask=mask), logits(model, tokens, attention_mask=mask)
    near(got[mask.bool()], wanted[mask.bool()])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba"], indirect=True)  # attention has no way to leave a gap out
def test_inner_padding_is_as_if_it_were_not_there(model: Any, fused: Any, ids: Any, logits: Any, near: Any) -> None:
    tokens, mask = ids(1, 12), torch.ones(1, 12, dtype=torch.long)
    mask[0, [0, 3, 4, 5, 6, 7, 10]] = 0
    alone = logits(model, tokens[mask.bool()][None])
    near(logits(fused, tokens, attention_mask=mask)[mask.bool()][None], alone)
    theirs = logits(model, tokens, attention_mask=mask)[mask.bool()][None]
    assert float((theirs - alone).abs().max()) > 1e-3  # why the fused one differs from transformers here


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int32])
def test_any_kind_of_mask(model: Any, fused: Any, ids: Any, logits: Any, dtype: torch.dtype) -> None:
    tokens, mask = ids(2, 6), torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    wanted = logits(fused, tokens, attention_mask=mask)
    if model.config.model_type in ("mamba", "falcon_mamba"):  # the hybrids' attention takes fewer kinds
        assert torch.equal(logits(fused, tokens, attention_mask=mask.to(dtype)), wanted)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba"], indirect=True)
@pytest.mark.parametrize(
    "options", [{"use_bias": True}, {"hidden_act": "gelu"}, {"use_conv_bias": False, "conv_kernel": 2}]
)
def test_other_configurations(kind: str, build: Any, ids: Any, logits: Any, near: Any, options: dict[str, Any]) -> None:
    model = build(kind, **options)
    tokens, mask = ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[0, 7:] = 0
    wanted = logits(model, tokens), logits(model, tokens, attention_mask=mask)[mask.bool()]
    with salience.fuse(model):
        near(logits(model, tokens), wanted[0])
        near(logits(model, tokens, attention_mask=mask)[mask.bool()], wanted[1])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba"], indirect=True)
def test_left_padding_under_a_bias_equals_the_row_alone(
    kind: str, build: Any, ids: Any, logits: Any, near: Any
) -> None:
    model, tokens, mask = build(kind, use_bias=True), ids(1, 9), torch.ones(1, 9, dtype=torch.long)
    mask[0, :4] = 0
    alone = logits(model, tokens[:, 4:])
    assert float((logits(model, tokens, attention_mask=mask)[:, 4:] - alone).abs().max()) > 1e-3  # in transformers
    with salience.fuse(model):
        near(logits(model, tokens, attention_mask=mask)[:, 4:], alone)


@torch.no_grad()
def test_dtypes(model: Any, ids: Any, logits: Any, near: Any) -> None:
    tokens, exact = ids(2, 20), copy.deepcopy(model).double()
    wanted = logits(exact, tokens)
    with salience.fuse(exact):
        # transformers takes exp(A_log) in float32 whatever the model is in: half a unit in its last place
        near(logits(exact, tokens), wanted, 1e-6)
    half = copy.deepcopy(model).bfloat16()
    theirs = logits(half, tokens).double()
    with salience.fuse(half):
        ours = logits(half, tokens).double()
    # bfloat16 has 8 bits: judged by the distance from float64, where ours may not be much worse than theirs
    assert float((ours - wanted).abs().max()) <= 1.5 * float((theirs - wanted).abs().max())


@torch.no_grad()
def test_packed_sequences_equal_separate_ones(build: Any, ids: Any, logits: Any, near: Any) -> None:
    model = build("mamba")
    mixer, hidden = model.backbone.layers[0].mixer, torch.randn(2, 9, 20, generator=torch.Generator().manual_seed(0))
    wanted = torch.cat([mixer(hidden[:, :4]), mixer(hidden[:, 4:])], dim=1)
    with salience.fuse(model):
        near(mixer(hidden, seq_idx=torch.tensor([[0] * 4 + [1] * 5] * 2)), wanted)


@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (1, 5), (2, 1, 5)])
def test_a_mask_of_the_wrong_shape(build: Any, ids: Any, shape: tuple[int, ...]) -> None:
    model = build("mamba")
    said = rf"attention_mask must be \(2, 5\), not \({', '.join(map(str, shape))}\)"
    with salience.fuse(model), pytest.raises(ValueError, match=said):
        model(input_ids=ids(2, 5), attention_mask=torch.ones(shape))
