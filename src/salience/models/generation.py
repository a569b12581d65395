"""transformers' generation on a `MambaLM`, without being a transformers model."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salience.core.transformers_names import check_release, generated_cache_name
from salience.ssm.mamba import MambaState
from salience.ssm.projections import blank

if TYPE_CHECKING:
    from salience.models.mamba_lm import MambaLM


class Past:
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
            if generation_config.cache_implementation is not None:
                name = generation_config.cache_implementation
                raise ValueError(f"cache_implementation must be None: a Mamba has a state and no {name!r} cache.")
            if generation_config.use_cache is not False:
                model_kwargs[carried] = Past()

        def prepare_inputs_for_generation(
            self,
            input_ids: Tensor,
            next_sequence_length: int | None = None,
            attention_mask: Tensor | None = None,
            is_first_iteration: bool = False,
            **kwargs: Any,
        ) -> dict[str, Any]:
            past: Past | None = kwargs.get(carried)
            if past is not None and past.states is not None:
                return {"input_ids": input_ids[:, -1:], "past": past}
            keep = kwargs.get("logits_to_keep", 0)
            return {
                "input_ids": input_ids, "past": past, "attention_mask": attention_mask,
                "logits_to_keep": keep,
            }  # fmt: skip

        def forward(
            self,
            input_ids: Tensor,
            attention_mask: Tensor | None = None,
            past: Past | None = None,
            logits_to_keep: int = 0,
            use_cache: bool | None = None,
            return_dict: bool = True,
        ) -> Any:
            model = self.model
            if past is None:
                logits = model(input_ids, attention_mask, logits_to_keep=logits_to_keep).logits
                return ModelOutput(logits=logits)
            if past.states is None:
                out = model(input_ids, attention_mask, return_state=True, logits_to_keep=logits_to_keep)
                logits, past.states = out.logits, out.state
            else:
                logits = model.step(input_ids[:, -1], past.states)[:, None]
            return ModelOutput({"logits": logits, carried: past})

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                return self.forward(*args, **kwargs)

    return MambaGenerator
