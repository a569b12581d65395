"""`profile`: what pruning would save on a model, from its configuration alone, and beside the clock with weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from salience.core.backend import resolve_device
from salience.lab.profile.counted_stages import Counted, Language, Prompt
from salience.lab.profile.in_llm_counts import entering, in_llm_method
from salience.lab.profile.machine_load import Machine
from salience.lab.profile.operator_counts import Work
from salience.lab.profile.picture_arguments import DEFAULT_SIZE, Pictures
from salience.lab.profile.processor_settings import Prepared, prepared_by, prepared_in
from salience.lab.profile.roofline import Roof, measure_roof
from salience.lab.profile.skeleton import build, dtype_of, read_config
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod

_MEASURED = ("vision", "scorer", "projector", "llm")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What `profile` found, as a record of kind "profile": `config` says of what, `rows` one for each ratio.

    Every row has, for the whole batch up to the first token: keep, tokens_kept (of a picture), flops_vision,
    flops_scorer, flops_projector (on the kept tokens), flops_projector_all (on all tokens), flops_llm, flops_total,
    tokens_entered (the language model, more than tokens_kept where a method drops tokens inside it),
    kv_bytes (decoded tokens included), peak_bytes (weights included), flops_decode (of all decoded tokens),
    predicted_<stage>_ms, and where there are weights <stage>_ms and <stage>_measured_over_predicted. What was not
    measured is None. Stages are vision, scorer, projector, llm, and rest, which has no prediction.
    """

    config: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def record(self) -> dict[str, Any]:
        """For `results.json`."""
        return {"kind": "profile", "config": self.config, "rows": self.rows}


def profile(
    model: Any,
    *,
    keep: Sequence[float] = (1.0, 0.75, 0.5, 0.25, 0.1),
    method: str | InLLMMethod | None = None,
    text_tokens: int = 64,
    batch: int = 1,
    images: int = 1,
    decode: int = 0,
    picture: tuple[int, int] = DEFAULT_SIZE,
    dtype: torch.dtype | None = None,
    roof: Roof | None = None,
    processor: Any = None,
) -> Profile:
    """What pruning before the projector, or inside the language model, costs and saves at each ratio.

    FLOPs are 2 a multiply-add, attention as the full square, every layer that runs, the head for the last token. They
    are counted on shapes, so that a 7B model takes seconds and no weights. A stage's predicted time lets every operator
    take as long as its operations or its bytes need at `roof`, and at least its launch.

    A CPU's time is predicted in float32, which is what its kernels are fast in; the bytes are those of `dtype`.

    Args:    model: a transformers vision-language model, whose stages are timed too, or a folder with a config.json, or
                    a hub id, of which only the configuration is read
             keep: ratios in (0, 1]
             method: "fastv", "pyramiddrop", "sparsevlm" or an `InLLMMethod`: keep is what it leaves behind its last
                     stage, and reading the attention counts as work of the language model; None: a scorer,
                     before the projector
             text_tokens, images: of each row, at least 1   batch: rows, at least 1
             decode: tokens that follow the prompt
             picture: width and height in pixels, for models whose tokens depend on them; others scale it to their own
             processor: whose settings (sizes, crops, tiles, splitting) say what the model is shown; None for the one in
                    the model's folder, or of its hub id, and for what is usual in its family where there is none,
                    as the record's `processor` says
             dtype: None for the model's own   roof: a device's limits; None measures this machine's, in about a second
    Returns: `Profile`
    Raises:  ValueError when an argument is out of its range, or there is no configuration of a vision-language model
    """
    budgets, inside, prompt = check_arguments(
        keep, method, text_tokens=text_tokens, batch=batch, images=images, decode=decode
    )
    pictures = Pictures(count=batch * images, size=picture)
    real = isinstance(model, torch.nn.Module)
    config = model.config if real else read_config(model)
    shown = _prepared(model, config, picture, processor)
    pictures = replace(pictures, prepared=shown.values)
    kind = dtype or (model.dtype if real else dtype_of(config))
    with _counting(config):
        counted = Counted(build(config, kind, type(model) if real else None), prompt, pictures)
    device = model.device if real else resolve_device("auto")
    runs_in = torch.float32 if device.type == "cpu" and not real else kind
    roof, busy = (roof, None) if roof else _measured_roof(device, runs_in)
    widen = runs_in.itemsize / kind.itemsize
    with _counting(config):
        rows = [_row(counted, budget, inside, prompt, roof, widen) for budget in budgets]
    real_clock = real and device.type != "meta"
    counts = [row["tokens_kept"] for row in rows]
    clock = _clock(model, counted, prompt, pictures, counts, inside) if real_clock else None
    for row in rows:
        row.update(_beside(row, clock[row["tokens_kept"]] if clock else {}))
    name = (getattr(model, "name_or_path", "") or type(model).__name__) if real else str(model)
    about = _config(name, config, counted, prompt, pictures, kind, roof)
    about |= {"processor": shown.name or None, "processor_note": shown.note or None, **(busy or QUIET)}
    return Profile(config={**about, "method": None if inside is None else inside.name}, rows=rows)


@contextmanager
def _counting(config: Any) -> Iterator[None]:
    """Turn what a class raises when its shapes do not fit each other, or a picture, into one sentence.

    Raises:  ValueError in place of any other error
    """
    try:
        yield
    except (ValueError, ImportError):  # sentences already
        raise
    except Exception as error:  # transformers' classes raise whatever the first operator that does not fit raises
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].rstrip('.')}"
        raise ValueError(
            f"model: a picture can't be run through a {config.model_type!r} of this configuration ({reason})."
        ) from error


#: What the record says of the machine where no limits were measured.
QUIET: dict[str, Any] = {"load_average": None, "roof_spread": None, "busy_because": None}


def _measured_roof(device: torch.device, dtype: torch.dtype) -> tuple[Roof, dict[str, Any]]:
    """This machine's limits, and whether it had something else to do while they were measured.

    On a busy machine they are what was left of it, and every predicted time is longer than on an idle one.
    """
    machine = Machine()
    roof = measure_roof(device, dtype)
    seen = machine.observed()
    return roof, {
        "load_average": seen["load_average_start"], "roof_spread": seen["floor_spread"],
        "busy_because": seen["busy_because"],
    }  # fmt: skip


def _prepared(model: Any, config: Any, size: tuple[int, int], processor: Any) -> Prepared:
    """The picture as the model's own processor prepares it, where there is one."""
    if processor is not None:
        return prepared_by(processor, size)
    real = isinstance(model, torch.nn.Module)
    source = getattr(model, "name_or_path", "") if real else model
    if not source:
        return Prepared(values={}, note="the model has no folder with a processor; pass processor=...")
    return prepared_in(source, config.model_type, size, local=real)


def check_arguments(
    keep: Sequence[float], method: str | InLLMMethod | None, **prompt: int
) -> tuple[list[Budget], InLLMMethod | None, Prompt]:
    """Check the arguments that need no model: ratios, method inside the language model, prompt.

    Raises:  ValueError when one is out of its range
    """
    budgets, inside = [Budget(keep=share) for share in keep], None if method is None else in_llm_method(method)
    if not budgets:
        raise ValueError("keep must name at least one ratio above 0 and at most 1.")
    return budgets, inside, Prompt(**prompt)


def _row(
    counted: Counted, budget: Budget, inside: InLLMMethod | None, prompt: Prompt, roof: Roof, widen: float
) -> dict[str, Any]:
    kept = budget.count(counted.n)
    language: Language = counted.language(kept, inside)
    entered = kept if inside is None else entering(inside, kept, counted.n)
    projector = counted.projector.scaled(entered / counted.n)
    scorer = Work() if inside is not None and entered == counted.n else counted.scorer
    work = {"vision": counted.vision, "scorer": scorer, "projector": projector, "llm": language.prefill}
    ms = {f"predicted_{stage}_ms": 1e3 * part.seconds(roof, widen) for stage, part in work.items()}
    return {
        "keep": budget.keep,
        "tokens_kept": kept,
        "tokens_entered": entered,
        **{f"flops_{stage}": part.flops for stage, part in work.items()},
        "flops_total": sum(part.flops for part in work.values()),
        "kv_bytes": language.kv_bytes,
        "peak_bytes": max(language.peak_bytes, counted.tower_peak_bytes),
        "flops_projector_all": counted.projector.flops,
        "flops_decode": language.decode_flops(prompt.decode),
        **ms,
        "predicted_first_token_ms": sum(ms.values()),
        "predicted_decode_ms_per_token": 1e3 * language.step.seconds(roof, widen) if prompt.decode else None,
    }


def _clock(
    model: Any, counted: Counted, prompt: Prompt, pictures: Pictures, kept: Sequence[int], inside: InLLMMethod | None
) -> dict[int, dict[str, float]]:
    from salience.lab.profile.measured_stages import measure_stages

    return measure_stages(model, prompt, pictures, sorted(set(kept)), counted.n, counted.width, method=inside)


def _beside(row: dict[str, Any], clock: dict[str, float]) -> dict[str, Any]:
    """The measured columns, and how many times longer than predicted each took; None without a clock."""
    stages = ("vision", "scorer", "projector", "llm", "rest")
    found: dict[str, Any] = {f"{stage}_ms": clock.get(stage) for stage in stages}
    found["first_token_ms"] = sum(clock[stage] for stage in stages) if clock else None
    found["decode_ms_per_token"] = clock.get("decode")
    for stage in _MEASURED:
        measured, predicted = found[f"{stage}_ms"], row[f"predicted_{stage}_ms"]
        found[f"{stage}_measured_over_predicted"] = measured / predicted if clock and predicted else None
    return found


def _config(
    name: str, config: Any, counted: Counted, prompt: Prompt, pictures: Pictures, dtype: torch.dtype, roof: Roof
) -> dict[str, Any]:
    tokens = vision_dominates_at(counted)
    return {
        "model": name,
        "model_type": config.model_type,
        "dtype": str(dtype).removeprefix("torch."),
        "n_visual_tokens": counted.n,
        **vars(prompt),
        "picture": list(pictures.size) if pictures.takes_any_size(config) else None,
        "d_features": counted.width,
        "parameters": sum(parameter.numel() for parameter in counted.model.parameters()),
        "vision_dominates_at_tokens": tokens,
        "vision_dominates_at_keep": tokens / counted.n,
        "roof": vars(roof),
    }


def vision_dominates_at(counted: Counted) -> int:
    """The most tokens of a picture whose work after the tower is no more than the tower's own; 0 where even one is.

    With as many or fewer, pruning all the rest away would save less than the tower takes. The language model's work is
    a square of the number of tokens, so three counts tell all of them: those of the rows, where there are three.
    """
    n = counted.n
    (x, y), *others = ((kept, counted.language(kept).prefill.flops) for kept in _three(n, counted.counts))
    slopes = [((other - y) / (kept - x), kept) for kept, other in others]  # y + slope (kept - x) through each
    (first, middle), (second, last) = slopes[0], slopes[-1]
    b = (second - first) / (last - middle) if last != middle else 0.0  # text + a k + b k^2 through all
    a = first - b * (x + middle) + counted.projector.flops / n
    kept = 0
    while kept < n and a * (kept + 1) + b * (kept + 1) ** 2 <= counted.vision.flops:
        kept += 1
    return kept


def _three(n: int, known: Sequence[int]) -> list[int]:
    """Three counts of tokens, fewer where there are no three from 0 to n, those that are known first."""
    return list(dict.fromkeys([*known, n, 0, max(1, n // 2)]))[:3]
