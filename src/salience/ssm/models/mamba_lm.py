"""A Mamba language model: published weights in, logits and generated text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from salience.core.gradients import no_gradients
from salience.ssm.layers.mamba import Mamba, MambaState
from salience.ssm.layers.projections import project
from salience.ssm.layers.rms_norm import RMSNorm
from salience.ssm.models import weights as files
from salience.ssm.models.decoding import decoder
from salience.ssm.models.mamba_config import MambaConfig, read_config, write_config

GENERATION = "generation_config.json"
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class _Three(NamedTuple):
    loss: Tensor | None
    logits: Tensor
    state: list[MambaState] | None = None


class MambaOutput(_Three):
    """loss: () or None   logits: (B, L, rows) float32   state: one `MambaState` a layer, or None.

    hidden_states, which unpacking leaves out: (B, L, d_model) behind each layer, then behind the last norm, or None.
    """

    hidden_states: tuple[Tensor, ...] | None = None


class MambaBlock(nn.Module):
    """x + mixer(norm(x))."""

    def __init__(self, config: MambaConfig, backend: str) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        names = "d_state d_conv expand dt_rank dt_min dt_max dt_floor bias conv_bias".split()
        self.mixer = Mamba(config.d_model, **{name: getattr(config, name) for name in names}, backend=backend)


class Backbone(nn.Module):
    """Embedding, blocks, and the last norm."""

    def __init__(self, config: MambaConfig, backend: str) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.rows, config.d_model)
        self.layers = nn.ModuleList([MambaBlock(config, backend) for _ in range(config.n_layers)])
        self.norm_f = RMSNorm(config.d_model, config.norm_eps)


class MambaLM(nn.Module):
    """A Mamba language model of any published shape; `MambaLM(vocab_size=..., d_model=..., ...)` starts a new one.

    Source: Gu and Dao, arXiv:2312.00752; parameters are named as in the -hf layout and started as the published ones.

    Args:    vocab_size, d_model, n_layers, ...: see `MambaConfig`   backend: see `Mamba`
    Raises:  ValueError when a size is not a whole number of at least 1
    """

    def __init__(self, *, backend: str = "auto", **config: Any) -> None:
        super().__init__()
        self.config, self.backend = MambaConfig(**config), backend
        self.generation_config: dict[str, Any] = {}  # what transformers' GenerationConfig takes, eos_token_id say
        self.backbone = Backbone(self.config, backend)
        self.lm_head = nn.Linear(self.config.d_model, self.config.rows, bias=False)
        self._tie()
        self._start()

    def _tie(self) -> None:
        if self.config.tie_embeddings:
            self.lm_head.weight = self.backbone.embeddings.weight

    @torch.no_grad()
    def _start(self) -> None:
        """Embeddings and the residual branches' last matrices as the published models start them."""
        nn.init.normal_(self.backbone.embeddings.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Mamba):
                module.out_proj.weight /= math.sqrt(self.config.n_layers)
                for projection in (module.in_proj, module.out_proj):
                    if projection.bias is not None:
                        projection.bias.zero_()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        state: Sequence[MambaState] | None = None,
        *,
        inputs_embeds: Tensor | None = None,
        seq_idx: Tensor | None = None,
        return_state: bool = False,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
    ) -> MambaOutput:
        """Logits of every step; with labels the mean cross entropy of predicting the next one.

        Args:    input_ids: (B, L) int64   attention_mask: (B, L), 0 for padding, on any side or inside
                 labels: (B, L), shifted in here; -100 is not counted   state: of the chunk before, left as it is
                 seq_idx: (B, L), a new sequence beginning where it changes
                 inputs_embeds: (B, L, d_model), in place of input_ids
                 logits_to_keep: logits of the last so many steps only, 0 for all
        Returns: (loss, logits, state), state with return_state; `.hidden_states` with output_hidden_states
        Raises:  ValueError for shapes that disagree
        """
        whose, shape = self._shape(input_ids, inputs_embeds)
        for name, other in (("attention_mask", attention_mask), ("labels", labels)):
            if other is not None and other.shape != shape:
                raise ValueError(f"{name} must be {tuple(shape)} as {whose}, not {tuple(other.shape)}.")
        if state is not None and len(state) != self.config.n_layers:
            raise ValueError(f"state must have {self.config.n_layers} layers' states, not {len(state)}.")
        mask = None if attention_mask is None else attention_mask != 0
        x = self.backbone.embeddings(input_ids) if inputs_embeds is None else inputs_embeds  # (B, L, d_model)
        after: list[MambaState] = []
        hidden: list[Tensor] = []
        for i, block in enumerate(self._blocks):
            before = None if state is None else state[i]
            y = block.mixer(block.norm(x), mask=mask, seq_idx=seq_idx, state=before, return_state=return_state)
            if return_state:
                y, new = y
                after.append(new)
            x = self._residual(x) + y
            if output_hidden_states:
                hidden.append(x)
        if output_hidden_states:
            hidden.append(self.backbone.norm_f(x))
        x = x[:, -logits_to_keep:]
        logits = self._logits(x)
        loss = None if labels is None else _next_token_loss(logits, labels)
        out = MambaOutput(loss, logits, after if return_state else None)
        if output_hidden_states:
            out.hidden_states = tuple(hidden)
        return out

    def _shape(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> tuple[str, torch.Size]:
        """The input that is read, and its (B, L). Raises: ValueError unless it is one of the two."""
        if (input_ids is None) == (inputs_embeds is None):
            came = "neither of them" if input_ids is None else "both"
            raise ValueError(f"either input_ids or inputs_embeds must be given, not {came}.")
        if input_ids is not None:
            if input_ids.ndim != 2 or input_ids.shape[1] == 0:
                raise ValueError(f"input_ids must be (B, L) with L of at least 1, not {tuple(input_ids.shape)}.")
            return "input_ids", input_ids.shape
        assert inputs_embeds is not None
        width = self.config.d_model
        if inputs_embeds.ndim != 3 or inputs_embeds.shape[1] == 0 or inputs_embeds.shape[2] != width:
            shape = tuple(inputs_embeds.shape)
            raise ValueError(f"inputs_embeds must be (B, L, {width}) with L of at least 1, not {shape}.")
        return "inputs_embeds", inputs_embeds.shape[:2]

    @no_gradients
    def step(self, input_ids: Tensor, state: Sequence[MambaState]) -> Tensor:
        """One more token a row, ids (B,) -> logits (B, rows); `state` moves on in place. No gradients."""
        if (whole := decoder(self, input_ids, state)) is not None:
            return whole(input_ids)
        x = self.backbone.embeddings(input_ids.contiguous())  # (B, d_model)
        for block, own in zip(self._blocks, state, strict=True):
            x = self._residual(x) + block.mixer.step(block.norm(x), own)
        return self._logits(x)

    def init_state(self, batch: int) -> list[MambaState]:
        """Every layer's state before the first token."""
        return [block.mixer.init_state(batch) for block in self._blocks]

    @property
    def _blocks(self) -> list[MambaBlock]:
        return cast("list[MambaBlock]", self.backbone.layers)

    def _logits(self, x: Tensor) -> Tensor:
        """(..., d_model) after the last block -> (..., rows), in float32 at least."""
        logits = project(self.lm_head, self.backbone.norm_f(x), self.backend)
        return logits if logits.dtype == torch.float64 else logits.float()

    def _residual(self, x: Tensor) -> Tensor:
        return x.float() if self.config.residual_in_fp32 and x.dtype != torch.float64 else x

    def generate(self, input_ids: Tensor | None = None, **options: Any) -> Any:
        """transformers' own `generate`: greedy, sampling, beams, streamers; batches padded on the left.

        `guidance_scale` reads its other prompt with a state of its own, as without a cache; with one, transformers'
        Mamba reads only the last token of it again and again.

        Args:    input_ids: (B, L)   options: attention_mask, max_new_tokens, do_sample, num_beams, streamer, ...;
                 inputs_embeds: (B, L, d_model), in place of the prompt or of its embeddings
        Returns: (B, L + new) int64 ((B, new) of inputs_embeds alone), or what transformers returns with
                 return_dict_in_generate
        Raises:  ValueError as transformers does, and for options that a Mamba cannot follow; RuntimeError where
                 transformers is not installed
        """
        from salience.ssm.models.generation import generator

        given = options if input_ids is None else {"input_ids": input_ids, **options}
        return generator(self).generate(**given)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path,
        *,
        dtype: torch.dtype | None = None,
        allow_pickle: bool = False,
        revision: str | None = None,
        backend: str = "auto",
    ) -> MambaLM:
        """A model from a folder or the hub, in the -hf layout or state-spaces' own, in evaluation mode on the CPU.

        Args:    dtype: of the weights, None for the files'   allow_pickle: also read a .bin, through
                 torch.load(weights_only=True)   revision: the hub's
        Raises:  ValueError when there is none, a field or a weight is unknown, missing or of another shape
        """
        folder, told = files.find_model(path_or_id, revision=revision, allow_pickle=allow_pickle)
        config = read_config(told, str(folder / files.CONFIG))
        with torch.device("meta"):
            model = cls(backend=backend, **vars(config))
        weights = files.read_weights(folder, allow_pickle=allow_pickle)
        if files.ORIGINAL_EMBEDDING in weights:
            weights[files.EMBEDDING] = weights.pop(files.ORIGINAL_EMBEDDING)
        _head(weights, config, folder)
        files.check_weights(weights, model.state_dict(), str(folder))
        if dtype is not None:
            weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
        model.load_state_dict(weights, assign=True)
        model._tie()
        model.generation_config = {name: told[name] for name in _TOKENS if told.get(name) is not None}
        if (folder / GENERATION).is_file():
            model.generation_config = files.read_object(folder / GENERATION)
        return model.eval()

    def save_pretrained(self, folder: str | Path, *, layout: str = "hf") -> Path:
        """Write config.json, model.safetensors and generation_config.json; each aside, then renamed, the weights first.

        Args:    layout: "hf", which transformers reads, or "original", state-spaces' own
        Raises:  ValueError for another layout, where it cannot say what this model is, or for one with parts that are
                 wrapped, in few bits or elsewhere (LoRA, quantisation, offloading)
        """
        if layout not in files.LAYOUTS:
            raise ValueError(f'layout must be "hf" or "original", not {layout!r}.')
        target, config = Path(folder), write_config(self.config, layout)
        files.require_own_weights(self, lambda: MambaLM(**vars(self.config)))
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        if self.config.tie_embeddings:
            if layout == "hf":
                del weights[files.HEAD]
            else:
                weights[files.HEAD] = weights[files.HEAD].clone()  # that layout has both, and safetensors nothing twice
        tokens = {name: self.generation_config[name] for name in _TOKENS if name in self.generation_config}
        if layout == "hf":
            config |= {name: tokens.get(name) for name in _TOKENS}
            config["dtype"] = str(self.backbone.embeddings.weight.dtype).removeprefix("torch.")
        else:
            weights[files.ORIGINAL_EMBEDDING] = weights.pop(files.EMBEDDING)
        files.write_weights(target / files.SAFE, weights)
        files.write_object(target / GENERATION, self.generation_config)
        files.write_object(target / files.CONFIG, config)
        return target


def _head(weights: dict[str, Tensor], config: MambaConfig, folder: Path) -> None:
    """Complete a tied head. Raises: ValueError for one that differs from the embedding."""
    if not config.tie_embeddings or files.EMBEDDING not in weights:
        return
    embedding, name = weights[files.EMBEDDING], files.HEAD
    if not torch.equal(weights.setdefault(name, embedding), embedding):
        raise ValueError(f"{folder} has a {name} that is not its embedding, and its {files.CONFIG} says they are one.")
    weights[name] = embedding


def _next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, L, rows), (B, L) -> the mean cross entropy of each step's logits with the next step's label."""
    if labels.shape[1] != logits.shape[1]:
        raise ValueError("logits_to_keep must be 0 where labels are given.")
    shifted = F.pad(labels, (0, 1), value=-100)[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), shifted.flatten(), ignore_index=-100)
