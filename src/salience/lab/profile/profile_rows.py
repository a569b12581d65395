"""A profile's row: counted work, predicted times and measured times at one keep ratio."""

from __future__ import annotations

from collections.abc import Mapping

from salience.core.result_rows import ProfileRow
from salience.lab.profile.counted_stages import CountedModel
from salience.lab.profile.in_llm_counts import entering
from salience.lab.profile.operator_counts import Work
from salience.lab.profile.roofline import Roofline
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.in_llm_method import InLLMMethod

#: Stages up to the first token; "rest" (ranking, gathering, placing) is timed but not predicted.
STAGES = ("vision", "scorer", "projector", "llm", "rest")


def profile_row(
    counted: CountedModel,
    budget: Budget,
    method: InLLMMethod | None,
    roof: Roofline,
    widen: float,
    measured: Mapping[str, float],
) -> ProfileRow:
    """The row of one budget.

    Args:    method: the method inside the language model; None for a scorer   widen: see `Work.seconds`
             measured: milliseconds by stage, with "decode" for a token; empty if nothing was timed
    """
    kept = budget.count(counted.n)
    llm = counted.language(kept, method)
    entered = kept if method is None else entering(method, kept, counted.n)
    work = {
        "vision": counted.vision,
        "scorer": Work() if method is not None and entered == counted.n else counted.scorer,
        "projector": counted.projector.scaled(entered / counted.n),
        "llm": llm.prefill,
    }
    predicted = {stage: 1e3 * part.seconds(roof, widen) for stage, part in work.items()}
    ratios = {stage: measured[stage] / predicted[stage] for stage in work if measured and predicted[stage]}
    decode = counted.prompt.decode
    return ProfileRow(
        keep=budget.keep or 0.0,
        tokens_kept=kept,
        tokens_entered=entered,
        flops_total=sum(part.flops for part in work.values()),
        kv_bytes=llm.kv_bytes,
        peak_bytes=max(llm.peak_bytes, counted.tower_peak_bytes),
        flops_projector_all=counted.projector.flops,
        flops_decode=llm.decode_flops(decode),
        predicted_first_token_ms=sum(predicted.values()),
        predicted_decode_ms_per_token=1e3 * llm.step.seconds(roof, widen) if decode else None,
        first_token_ms=sum(measured[stage] for stage in STAGES) if measured else None,
        decode_ms_per_token=measured.get("decode"),
        **{f"flops_{stage}": part.flops for stage, part in work.items()},
        **{f"predicted_{stage}_ms": ms for stage, ms in predicted.items()},
        **{f"{stage}_ms": measured.get(stage) for stage in STAGES},
        **{f"{stage}_measured_over_predicted": ratio for stage, ratio in ratios.items()},
    )
