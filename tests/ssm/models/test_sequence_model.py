"""The shell around every mixer: who sees what, padding, streaming, files and refused input."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import salience
from salience import SequenceModel
from salience.ssm.models.pattern import LAYERS, is_causal

CAUSAL = [letter for letter in LAYERS if letter != "B"]
SMALL: dict[str, Any] = {
    "W": {"window": 4, "n_global": 2}, "D": {"d_state": 8}, "S": {"d_state": 8}, "5": {"d_state": 8},
}  # fmt: skip
# float32, sums in another order, a few layers on top of each other
NEAR: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def build(mixer: str = "M", **options: Any) -> SequenceModel:
    """A small tagger of three numbers a step, unless told otherwise."""
    own = {letter: SMALL[letter] for letter in set(mixer) & set(SMALL)}
    shape = {"d_model": 8, "n_layers": max(2, len(mixer)), "head": "tag", "n_classes": 5, "d_input": 3} | options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SequenceModel(mixer=mixer, mixer_options=own, **shape).eval()


def inputs(rows: int, length: int) -> Tensor:
    return torch.randn(rows, length, 3, generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("letter", LAYERS)
def test_who_sees_a_later_step(letter: str, causal: bool) -> None:
    model, x = build(letter, causal=causal, mlp=1), inputs(1, 13)
    later = x.clone()
    later[:, 9] += 1
    change = (model(later) - model(x)).abs().amax(-1)[0]  # (L,)
    assert change[9] > 1e-4
    # a convolution by FFT spreads its rounding over all steps
    if is_causal(letter, causal):
        assert change[:9].max() < 1e-5
    else:
        assert change[8] > 1e-5


@pytest.mark.parametrize("head", ["classify", "tag"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("letter", LAYERS)
def test_a_padded_batch_is_its_rows_alone(letter: str, causal: bool, head: str) -> None:
    model, x = build(letter, causal=causal, head=head, mlp=1), inputs(3, 11)
    mask = torch.ones(3, 11, dtype=torch.bool)
    mask[0, 6:], mask[1, :5] = False, False
    logits = model(x, mask)
    for row in range(3):
        alone = model(x[row : row + 1, mask[row]])[0]
        torch.testing.assert_close(logits[row, mask[row]] if head == "tag" else logits[row], alone, **NEAR)


@pytest.mark.parametrize("head", ["classify", "tag"])
@pytest.mark.parametrize("mixer", [*CAUSAL, "MAD5"])
def test_streaming_is_the_whole(mixer: str, head: str) -> None:
    model, x = build(mixer, head=head, mlp=1), inputs(2, 12)
    whole = model(x) if head == "tag" else torch.stack([model(x[:, : t + 1]) for t in range(12)], 1)
    state = model.init_state(2)
    steps = [model.step(x[:, t], state) for t in range(5)]
    torch.testing.assert_close(torch.stack(steps, 1), whole[:, :5], **NEAR)
    chunk, after = model(x[:, 5:9], state=state, return_state=True)
    torch.testing.assert_close(chunk, whole[:, 5:9] if head == "tag" else whole[:, 8], **NEAR)
    kept = after.clone().take(torch.tensor([1]))
    torch.testing.assert_close(model.step(x[:, 9], after), whole[:, 9], **NEAR)
    torch.testing.assert_close(model.step(x[1:, 9], kept), whole[1:, 9], **NEAR)


def test_tokens_and_the_next_one() -> None:
    model = build("MMMA", head="next-token", vocab_size=11, n_classes=0, d_input=0)
    tokens = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(0))
    logits = model(tokens)
    assert logits.shape == (2, 9, 11) and model.config.n_classes == 11
    state = model.init_state(2)
    for t in range(9):
        torch.testing.assert_close(model.step(tokens[:, t], state), logits[:, t], **NEAR)


def test_a_pattern_repeats_over_the_layers() -> None:
    model = build("MMMA", n_layers=6)
    assert [type(block.mixer).__name__ for block in model.blocks] == ["Mamba"] * 3 + ["Attention"] + ["Mamba"] * 2
    assert model.n_params() == sum(p.numel() for p in model.parameters())


def test_mlp_and_dropout() -> None:
    assert [block.mlp is not None for block in build("MMMA", n_layers=4, mlp="auto").blocks] == [False] * 3 + [True]
    model, x = build("M", dropout=0.5), inputs(2, 7)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_a_row_without_a_valid_step_is_finite() -> None:
    for letter in LAYERS:
        model = build(letter, causal=False, head="classify").train()
        loss = model(inputs(2, 6), torch.tensor([[True] * 6, [False] * 6])).square().sum()
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters()), letter


def test_groups_for_the_optimiser() -> None:
    for letter in LAYERS:
        model = build(letter)
        groups = {g["name"]: g for g in salience.parameter_groups(model, lr=2e-3, weight_decay=0.1)}
        assert sum(len(g["params"]) for g in groups.values()) == len(list(model.parameters()))
        assert ("ssm" in groups) == (letter not in "AWL")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mixer", ["MAD5", "BWSL"])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, mixer: str, dtype: torch.dtype) -> None:
    model = build(mixer, mlp="auto", dropout=0.1).to(dtype)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    (tmp_path / "note.txt").write_text("stays")
    assert model.save_pretrained(tmp_path) == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "note.txt"]
    before = torch.random.get_rng_state()
    twin = SequenceModel.from_pretrained(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert twin.config == model.config and not twin.training
    for (name, ours), (other, theirs) in zip(
        model.state_dict().items(), twin.state_dict().items(), strict=True
    ):  # fmt: skip
        assert name == other and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    x = inputs(2, 7).to(dtype)
    assert torch.equal(twin(x), model(x)) and torch.equal(copy.deepcopy(twin)(x), model(x))
    assert all(p.requires_grad for p in twin.parameters())


def test_folders_that_are_none_of_ours(tmp_path: Path) -> None:
    def refused(told: str) -> None:
        with pytest.raises(ValueError, match=told):
            SequenceModel.from_pretrained(tmp_path)

    refused("it has no config.json")
    build("M").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, told in (
        ({"model_type": "mamba"}, "describes no SequenceModel: its model_type"),
        ({"colour": 1}, "has fields this version does not know: colour"),
        ({"mixer": "X"}, "describes no SequenceModel: mixer must be"),
        ({"d_model": 16}, "and its config.json wants"),
        ({"n_layers": 3}, "lacks blocks.2"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        refused(told)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"half")
    refused("is damaged")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: build("Z"), "mixer must be letters of MBAWDS5L.*did you mean"),
        (lambda: build("MMMA", n_layers=2), "n_layers must be at least 4 for 'MMMA', not 2"),
        (lambda: build(d_model=0), "d_model must be a whole number of at least 1, not 0"),
        (lambda: build(head="mean"), "head must be one of classify, tag, next-token, not 'mean'"),
        (lambda: build(n_classes=1), "n_classes must be a whole number of at least 2, not 1"),
        (lambda: build(d_input=0), "vocab_size .* or d_input .* must be at least 1"),
        (lambda: build(vocab_size=9), "d_input must be left out where vocab_size is 9, not 3"),
        (lambda: build(mlp=-1), 'mlp must be a whole number of at least 0 or "auto", not -1'),
        (lambda: build(dropout=1.0), "dropout must be a share from 0 to below 1, not 1.0"),
        (lambda: build(head="next-token"), "head must be classify or tag for inputs that are no tokens"),
        (
            lambda: build("B", head="next-token", vocab_size=9, d_input=0),
            "head must be classify or tag for a mixer that sees later steps",
        ),
        (
            lambda: build("MA", causal=False, head="next-token", vocab_size=9, d_input=0),
            r"sees later steps \('MA', causal=False\)",
        ),
        (
            lambda: build(head="next-token", vocab_size=9, d_input=0, n_classes=5),
            "n_classes must be the vocab_size 9 for next-token, not 5",
        ),
        (
            lambda: SequenceModel(mixer="M", n_classes=2, mixer_options={"d_state": 4}),  # type: ignore[dict-item]
            "mixer_options must give options by letter of 'M'",
        ),
        (
            lambda: SequenceModel(mixer="M", n_classes=2, mixer_options={"M": {"heads": 4}}),
            "mixer_options of 'M' must be of .*d_state.*, not 'heads'",
        ),
        (lambda: build()(inputs(2, 4)[0]), r"inputs must be \(B, L, 3\) with L of at least 1, not \(4, 3\)"),
        (lambda: build()(inputs(2, 4)[:, :0]), "with L of at least 1"),
        (lambda: build()(inputs(2, 4).long()), "inputs must be floats, not torch.int64"),
        (lambda: build(vocab_size=9, d_input=0)(inputs(2, 4)[..., 0]), "inputs must be whole numbers"),
        (lambda: build()(inputs(2, 4), torch.ones(2, 3).bool()), r"mask must be bool \(2, 4\)"),
        (lambda: build("B").init_state(1), r"state must be left out: a model that sees later steps \(B\) has none"),
        (lambda: build("A", causal=False)(inputs(1, 4), return_state=True), "state must be left out"),
    ],
)
def test_bad_input_is_named(ask: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ask()
