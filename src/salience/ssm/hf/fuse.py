"""`salience.fuse`: finds the mixers, refuses what it does not know, and puts the fused forwards on."""

from __future__ import annotations

from typing import Any

from torch import nn

from salience.core.backend import BACKENDS
from salience.core.transformers_names import check_release
from salience.ssm.hf.falcon_mamba import FALCON_MAMBA
from salience.ssm.hf.forward_override import Override, free_slot, override_of
from salience.ssm.hf.fused import Fused
from salience.ssm.hf.fused_head import FusedHead, HeadOfFewBits, head_of_few_bits, plain_head
from salience.ssm.hf.jamba import JAMBA
from salience.ssm.hf.mamba import MAMBA
from salience.ssm.hf.mixer_forward import FusedForward
from salience.ssm.hf.mixer_parts import Family
from salience.ssm.hf.zamba import ZAMBA

FAMILIES = {family.mixer: family for family in (MAMBA, FALCON_MAMBA, JAMBA, ZAMBA)}

# Another recurrence: one decay a head, no A a state. By name, since other packages' copies are called the same.
MAMBA_2 = frozenset(
    "Mamba2 Mamba2Mixer BambaMixer FalconH1Mixer GraniteMoeHybridMambaLayer NemotronHMamba2Mixer Zamba2MambaMixer"
    "".split()
)


def fuse(model: nn.Module, *, backend: str = "auto") -> Fused:
    """Run the S6 mixers of an unmodified transformers model on this package's scan and convolution.

    Same weights, same cache, same results in training, under any padding, in steps and in generation; where
    transformers is wrong, the right results (`mixer_forward` lists them). Nothing outside this model object changes.

    Args:    model: a transformers model, or any module that holds one, with the mixers of Mamba, FalconMamba, Jamba or
             Zamba inside   backend: "auto", or a name that `salience.explain` knows
    Returns: a handle: `undo()` puts everything back, and so does leaving a `with` block
    Raises:  ValueError when model is no module, has no mixer or one of another kind inside, or is fused already
    """
    check_release()
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a transformers model, not {_kind(model)}.")
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be auto, {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, not {backend!r}.")
    mixers = [(name, module, family) for name, module in model.named_modules() if (family := _family(name, module))]
    if not mixers:
        known = ", ".join(family.name for family in FAMILIES.values())
        raise ValueError(f"model is {_kind(model)}, which has no S6 mixer: fuse knows {known}.")
    for name, module, _ in mixers:
        _check(name, module, model)
    slots = [_slot(name, module) for name, module, _ in mixers]  # all, before the first is touched
    forwards: list[tuple[str, Override]]
    forwards = [(name, FusedForward(module, family, backend)) for name, module, family in mixers]
    if (head := plain_head(model)) is not None:
        forwards.append(("head", FusedHead(head, backend)))
        slots.append("forward")
    elif (quantised := head_of_few_bits(model)) is not None:
        forwards.append(("head", HeadOfFewBits(quantised)))
        slots.append("weight")
    for (_, forward), slot in zip(forwards, slots, strict=True):
        forward.install(slot)
    return Fused(forwards)


def _family(name: str, module: nn.Module) -> Family | None:
    """The family of a mixer, None for any other module."""
    kind = type(module)
    if kind.__name__ in MAMBA_2:
        raise ValueError(
            f"model's layer {name!r} is a {kind.__name__}, which is Mamba-2: fuse runs S6, Mamba-1's selective scan."
        )
    for base in kind.__mro__:
        family = FAMILIES.get(f"{base.__module__}.{base.__qualname__}")
        if family is None:
            continue
        if getattr(kind, "forward", None) is not getattr(base, "forward", None):
            raise ValueError(
                f"model's layer {name!r} is a {kind.__name__} with a forward of its own, which fuse does not know: "
                f"only {family.name} itself can be fused."
            )
        return family
    return None


def _slot(name: str, mixer: nn.Module) -> str:
    slot = free_slot(mixer)
    if slot is None:
        raise ValueError(
            f"model's layer {name!r} has a forward of its own ({type(mixer.forward).__name__}) that fusing would hide: "
            "take it off first."
        )
    return slot


def _check(name: str, mixer: Any, model: nn.Module) -> None:
    if override_of(mixer) is not None:
        raise ValueError(
            f"model is {_kind(model)} that is fused already: call undo() on its handle, which "
            "salience.Fused.of(model) gives too."
        )
    if not 2 <= mixer.conv_kernel_size <= 8:
        raise ValueError(
            f"model's layer {name!r} has a convolution of width {mixer.conv_kernel_size}: fuse runs widths 2 to 8."
        )


def _kind(model: Any) -> str:
    name = type(model).__name__
    kind = getattr(getattr(model, "config", None), "model_type", None)
    return f"{_article(name)} {name}" + (f" of type {kind!r}" if kind else "")


def _article(name: str) -> str:
    return "an" if name[:1].lower() in "aeiou" else "a"
