"""transformers' generation on a `MambaLM`, without being a transformers model."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salience.core.transformers_names import CACHE_NAMES, check_release, generated_cache_name
from salience.ssm.layers.mamba import MambaState
from salience.ssm.layers.projections import blank

if TYPE_CHECKING:
    from salience.ssm.models.mamba_lm import MambaLM


class StateCache:
    """The states that a generation carries, None before the prompt; what transformers expects of a cache is here."""

    is_compileable = is_croppable = False
    is_linear = (True,)  # no keys and values: `generate` then asks for no length

    def __init__(self) -> None:
        self.states: list[MambaState] | None = None

    def reorder_cache(self, rows: Tensor) -> None:
        """Each beam goes on from the beam it came from; rows (B,)."""
        if self.states is not None:
            self.states = [state.take(rows) for state in self.states]


def generator(model: MambaLM) -> Any:
    """An object with transformers' `generate`, on this model.

    Raises:  RuntimeError when transformers is not installed
    """
    check_release()
    try:
        return _kind()(model)
    except ImportError as error:
        raise RuntimeError("generate needs transformers: pip install 'salience[vlm]'.") from error


@cache
def _kind() -> Any:
    from transformers import GenerationConfig, GenerationMixin
    from transformers import MambaConfig as Config
    from transformers.utils import ModelOutput

    carried = generated_cache_name(GenerationMixin)

    class MambaGenerator(GenerationMixin):  # type: ignore[misc]
        """Made for one call of `generate`: holds the model, owns nothing."""

        main_input_name = "input_ids"
        base_model_prefix = "backbone"
        _is_stateful = True  # transformers then refuses what would take back tokens

        def __init__(self, model: MambaLM) -> None:
            self.model = model
            weights = blank(model.lm_head, model)
            self.device, self.dtype = weights.device, weights.dtype
            shape = model.config
            self.config = Config(
                vocab_size=shape.rows, hidden_size=shape.d_model, num_hidden_layers=shape.n_layers,
                state_size=shape.d_state,
            )  # fmt: skip
            self.generation_config = GenerationConfig.from_dict(dict(model.generation_config))

        def can_generate(self) -> bool:
            return True

        def is_remote_code(self) -> bool:
            return False

        def get_experts_implementation(self) -> dict[str, str]:
            return {}

        def _prepare_cache_for_generation(
            self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any
        ) -> None:
            _refuse(generation_config)
            if generation_config.use_cache is not False:
                model_kwargs[carried] = StateCache()

        def prepare_inputs_for_generation(
            self,
            input_ids: Tensor,
            next_sequence_length: int | None = None,
            attention_mask: Tensor | None = None,
            inputs_embeds: Tensor | None = None,
            is_first_iteration: bool = False,
            **kwargs: Any,
        ) -> dict[str, Any]:
            past: StateCache | None = kwargs.get(carried)
            hidden = {"output_hidden_states": True} if kwargs.get("output_hidden_states") else {}
            if past is not None and past.states is not None:
                return {"input_ids": input_ids[:, -1:], "past": past, **hidden}
            prompt = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
            keep = kwargs.get("logits_to_keep", 0)
            return {**prompt, "past": past, "attention_mask": attention_mask, "logits_to_keep": keep, **hidden}

        def forward(
            self,
            input_ids: Tensor | None = None,
            attention_mask: Tensor | None = None,
            past: StateCache | None = None,
            inputs_embeds: Tensor | None = None,
            logits_to_keep: int = 0,
            output_hidden_states: bool = False,
            use_cache: bool | None = None,
            return_dict: bool = True,
        ) -> Any:
            model, begun = self.model, past is not None and past.states is not None
            if begun and not output_hidden_states:
                assert past is not None and past.states is not None and input_ids is not None
                logits = model.step(input_ids[:, -1], past.states)[:, None]
                return ModelOutput({"logits": logits, carried: past})
            out = model(
                input_ids, None if begun else attention_mask, state=None if past is None else past.states,
                inputs_embeds=inputs_embeds, return_state=past is not None, logits_to_keep=logits_to_keep,
                output_hidden_states=output_hidden_states,
            )  # fmt: skip
            found = {"logits": out.logits}
            if past is not None:
                past.states = out.state
                found[carried] = past
            if output_hidden_states:
                found["hidden_states"] = out.hidden_states
            return ModelOutput(found)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            name = next((name for name in CACHE_NAMES if name in kwargs), None)
            with torch.no_grad():
                return self.forward(*args, **kwargs) if name is None else self._unguided(name, *args, **kwargs)

        def _unguided(self, name: str, input_ids: Tensor, use_cache: bool = True, **kwargs: Any) -> Any:
            """State of guidance's other prompt: it has a state of its own, handed back under its name."""
            past: StateCache | None = kwargs.pop(name)
            if input_ids.shape[1] == 0:
                raise ValueError("guidance_scale needs negative_prompt_ids where the prompt is given by inputs_embeds.")
            if past is None and use_cache:
                past = StateCache()
            return ModelOutput({"logits": self.forward(input_ids, past=past, **kwargs).logits, name: past})

    return MambaGenerator


def _refuse(config: Any) -> None:
    """Raise a ValueError for options that a Mamba cannot follow; they would be ignored, or fail further down."""
    if config.cache_implementation not in (None, "dynamic"):
        name = config.cache_implementation
        raise ValueError(f"cache_implementation must be None or 'dynamic': a Mamba has a state and no {name!r} cache.")
    if config.output_attentions:
        raise ValueError("output_attentions must be left out: a Mamba has no attention.")
    if config.prefill_chunk_size is not None:
        raise ValueError("prefill_chunk_size must be left out: a Mamba reads its prompt at once.")
    if config.guidance_scale not in (None, 1) and (config.num_beams or 1) > 1:
        raise ValueError(
            "num_beams must be 1 with guidance_scale: transformers does not move the unguided states with their beams."
        )
