"""MambaLM against transformers' Mamba with the same weights: logits, loss, gradients, masks, chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from salience import MambaLM
from salience.ssm.models.decoding import decoder

from .conftest import build_theirs, near

MASKS = {
    "left": [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9],
    "right": [[1, 1, 1, 1, 1, 0, 0, 0, 0], [1] * 8 + [0]],
    "inner": [[1, 0, 1, 1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1, 1, 0, 0]],
}


@pytest.mark.parametrize("length", [1, 3, 70])
def test_logits(theirs: Any, ours: MambaLM, ids: Any, length: int) -> None:
    with torch.no_grad():
        near(ours(ids(2, length)).logits, theirs(ids(2, length)).logits)


def test_loss_and_gradients(theirs: Any, ours: MambaLM, ids: Any) -> None:
    tokens = ids(2, 20)
    labels = tokens.clone()
    labels[0, :5] = -100
    loss, wanted = ours(tokens, labels=labels).loss, theirs(tokens, labels=labels).loss
    near(loss, wanted)
    theirs_by_name = dict(theirs.named_parameters())
    got = torch.autograd.grad(loss, list(ours.parameters()))
    wanted = torch.autograd.grad(wanted, [theirs_by_name[name] for name, _ in ours.named_parameters()])
    assert len(got) == len(theirs_by_name)
    for a, b in zip(got, wanted, strict=True):
        near(a, b, 1e-4)  # sums over forty steps and through two layers


@torch.no_grad()
def test_left_padding_is_transformers(theirs: Any, ours: MambaLM, ids: Any) -> None:
    mask, tokens = torch.tensor(MASKS["left"]), ids(2, 9)
    got, wanted = (model(tokens, attention_mask=mask).logits for model in (ours, theirs))
    near(got[mask.bool()], wanted[mask.bool()])


@torch.no_grad()
@pytest.mark.parametrize("where", MASKS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_a_padded_row_is_the_row_alone(ours: MambaLM, ids: Any, where: str, dtype: torch.dtype) -> None:
    mask, tokens = torch.tensor(MASKS[where]).bool(), ids(2, 9)
    out = ours(tokens, attention_mask=mask.to(dtype), return_state=True)
    for row in range(2):
        alone = ours(tokens[row : row + 1, mask[row]], return_state=True)
        near(out.logits[row, mask[row]], alone.logits[0])
        for state, last in zip(out.state, alone.state, strict=True):
            near(state.ssm[row], last.ssm[0])
            near(state.conv[row], last.conv[0])


def test_gradients_of_a_padded_row(ours: MambaLM, ids: Any) -> None:
    mask, tokens = torch.tensor(MASKS["inner"][:1]).bool(), ids(1, 9)
    weights = torch.randn(1, 9, 48, generator=torch.Generator().manual_seed(0))
    padded = (ours(tokens, attention_mask=mask).logits * weights)[mask].sum()
    alone = (ours(tokens[mask][None]).logits[0] * weights[mask]).sum()
    parameters = list(ours.parameters())
    pairs = zip(torch.autograd.grad(padded, parameters), torch.autograd.grad(alone, parameters), strict=True)
    for a, b in pairs:
        near(a, b, 1e-4)  # sums over the steps in another order


@torch.no_grad()
@pytest.mark.parametrize("cuts", [[5, 7], [1, 1, 10], [1] * 12])
def test_chunks_are_the_whole(ours: MambaLM, theirs: Any, ids: Any, cuts: list[int]) -> None:
    tokens, state, parts = ids(2, 12), None, []
    for chunk in tokens.split(cuts, dim=1):
        before = None if state is None else [each.clone() for each in state]
        given, (_, logits, state) = state, ours(chunk, state=state, return_state=True)
        parts.append(logits)
        if given is not None and before is not None:
            assert all(torch.equal(a.ssm, b.ssm) for a, b in zip(given, before, strict=True))  # left as it was
    near(torch.cat(parts, dim=1), theirs(tokens).logits)


@torch.no_grad()
def test_steps_are_the_whole(ours: MambaLM, theirs: Any, ids: Any) -> None:
    tokens, state = ids(3, 9), ours.init_state(3)
    steps = [ours.step(tokens[:, t], state) for t in range(9)]
    near(torch.stack(steps, dim=1), theirs(tokens).logits)


@torch.no_grad()
def test_packed_is_separate_and_the_last_logits_alone(ours: MambaLM, ids: Any) -> None:
    tokens, seq_idx = ids(1, 9), torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2]])
    apart = torch.cat([ours(part).logits for part in tokens.split([4, 2, 3], dim=1)], dim=1)
    near(ours(tokens, seq_idx=seq_idx).logits, apart)
    near(ours(tokens, logits_to_keep=2).logits, ours(tokens).logits[:, -2:])


@pytest.mark.parametrize(
    "options",
    [
        {"use_bias": True},
        {"use_conv_bias": False},
        {"tie_word_embeddings": False},
        {"expand": 3, "conv_kernel": 3},
        {"time_step_rank": "auto", "residual_in_fp32": False, "layer_norm_epsilon": 1e-3},
    ],
    ids=str,
)
def test_other_shapes(options: dict[str, Any], ids: Any, tmp_path: Any) -> None:
    theirs = build_theirs(**options)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        near(MambaLM.from_pretrained(tmp_path)(ids(2, 9)).logits, theirs(ids(2, 9)).logits)


@torch.no_grad()
def test_bfloat16(saved: Any, ids: Any, theirs: Any) -> None:
    low = MambaLM.from_pretrained(saved["hf"], dtype=torch.bfloat16)
    assert {p.dtype for p in low.parameters()} == {torch.bfloat16}
    logits = low(ids(2, 9)).logits
    assert logits.dtype == torch.float32
    near(logits, theirs(ids(2, 9)).logits, 0.1)  # weights of eight bits


def refusals(ids: Any) -> list[tuple[tuple[Tensor, ...], dict[str, Any], str]]:
    tokens, short = ids(2, 9), torch.ones(2, 8, dtype=torch.long)
    return [
        ((tokens[0],), {}, r"input_ids must be \(B, L\) with L of at least 1, not \(9,\)"),
        ((tokens[:, :0],), {}, r"input_ids must be .* not \(2, 0\)"),
        ((tokens,), {"attention_mask": short}, r"attention_mask must be \(2, 9\) as input_ids, not \(2, 8\)"),
        ((tokens,), {"labels": short}, r"labels must be \(2, 9\) as input_ids, not \(2, 8\)"),
        ((tokens,), {"state": []}, "state must have 2 layers' states, not 0"),
        ((tokens,), {"labels": tokens, "logits_to_keep": 1}, "logits_to_keep must be 0 where labels are given"),
    ]


def test_bad_input_is_one_sentence(saved: Any, ids: Any) -> None:
    model = MambaLM.from_pretrained(saved["hf"])
    for arguments, options, said in refusals(ids):
        with pytest.raises(ValueError, match=said) as told:
            model(*arguments, **options)
        assert str(told.value).rstrip(".").count(". ") == 0
    with pytest.raises(ValueError, match="d_model must be a whole number of at least 1, not 0"):
        MambaLM(vocab_size=8, d_model=0)


def test_it_starts_as_published() -> None:
    """Residual branches start smaller by the root of the number of layers; dt and A as `Mamba` starts them."""
    torch.manual_seed(0)
    model = MambaLM(vocab_size=64, d_model=32, n_layers=4)
    assert model.lm_head.weight is model.backbone.embeddings.weight
    assert abs(float(model.lm_head.weight.detach().std()) - 0.02) < 0.002  # 2,048 draws: a standard error of .0003
    layer = model.backbone.layers[3].mixer
    uniform = (1 / 3 / 64) ** 0.5  # a linear layer's own start, +-1 / sqrt(64)
    assert abs(float(layer.out_proj.weight.detach().std()) / (uniform / 2) - 1) < 0.1  # 2,048 draws: 2 % or so
    dt = torch.nn.functional.softplus(layer.dt_proj.bias.detach())
    assert float(dt.min()) > 0.99e-3 and float(dt.max()) < 0.101  # .001 to .1, and rounding


@torch.no_grad()
def test_steps_follow_what_becomes_of_the_weights(ours: MambaLM, ids: Any) -> None:
    """A token's calls are kept by address: new values in place, new tensors, and hooks all count."""
    tokens, states = ids(2, 4), ours.init_state(2)

    def step_is_forward(t: int) -> None:
        before = [state.clone() for state in states]
        near(ours.step(tokens[:, t], states), ours(tokens[:, t : t + 1], state=before).logits[:, 0])

    assert decoder(ours, tokens[:, 0], states) is decoder(ours, tokens[:, 0], states) is not None
    step_is_forward(0)
    mixer = ours.backbone.layers[1].mixer
    mixer.in_proj.weight.mul_(1.1)
    step_is_forward(1)
    mixer.A_log = torch.nn.Parameter(mixer.A_log + 0.1)
    step_is_forward(2)
    hook = mixer.out_proj.register_forward_hook(lambda module, args, y: 1.5 * y)
    assert decoder(ours, tokens[:, 0], states) is None
    step_is_forward(3)
    hook.remove()
    assert decoder(ours, tokens[:, 0], states) is not None
    assert decoder(ours, tokens[:1, 0], states) is None  # fewer tokens than states: the operators say so


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_steps_in_other_types_and_with_every_bias(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = MambaLM(vocab_size=40, d_model=20, n_layers=2, d_state=5, bias=True, tie_embeddings=False).eval().to(dtype)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    tokens, states = torch.arange(6).view(2, 3), model.init_state(2)
    assert decoder(model, tokens[:, 0], states) is not None
    steps = torch.stack([model.step(tokens[:, t], states) for t in range(3)], 1)
    # in bfloat16 forward rounds to 8 bits between the operators; a step does so between its kernels only
    near(steps, model(tokens).logits, 3e-2 if dtype == torch.bfloat16 else 1e-12)
