"""lmms-eval's tasks on a pruned model: `lmms-eval --model salience_llava --model_args pretrained=...,keep=0.25`.

Only lmms-eval imports this module (see `plugin.py`). Written against the interface of lmms-eval 0.7.3: `loglikelihood`
and `generate_until` get requests whose `args` are (context, answer or generation arguments, document -> pictures,
document number, task, split). Run with 0.7.3 itself: `generate_until` works; a task of choices fails there, since 0.7.3
makes a text of every pair that `loglikelihood` gives (`unwrap_generation_output`). lmms-eval itself divides the
requests among several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lmms_eval.api.model import lmms

from salience.core.backend import resolve_device
from salience.lab.evaluate.prompts import prompt_inputs
from salience.lab.evaluate.teacher_forcing import loglikelihood
from salience.vlm.prune import prune

#: Limit of an answer, in tokens, where a task sets none.
MOST = 256


class SalienceLlava(lmms):  # type: ignore[misc]
    """Any model that `salience.prune` takes, asked with a part of its visual tokens.

    Args:    pretrained: folder or hub id   method, keep, tokens, positions, seed: as `salience.prune` has them; with
             neither keep nor tokens nothing is pruned   device, dtype: "auto", or by name   batch_size: 1
    Raises:  ValueError for a batch size above 1, arguments that are not known, or what `salience.prune` refuses
    """

    is_simple = True

    def __init__(
        self, pretrained: str, method: str = "auto", keep: float | str | None = None, tokens: int | str | None = None,
        positions: str = "auto", seed: int | str = 0, device: str = "auto", dtype: str = "auto",
        batch_size: int | str = 1, **unknown: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if unknown:
            raise ValueError(f"salience_llava does not know {', '.join(sorted(unknown))}.")
        if int(batch_size) != 1:
            raise ValueError(f"batch_size must be 1, not {batch_size!r}.")
        from transformers import AutoModelForImageTextToText, AutoProcessor

        where, self._rank, self._world_size = _place(device)
        kind = dtype if dtype == "auto" else getattr(torch, dtype)
        self.model: Any = AutoModelForImageTextToText.from_pretrained(pretrained, dtype=kind).eval().to(where)
        self.processor: Any = AutoProcessor.from_pretrained(pretrained)
        self.pruned: Any = None
        if keep is not None or tokens is not None:
            self.pruned = prune(
                self.model, method, keep=None if keep is None else float(keep),
                tokens=None if tokens is None else int(tokens), positions=positions, seed=int(seed),  # type: ignore[arg-type]
            )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        found: torch.device = self.model.device
        return found

    @property
    def batch_size(self) -> int:
        """Always 1."""
        return 1

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return the answer to each request, up to the first of its stop strings."""
        said = []
        for context, options, pictures, document, task, split in (request.args for request in requests):
            inputs = self._inputs(context, pictures, self.task_dict[task][split][document])
            text = self._said(inputs, dict(options))
            said.append(text)
            self.cache_hook.add_partial("generate_until", (context, options), text)
        return said

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Return for each request the mean of -log P over its tokens, and whether it is the greedy answer.

        lmms-eval takes the choice with the smallest number, as of a loss.
        """
        found = []
        for context, target, pictures, document, task, split in (request.args for request in requests):
            content = self.task_dict[task][split][document]
            text = target if isinstance(target, str) else target(content)
            tokens = len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
            inputs = self._inputs(context, pictures, content)
            likely, greedy = loglikelihood(self.model, self.processor.tokenizer, inputs, text)
            found.append((-float(likely[0]) / tokens, bool(greedy[0])))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not supported.

        Raises:  ValueError always
        """
        raise ValueError("salience_llava does not answer tasks of several rounds.")

    def _inputs(self, context: str, pictures: Any, content: Any) -> dict[str, Any]:
        """A task's text with its picture before it."""
        seen = list(pictures(content) or ())
        if len(seen) != 1 or isinstance(seen[0], str):
            raise ValueError(f"salience_llava answers questions about one picture, not {len(seen)} or a video.")
        token = str(getattr(self.processor, "image_token", "<image>"))
        question = context.replace(token, " ").strip()
        inputs: Any = prompt_inputs(self.processor, [seen[0].convert("RGB")], [question])
        return dict(inputs.to(self.model.device, dtype=self.model.dtype))

    @torch.no_grad()
    def _said(self, inputs: dict[str, Any], options: dict[str, Any]) -> str:
        stops = options.get("until") or []
        stops = [stops] if isinstance(stops, str) else list(stops)
        warm = float(options.get("temperature") or 0)
        sampling = {"temperature": warm, "top_p": options.get("top_p") or 1.0} if warm > 0 else {}
        ids = self.model.generate(
            **inputs, max_new_tokens=int(options.get("max_new_tokens") or MOST), do_sample=warm > 0,
            num_beams=int(options.get("num_beams") or 1), **sampling,
        )  # fmt: skip
        text: str = self.processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for stop in stops:
            text = text.split(stop)[0] if stop else text
        return text.strip()


def _place(device: str) -> tuple[torch.device, int, int]:
    """(device, rank, world size) of this process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank = torch.distributed.get_rank()
        local = torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"
        return torch.device(local), rank, torch.distributed.get_world_size()
    return resolve_device(device), 0, 1
