"""What a family tells the rest: how to encode, project and embed, stage by stage, and where its image tokens are."""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from salience.core.transformers_names import check_release, require_arguments
from salience.vlm.families.encoded import Encoded as Encoded
from salience.vlm.families.tower_merging import Schedule

# One static table: `config.model_type` -> "module:class".
FAMILIES = {
    "*": "salience.vlm.families.fallback:FallbackAdapter",  # all others
    "gemma3": "salience.vlm.families.gemma3:Gemma3Adapter",
    "glm46v": "salience.vlm.families.glm4v:Glm46VAdapter",
    "glm_ocr": "salience.vlm.families.glm4v:GlmOcrAdapter",
    "glmga": "salience.vlm.families.glm4v:Glm46VAdapter",
    "glm4v": "salience.vlm.families.glm4v:Glm4vAdapter",
    "glm4v_moe": "salience.vlm.families.glm4v:Glm4vMoeAdapter",
    "idefics3": "salience.vlm.families.idefics3:Idefics3Adapter",
    "internvl": "salience.vlm.families.internvl:InternVLAdapter",
    "llama4": "salience.vlm.families.llama4:Llama4Adapter",
    "llava": "salience.vlm.families.llava:LlavaAdapter",
    "llava_next": "salience.vlm.families.llava_next:LlavaNextAdapter",
    "llava_onevision": "salience.vlm.families.llava_onevision:LlavaOnevisionAdapter",
    "ovis2": "salience.vlm.families.ovis2:Ovis2Adapter",
    "paligemma": "salience.vlm.families.paligemma:PaliGemmaAdapter",
    "qwen2_5_vl": "salience.vlm.families.qwen2_5_vl:Qwen25VLAdapter",
    "qwen2_vl": "salience.vlm.families.qwen2_vl:Qwen2VLAdapter",
    "qwen3_5": "salience.vlm.families.qwen3_5:Qwen35Adapter",
    "qwen3_5_moe": "salience.vlm.families.qwen3_5:Qwen35MoeAdapter",
    "qwen3_vl": "salience.vlm.families.qwen3_vl:Qwen3VLAdapter",
    "qwen3_vl_moe": "salience.vlm.families.qwen3_vl:Qwen3VLMoeAdapter",
    "smolvlm": "salience.vlm.families.smolvlm:SmolVLMAdapter",
    "minicpmv4_7": "salience.vlm.families.fallback_axes:AxesFallbackAdapter",
    "paddleocr_vl": "salience.vlm.families.fallback_axes:AxesFallbackAdapter",
    "cosmos3_edge": "salience.vlm.families.fallback_axes:AxesFallbackAdapter",
    "vila": "salience.vlm.families.vila:VilaAdapter",  # LLaVA's classes with its projector
}


class Adapter(ABC):
    """One model, seen stage by stage: pixels -> encode -> (select) -> project -> embed -> language model.

    Nothing here changes the model; every stage is what the model's own forward runs. What a family does not say, it has
    as most of transformers' have it.
    """

    model: Any
    tower: Any

    @property
    def language_model(self) -> nn.Module:
        """The language model without its head; takes `inputs_embeds`, `attention_mask`, `position_ids`."""
        module: nn.Module = self.model.model.language_model
        return module

    @property
    def lm_head(self) -> nn.Module:
        """Hidden states (..., d_llm) -> logits (..., vocabulary)."""
        module: nn.Module = self.model.lm_head
        return module

    @property
    def image_token_id(self) -> int:
        """The placeholder's id: one stands in the prompt for every visual token."""
        return int(self.model.config.image_token_id)

    @property
    @abstractmethod
    def d_features(self) -> int:
        """Width of the features a method sees."""

    @property
    def n_tokens(self) -> int | None:
        """Visual tokens of a view, None where that depends on the picture."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the vision tower runs; where accelerate has its weights elsewhere, its hooks say where that is."""
        parameter: Tensor = next(self.tower.parameters())
        hooks = [getattr(module, "_hf_hook", None) for module in self.tower.modules()] if parameter.is_meta else []
        places = [place for hook in hooks if (place := getattr(hook, "execution_device", None)) is not None]
        return torch.device(places[0]) if places else parameter.device

    @property
    def has_cls_attention(self) -> bool:
        """Whether the tower has a [CLS] token whose attention can be read."""
        return False

    @property
    def tower_attention(self) -> Literal["cls", "received"] | None:
        """What `Encoded.cls_attention` is: [CLS]'s, or received attention in its stead; None where there is neither."""
        return "cls" if self.has_cls_attention else None

    @property
    def image_arguments(self) -> frozenset[str]:
        """The forward arguments that belong to the pictures and go once they are encoded: generate's own rule."""
        parameters = inspect.signature(self.model.base_model.get_image_features).parameters
        return frozenset(parameters) - {"kwargs"}

    @property
    def token_ids(self) -> dict[str, int]:
        """The placeholders' ids by kind: "image", and "video" where the family's videos can be pruned."""
        return {"image": self.image_token_id}

    @property
    def video_arguments(self) -> frozenset[str]:
        """The forward arguments that belong to videos and go once they are encoded."""
        encode = getattr(self.model.base_model, "get_video_features", None)
        return frozenset(inspect.signature(encode).parameters) - {"kwargs"} if encode else frozenset()

    @property
    def no_compact(self) -> str:
        """Why the gaps between positions can't be closed, a clause; empty where they can."""
        return ""

    @property
    def joins_rows(self) -> bool:
        """Whether a prompt's pictures are handed to the model in one piece, for a `generate` that would mix them up."""
        return False

    @abstractmethod
    def encode(self, pixel_values: Tensor, **options: Any) -> Encoded:
        """Run the vision tower.

        Args:    pixel_values: (images, 3, H, W), or as the family has it   options: of `image_arguments`
        Raises:  ValueError when the pixels or options are not what the family takes
        """

    def encode_video(self, pixel_values_videos: Tensor, **options: Any) -> Encoded:
        """Run the vision tower on videos, where `token_ids` has "video"; each frame is a view with its own budget.

        Args:    pixel_values_videos: as the family has it   options: of `video_arguments`
        Raises:  ValueError when the pixels or options are not what the family takes
        """
        raise ValueError("pixel_values_videos cannot be pruned with this model: pass the frames as pictures.")

    @property
    def no_merging(self) -> str:
        """Why tokens can't be merged inside the vision tower, a clause; empty where they can."""
        return "the layers of its vision tower are not known here"

    @property
    def merging_layers(self) -> int:
        """How many of the tower's layers the features go through, where `no_merging` is empty."""
        return 0

    def encode_merged(self, schedule: Schedule, pixel_values: Tensor, **options: Any) -> Encoded:
        """Run the vision tower with tokens merged inside it; `Encoded.left` says what is left of each view.

        Args:    schedule: (tokens of a picture, layers) -> how many are merged away in each of `merging_layers`
        Raises:  ValueError as `encode` does, or when tokens can't be merged here
        """
        raise ValueError(f"tokens can't be merged inside the vision tower: {self.no_merging}.")

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Features (..., d) -> visual tokens (..., d_llm), through the model's own projector."""

    def encoder_outputs(
        self, projected: Sequence[Tensor], deepstack: Sequence[Sequence[Tensor]] = (), kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """`mm_encoder_outputs` for the model's forward, of each view's (k, d_llm) tokens; `Encoded.deepstack` alike.

        kinds: "image" or "video", for each view; all pictures if empty.
        """
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        kinds = kinds or ["image"] * len(projected)
        return {
            kind: BaseModelOutputWithPooling(pooler_output=of_kind(projected, kinds, kind))
            for kind in dict.fromkeys(kinds)
        }

    def as_forward_reads(self, options: dict[str, Any]) -> dict[str, Any]:
        """A forward's arguments with `mm_encoder_outputs` in the shape it reads: generate splits and repeats a list."""
        return options

    def position_ids(self, given: Mapping[str, Any], mask: Tensor, *, generating: bool) -> Tensor:
        """(B or 1, T), or (axes, B, T): the whole prompt's positions as the model counts them where none are given.

        Args:    given: the call's arguments   mask: (B, T)   generating: whether `generate` counts, or `forward`
        """
        if generating:
            return (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)
        return self.first_position + torch.arange(mask.shape[1], device=mask.device)[None]

    @property
    def first_position(self) -> int:
        """The position that `forward` gives the first token where none are given."""
        return 0

    def settle(self, deltas: Tensor | None) -> None:  # noqa: B027 - most families keep no such state
        """Leave on the model what its own call would have: `deltas` (B, 1), positions less tokens, or None."""

    def embed(self, input_ids: Tensor, projected: Sequence[Tensor]) -> Tensor:
        """(B, L, d_llm): the prompt's embeddings with the visual tokens in their places, as the model's forward has."""
        slot = torch.isin(input_ids, torch.tensor(list(self.token_ids.values()), device=input_ids.device))
        table = self.model.get_input_embeddings()
        weight = getattr(table, "weight", None)  # of a quantised table a method
        rows = int(weight.shape[0] if isinstance(weight, Tensor) else table.num_embeddings)
        known = input_ids.masked_fill(slot, 0) if self.image_token_id >= rows else input_ids
        embeddings: Tensor = table(known)  # (B, L, d_llm)
        visual = torch.cat(list(projected)).to(embeddings.device, embeddings.dtype)  # (visual tokens, d_llm)
        return embeddings.masked_scatter(slot.unsqueeze(-1), visual)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this vision tower from others, fit for JSON; compare with `same_tower`."""
        vision = getattr(self.model.config, "vision_config", None)
        names = ("hidden_size", "embed_dim", "num_hidden_layers", "depth", "patch_size", "image_size")
        shape = {name: getattr(vision, name) for name in names if isinstance(getattr(vision, name, None), int)}
        return tower_fingerprint(self.tower, family=str(self.model.config.model_type), d=self.d_features, **shape)


def of_kind(values: Sequence[Tensor], kinds: Sequence[str], kind: str) -> list[Tensor]:
    """The views' values of one kind."""
    return [value for value, its in zip(values, kinds, strict=True) if its == kind]


def adapter_for(model: Any) -> Adapter:
    """The adapter of a transformers model: its family's, or the fallback's where the model's signature fits.

    A model inside PEFT's or torch.compile's wrapper is taken out of it: what is put on it, the wrapper runs through.

    Raises:  ValueError when the model is of no family that is known here, with the ones that are, or with what it lacks
    """
    model = unwrapped(model)
    kind = getattr(getattr(model, "config", None), "model_type", None)
    kind = getattr(getattr(getattr(model, "model", None), "multi_modal_projector", None), "family", kind)
    if kind not in FAMILIES and hasattr(getattr(model, "base_model", None), "get_image_features"):
        kind = "*"
    if kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES)[1:])
        raise ValueError(
            f"model must be of a known family ({known}) or have get_image_features, unlike {type(model).__name__}"
            + (f" of type {kind!r}." if kind else ".")
        )
    module, _, name = FAMILIES[kind].partition(":")
    check_release()
    adapter: Adapter = getattr(importlib.import_module(module), name)(model)
    require_arguments(model.forward, ("input_ids", "mm_encoder_outputs"), type(model).__name__)
    return adapter


def unwrapped(model: Any) -> Any:
    """The transformers model inside the wrappers of PEFT and torch.compile.

    Raises:  ValueError when PEFT puts virtual tokens before the prompt, whose columns nobody could tell from its own
    """
    while True:
        if "_orig_mod" in getattr(model, "_modules", {}):  # torch.compile(model)
            model = model._orig_mod
        elif hasattr(model, "get_base_model") and hasattr(model, "peft_config"):
            for name, config in model.peft_config.items():
                if config.is_prompt_learning:
                    raise ValueError(
                        f"the PEFT adapter {name!r} must not learn a prompt, as {config.peft_type.value} does: its "
                        "virtual tokens shift the prompt's columns."
                    )
            model = model.get_base_model()
        else:
            return model


def tower_fingerprint(tower: nn.Module, /, *, without: nn.Module | None = None, **shape: Any) -> dict[str, Any]:
    """`shape` and a few of the tower's weights: one from the middle of each of at most 32 parameters.

    A weight that is in few bits, or nowhere, is None. Of a tower with PEFT's adapters in it the weights are those
    below them; "adapters" then has some of theirs.   without: a part of the tower that does not count
    """
    own, adapters = _matrices(tower, without)
    with torch.no_grad():
        mark = {**shape, "sample": _sample(tower, own)}
        return {**mark, "adapters": _sample(tower, adapters)} if adapters else mark


def _matrices(tower: nn.Module, without: nn.Module | None) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters of more than one axis, those that dynamic quantisation has taken away too: (own, adapters').

    By the names that they have without adapters -> by those that they have.
    """
    left_out: set[nn.Module] = set() if without is None else set(without.modules())
    wrappers = [f"{name}." for name, module in tower.named_modules() if hasattr(module, "base_layer")]
    own, adapters = {}, {}
    for owner, module in tower.named_modules():
        if module in left_out:
            continue
        names = [name for name, p in module.named_parameters(recurse=False) if p.dim() > 1]
        if "weight" not in module._parameters and callable(getattr(module, "weight", None)):
            names.append("weight")
        for name in names:
            path = f"{owner}.{name}" if owner else name
            around = [start for start in wrappers if path.startswith(start)]
            if all(path.startswith(f"{start}base_layer.") for start in around):
                own[path.replace(".base_layer.", ".")] = path
            else:
                adapters[path] = path
    return own, adapters


def _sample(tower: nn.Module, names: Mapping[str, str]) -> list[float | None]:
    ordered = sorted(names)
    values = [_middle(tower, names[name]) for name in ordered[:: max(1, len(ordered) // 32)][:32]]
    return [None if value is None else float(f"{value:.6g}") for value in values]


def _middle(tower: nn.Module, name: str) -> float | None:
    """The value in the middle of a parameter, fetched from where accelerate keeps it if it does."""
    owner, _, own = name.rpartition(".")
    module = tower.get_submodule(owner)
    parameter = module._parameters.get(own)
    hook: Any = getattr(module, "_hf_hook", None)
    if parameter is not None and parameter.is_meta and getattr(hook, "weights_map", None) is not None:
        parameter = hook.weights_map[own]
    plain = parameter is not None and type(parameter) in (Tensor, nn.Parameter) and not parameter.is_meta
    if parameter is None or not plain or not parameter.is_floating_point():
        return None
    return float(parameter.reshape(-1)[parameter.numel() // 2])


def same_tower(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> bool:
    """Whether two fingerprints are of one vision tower, in whatever dtype each was loaded.

    Of a tower in few bits the weights that are not are compared. Adapters are no part of it: see `same_adapters`.
    """
    ignored = {"sample": None, "adapters": None}
    if not a or not b or {**a, **ignored} != {**b, **ignored}:
        return False
    return _alike(a.get("sample"), b.get("sample"))


def same_adapters(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two fingerprints of one tower have the same adapters in it, or none."""
    return _alike(a.get("adapters"), b.get("adapters"))


def _alike(x: Sequence[float | None] | None, y: Sequence[float | None] | None) -> bool:
    x, y = x or [], y or []
    if len(x) != len(y):
        return False
    known = [(one, other) for one, other in zip(x, y, strict=True) if None not in (one, other)]
    if not known:
        return bool(x == y)
    one, other = (torch.tensor(values) for values in zip(*known, strict=True))
    # bfloat16 keeps 8 bits: rounding moves a weight by at most 2**-9 of itself, .2 %, so 1 % passes and chance does not
    return bool(torch.isclose(one, other, rtol=1e-2, atol=1e-6).all())


def unlike(made_for: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Difference between two fingerprints, a clause."""
    names = [
        name
        for name in (*made_for, *mine)
        if name not in ("sample", "adapters") and made_for.get(name) != mine.get(name)
    ]
    if names:
        told = (f"{name} {made_for.get(name)!r}, here {mine.get(name)!r}" for name in dict.fromkeys(names))
        return "; ".join(told)
    return "the same shape, other weights"
