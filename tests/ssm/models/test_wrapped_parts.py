"""A `MambaLM` with parts that are wrapped, hooked, in few bits or elsewhere: prefill and decoding say the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import salience

# float32 logits of order one, sums in another order
NEAR = {"atol": 2e-5, "rtol": 2e-5}

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*torch.ao.quantization")


def lm(**options: Any) -> Any:
    torch.manual_seed(0)
    made = salience.MambaLM(**{"vocab_size": 32, "d_model": 16, "n_layers": 2, "tie_embeddings": False, **options})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def hooked(part: Any) -> Any:
    part.register_forward_hook(lambda module, args, y: 1.5 * y)
    return part


def own_forward(part: Any) -> Any:
    theirs = part.forward
    part.forward = lambda x: 1.5 * theirs(x)
    return part


def pruned(part: Any) -> Any:
    prune.random_unstructured(part, "weight", 0.5)
    with torch.no_grad():
        part.weight_orig.mul_(1.5)
    return part


class Wrapped(nn.Module):
    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base, self.weight = base, base.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = 1.5 * self.base(x)
        return y


WAYS: dict[str, Callable[[Any], Any]] = {
    "hook": hooked, "own forward": own_forward, "pruned": pruned, "wrapped": Wrapped,
}  # fmt: skip
PARTS = ["lm_head", "backbone.embeddings", "backbone.norm_f", "backbone.layers.1.norm"]
PARTS += [f"backbone.layers.1.mixer.{name}" for name in ("in_proj", "conv1d", "x_proj", "dt_proj", "out_proj")]


@torch.no_grad()
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [6, 40])  # many rows go through kernels of their own on some machines
def test_steps_equal_the_whole(part: str, way: str, length: int) -> None:
    model, ids = lm(), torch.randint(0, 32, (2, length))
    before = model(ids).logits
    owner, _, name = part.rpartition(".")
    setattr(model.get_submodule(owner), name, WAYS[way](model.get_submodule(part)))
    with torch.enable_grad():  # nothing is joined or fused where gradients are on: the plain way
        wanted = model(ids).logits.detach()
    assert (wanted - before).abs().max() > 1e-3
    torch.testing.assert_close(model(ids).logits, wanted, **NEAR)
    state = model.init_state(2)
    steps = torch.stack([model.step(ids[:, t], state) for t in range(length)], dim=1)
    torch.testing.assert_close(steps, wanted, **NEAR)
    told = model.generate(ids, max_new_tokens=4, do_sample=False)
    for _ in range(4):
        ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(told, ids)


@torch.no_grad()
def test_dynamic_int8_generates() -> None:
    for options in ({}, {"tie_embeddings": True}):
        whole, ids = lm(**options), torch.randint(0, 32, (2, 9))
        few = torch.ao.quantization.quantize_dynamic(whole, {nn.Linear})
        # 8 bits in weights and activations: some percent of the largest logit
        assert 0 < (few(ids).logits - whole(ids).logits).abs().max() < 0.1 * whole(ids).logits.abs().max()
        assert few.generate(ids, max_new_tokens=4, num_beams=2).shape == (2, 13)
        assert few.generate(ids, max_new_tokens=4, do_sample=True).shape == (2, 13)


@torch.no_grad()
def test_embeddings_in_few_bits() -> None:
    whole, ids = lm(), torch.randint(0, 32, (2, 9))
    few = copy.deepcopy(whole)
    few.backbone.embeddings.qconfig = torch.ao.quantization.float_qparams_weight_only_qconfig
    few.backbone.embeddings = torch.ao.nn.quantized.Embedding.from_float(few.backbone.embeddings)
    state = few.init_state(2)
    steps = torch.stack([few.step(ids[:, t], state) for t in range(9)], dim=1)
    torch.testing.assert_close(steps, few(ids).logits, **NEAR)


@torch.no_grad()
def test_weights_that_accelerate_keeps_elsewhere() -> None:
    accelerate = pytest.importorskip("accelerate")
    whole, ids = lm(), torch.randint(0, 32, (2, 9))
    away = accelerate.cpu_offload(copy.deepcopy(whole))
    torch.testing.assert_close(away(ids).logits, whole(ids).logits, **NEAR)
    for options in ({"do_sample": False}, {"num_beams": 2, "do_sample": False}):
        wanted = whole.generate(ids, max_new_tokens=4, **options)
        assert torch.equal(away.generate(ids, max_new_tokens=4, **options), wanted)
    assert all(parameter.is_meta for parameter in away.parameters())
    with pytest.raises(ValueError, match="parts that are not its own"):
        away.save_pretrained("nowhere")


@torch.no_grad()
def test_lora_of_peft() -> None:
    peft = pytest.importorskip("peft")
    names = ["in_proj", "x_proj", "dt_proj", "out_proj", "embeddings", "lm_head"]
    model, ids = lm(), torch.randint(0, 32, (2, 9))
    adapted = peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, target_modules=names, init_lora_weights=False), copy.deepcopy(model)
    ).eval()
    wanted = adapted(ids).logits
    assert (wanted - model(ids).logits).abs().max() > 1e-2
    state = adapted.init_state(2)
    steps = torch.stack([adapted.step(ids[:, t], state) for t in range(9)], dim=1)
    torch.testing.assert_close(steps, wanted, **NEAR)
    with pytest.raises(ValueError, match="parts that are not its own"):
        adapted.save_pretrained("nowhere")


@pytest.mark.parametrize("make", [lm, lambda: salience.SequenceModel(vocab_size=9, n_classes=3, d_model=16)])
def test_what_is_in_few_bits_is_not_saved_as_if_it_were_whole(make: Callable[[], Any], tmp_path: Any) -> None:
    few = torch.ao.quantization.quantize_dynamic(make(), {nn.Linear})
    with pytest.raises(ValueError, match="can't be saved with parts that are not its own"):
        few.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_a_sequence_model_of_few_bits_streams() -> None:
    torch.manual_seed(0)
    whole = salience.SequenceModel(mixer="MAWL", vocab_size=9, n_classes=9, d_model=16, head="next-token").eval()
    ids = torch.randint(0, 9, (2, 7))
    few = torch.ao.quantization.quantize_dynamic(whole, {nn.Linear})
    state = few.init_state(2)
    steps = torch.stack([few.step(ids[:, t], state) for t in range(7)], dim=1)
    # 8 bits: a few percent of logits of order one
    torch.testing.assert_close(steps, whole(ids), atol=0.1, rtol=0.1)
