"""Mixers whose parts are wrapped or hooked: adapters, quantised linears, accelerate's hooks, torch.compile."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import salience


class Adapted(nn.Module):
    """A linear layer with a low-rank part beside it, shaped as PEFT's: the wrapped weight is a property."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.down = nn.Parameter(0.3 * torch.randn(2, base.in_features))
        self.up = nn.Parameter(0.3 * torch.randn(base.out_features, 2))

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base_layer(x) + x @ self.down.mT @ self.up.mT
        return y


def mixers(model: Any) -> list[Any]:
    return [module for module in model.modules() if type(module).__name__.endswith("Mixer")]


def adapt(model: Any, *names: str) -> None:
    torch.manual_seed(0)
    for mixer in mixers(model):
        for name in names:
            if hasattr(mixer, name):
                setattr(mixer, name, Adapted(getattr(mixer, name)))


@pytest.mark.parametrize("before", [False, True])
def test_wrapped_projections_are_called(
    model: Any, ids: Any, logits: Any, near: Any, new_cache: Any, before: bool
) -> None:
    tokens, twin = ids(2, 7), copy.deepcopy(model)
    adapt(model, "in_proj", "x_proj", "out_proj")
    wanted = logits(model, tokens)
    wanted.square().sum().backward()
    handle = salience.fuse(twin) if before else None
    adapt(twin, "in_proj", "x_proj", "out_proj")
    with handle or salience.fuse(twin):
        near(got := logits(twin, tokens), wanted)
        got.square().sum().backward()
        with torch.no_grad():
            cache = new_cache(twin)
            steps = [logits(twin, part, cache) for part in tokens.split([5, 1, 1], dim=1)]
            near(torch.cat(steps, dim=1), wanted)
    for (name, mine), theirs in zip(twin.named_parameters(), model.parameters(), strict=True):
        if name.endswith((".up", ".down")):
            assert mine.grad is not None and theirs.grad is not None
            near(mine.grad, theirs.grad, 1e-4)  # sums of many products of either sign


@torch.no_grad()
def test_a_wrapped_dt_proj_takes_part(build: Any, ids: Any, logits: Any, near: Any) -> None:
    model, tokens = build("mamba"), ids(2, 7)
    merged = copy.deepcopy(model)
    adapt(model, "dt_proj")
    for mixer, plain in zip(mixers(model), mixers(merged), strict=True):
        plain.dt_proj.weight += mixer.dt_proj.up @ mixer.dt_proj.down
    wanted = logits(merged, tokens)
    assert float((logits(model, tokens) - wanted).abs().max()) > 1e-4  # transformers reads the wrapped weight alone
    with salience.fuse(model):
        near(logits(model, tokens), wanted)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "jamba"], indirect=True)
def test_a_quantised_model_calls_its_dt_proj(model: Any, fused: Any, ids: Any, logits: Any, near: Any) -> None:
    wanted, calls = logits(model, ids(2, 5)), []
    fused.config._is_quantized = True
    for mixer in mixers(fused):
        mixer.dt_proj.register_forward_hook(lambda *_: calls.append(1))
    near(logits(fused, ids(2, 5)), wanted)
    assert len(calls) == len(mixers(fused))


class Hook:
    """What accelerate leaves on a module whose weights wait on another device: here the weights are gone meanwhile."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.post_forward(module, ())

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        for name, parameter in module.named_parameters():
            parameter.data = self.weights[name].clone()
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        for parameter in module.parameters():
            parameter.data = torch.full_like(parameter, float("nan"))
        return output


def hook(module: Any) -> None:
    """As accelerate puts a hook on a module."""

    def new_forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = module._hf_hook.pre_forward(module, *args, **kwargs)
        return module._hf_hook.post_forward(module, module._old_forward(*args, **kwargs))

    module._hf_hook, module._old_forward = Hook(module), module.forward
    module.forward = functools.partial(new_forward, module)


@torch.no_grad()
@pytest.mark.parametrize("whole", [False, True])
def test_accelerates_hooks(model: Any, ids: Any, logits: Any, near: Any, whole: bool) -> None:
    tokens = ids(2, 5)
    wanted = logits(model, tokens)
    for mixer in mixers(model):
        for part in [mixer] if whole else [mixer.conv1d, mixer.in_proj, getattr(mixer, "dt_proj", mixer.out_proj)]:
            hook(part)
    before = [dict(module.__dict__) for module in model.modules()]
    with salience.fuse(model):
        near(logits(model, tokens), wanted)
        with pytest.raises(ValueError, match="fused already"):
            salience.fuse(model)
    assert before == [dict(module.__dict__) for module in model.modules()]
    assert torch.equal(logits(model, tokens), wanted)


@torch.no_grad()
def test_hooked_after_fusing_and_then_undone(build: Any, ids: Any, logits: Any, near: Any) -> None:
    model, tokens = build("mamba"), ids(2, 5)
    wanted = logits(model, tokens)
    handle = salience.fuse(model)
    for mixer in mixers(model):
        hook(mixer)
    near(logits(model, tokens), wanted)
    handle.undo()
    assert torch.equal(logits(model, tokens), wanted)


@pytest.mark.parametrize("kind", ["mamba", "jamba"], indirect=True)
def test_compiled_whole(model: Any, fused: Any, ids: Any, logits: Any, near: Any) -> None:
    tokens = ids(2, 5)
    torch._dynamo.reset()
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        near(compiled(input_ids=tokens, use_cache=False).logits, logits(model, tokens))
    wanted, got = logits(model, tokens), compiled(input_ids=tokens, use_cache=False).logits
    near(got, wanted)
    wanted.square().sum().backward()
    got.square().sum().backward()
    for mine, theirs in zip(fused.parameters(), model.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        near(mine.grad, theirs.grad, 1e-4)  # sums of many products of either sign


@torch.no_grad()
def test_compiled_with_a_cache(build: Any, ids: Any, logits: Any, near: Any, new_cache: Any) -> None:
    model, tokens = build("mamba"), ids(2, 8)
    wanted, cache = logits(model, tokens), new_cache(model)
    with salience.fuse(model):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="aot_eager")
        parts = tokens.split([5, 1, 1, 1], dim=1)
        near(torch.cat([logits(model if i == 0 else compiled, p, cache) for i, p in enumerate(parts)], dim=1), wanted)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:Dynamo detected a call")  # in transformers' own scan
def test_compiled_before_fusing(build: Any, ids: Any) -> None:
    model, tokens = build("mamba"), ids(2, 5)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    wanted = compiled(input_ids=tokens, use_cache=False).logits
    with salience.fuse(model) as handle:
        fused = compiled(input_ids=tokens, use_cache=False).logits
        assert torch.equal(fused, model(input_ids=tokens, use_cache=False).logits)  # not the graph of before
        assert len(handle.layers) == 2
    assert torch.equal(compiled(input_ids=tokens, use_cache=False).logits, wanted)


@pytest.mark.filterwarnings("ignore:.*deprecated", "ignore:.*torch.ao.quantization")
class TestDynamicInt8:
    """Quantised linears have a method `weight`, which transformers' own mixers and heads trip over."""

    @torch.no_grad()
    def test_then_fused(self, model: Any, ids: Any, logits: Any, new_cache: Any) -> None:
        tokens = ids(2, 7)
        wanted = logits(model, tokens)
        few = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        before = [dict(module.__dict__) for module in few.modules()]
        with salience.fuse(few) as handle:
            got, cache = logits(few, tokens), new_cache(few)
            # 8 bits in weights and activations: some percent of the largest logit
            assert 0 < float((got - wanted).abs().max()) < 0.1 * float(wanted.abs().max())
            steps = torch.cat([logits(few, part, cache) for part in tokens.split([5, 1, 1], dim=1)], dim=1)
            # a step's activations have a scale of their own
            assert float((steps - got).abs().max()) < 0.05 * float(wanted.abs().max())
            assert few.generate(tokens, max_new_tokens=3, num_beams=2, do_sample=False).shape == (2, 10)
            assert len(handle.layers) == len(mixers(few))
            head = few.get_output_embeddings()
            assert head.weight().dtype == torch.qint8  # still what it was
        assert before == [dict(module.__dict__) for module in few.modules()]

    @torch.no_grad()
    @pytest.mark.parametrize("kind", ["jamba", "zamba"], indirect=True)
    def test_after_fusing(self, model: Any, ids: Any, logits: Any) -> None:
        """Mamba's and FalconMamba's own code reads the head's weight, and fails with any quantised head."""
        tokens, wanted = ids(2, 7), logits(model, ids(2, 7))
        salience.fuse(model)
        few = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
        assert 0 < float((logits(few, tokens) - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def _normed(part: Any) -> None:
    nn.utils.weight_norm(part)
    with torch.no_grad():
        part.weight_g.mul_(1.5)


def _louder(part: Any) -> None:
    part.register_forward_hook(lambda module, args, y: 1.5 * y)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("kind", ["mamba", "jamba"], indirect=True)
@pytest.mark.parametrize("way", [_normed, _louder])
@pytest.mark.parametrize("name", ["conv1d", "dt_proj", "x_proj", "out_proj"])
def test_weights_that_something_computes(
    model: Any, ids: Any, logits: Any, near: Any, new_cache: Any, way: Any, name: str
) -> None:
    tokens, other = ids(2, 7), copy.deepcopy(model)
    for mixer, plain in zip(mixers(model), mixers(other), strict=True):
        way(getattr(mixer, name))
        part = getattr(plain, name)
        part.weight.mul_(1.5)
        if way is _louder and part.bias is not None:
            part.bias.mul_(1.5)
    padding = torch.ones_like(tokens).index_fill(1, torch.tensor([0, 1]), 0)
    with salience.fuse(model), salience.fuse(other):
        near(logits(model, tokens), wanted := logits(other, tokens))
        near(logits(model, tokens, attention_mask=padding), logits(other, tokens, attention_mask=padding))
        cache = new_cache(model)
        near(torch.cat([logits(model, part, cache) for part in tokens.split([5, 1, 1], dim=1)], dim=1), wanted)


@torch.no_grad()
def test_weights_that_accelerate_keeps_elsewhere(model: Any, ids: Any, logits: Any, near: Any, new_cache: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    tokens, wanted = ids(2, 7), logits(model, ids(2, 7))
    away = accelerate.cpu_offload(copy.deepcopy(model))
    with salience.fuse(away):
        near(logits(away, tokens), wanted)
        cache = new_cache(away)
        near(torch.cat([logits(away, part, cache) for part in tokens.split([5, 1, 1], dim=1)], dim=1), wanted)
    assert all(parameter.is_meta for parameter in away.parameters())
