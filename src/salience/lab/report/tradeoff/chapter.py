"""A trade-off record as what the page's template shows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.method_styles import phrase, title
from salience.lab.report.kit.standing import notices
from salience.lab.report.kit.words import milliseconds, score, share, times
from salience.lab.report.load import Record, Results
from salience.lab.report.tradeoff import about
from salience.lab.report.tradeoff.answer import Tile, answer, headline, tiles
from salience.lab.report.tradeoff.columns import Table, csv, table
from salience.lab.report.tradeoff.figures import Drawn, draw_all
from salience.lab.report.tradeoff.findings import findings
from salience.lab.report.tradeoff.samples import Sample, Strip, sample
from salience.lab.report.tradeoff.series import View, kind_column
from salience.lab.report.tradeoff.strip import draw_strip

_SECTIONS = {
    "findings": "Findings", "latency": "Loss and latency", "tokens": "Tokens kept", "cost": "Time and FLOPs",
    "kinds": "Kinds of question", "inside": "Inside", "samples": "Samples", "table": "Table", "method": "Method",
}  # fmt: skip
#: The figures of each section.
_LATENCY, _TOKENS = ("loss_latency", "accuracy_latency"), ("accuracy_tokens", "loss_tokens")
_COST, _INSIDE = ("time_stages", "flop_stages", "speedups"), ("answer_kl", "feature_cosine", "saliency_mass")
#: Samples that stand open on the page; the others are folded away.
OPEN_SAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class KindCell:
    """A kind's accuracy at a ratio: its text, itself in 0..1, whether it is at the majority line."""

    text: str
    level: float
    idle: bool


@dataclass(frozen=True, kw_only=True)
class KindRow:
    """A kind of question with its cells and its baselines."""

    kind: str
    cells: tuple[KindCell, ...]
    majority: str
    question_only: str


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """One ratio's times and speed-ups as texts."""

    keep: str
    tokens: str
    first: str
    first_faster: str
    first_told: str
    prefill: str
    prefill_faster: str
    four_faster: str
    prefill_told: str


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Everything that the page says of one trade-off record."""

    id: str
    model: str
    task: str
    subject: str
    notices: list[str]
    sections: list[tuple[str, str]]
    headline: str
    answer: list[str]
    tiles: list[Tile]
    hero: tuple[Sample, Strip] | None
    findings: list[Finding]
    failures: list[Finding]
    figures: dict[str, Drawn]
    kinds: list[Drawn]
    keeps: list[str]
    kind_rows: list[KindRow]
    speed_rows: list[SpeedRow]
    sample_note: str
    samples: list[Sample]
    more_samples: list[Sample]
    table: Table
    csv: str
    facts: list[tuple[str, str]]
    description: str
    licences: list[str]
    methods: list[tuple[str, str]]
    baselines: list[str]
    limits: list[str]


def chapter(record: Record, results: Results, figures: Path, number: int) -> Chapter:
    """Draws a trade-off's figures into `figures` and writes its words; `number` counts trade-offs from 0."""
    view = View(record, results.environment)
    name = "" if number == 0 else f"tradeoff{number + 1}_"
    drawn = draw_all(view, figures, name)
    pictured = [sample(example, f"{name}picture{index}") for index, example in enumerate(record.examples)]
    told = findings(view)
    draw_strip(view, record.examples, figures, name)
    made = Chapter(
        id=f"tradeoff{number + 1}",
        model=str(view.config.get("model") or "a vision-language model"),
        task=str(view.config.get("task") or ""),
        subject=phrase(view.subject),
        notices=notices(view.standing),
        sections=[],
        headline=headline(view),
        answer=answer(view),
        tiles=tiles(view),
        hero=_hero(view, pictured),
        findings=[finding for finding in told if finding.tone != "bad"],
        failures=[finding for finding in told if finding.tone == "bad"],
        figures=drawn,
        kinds=[figure for key, figure in drawn.items() if key.startswith("kind_")],
        keeps=[share(keep) for keep in view.keeps],
        kind_rows=[_kind_row(view, kind) for kind in view.kinds],
        speed_rows=_speed_rows(view),
        sample_note=_sample_note(view, pictured),
        samples=pictured[:OPEN_SAMPLES],
        more_samples=pictured[OPEN_SAMPLES:],
        table=table(record.rows),
        csv="data:text/csv;base64," + base64.b64encode(csv(record.rows).encode()).decode("ascii"),
        facts=about.facts(view.config),
        description=about.description(view),
        licences=about.licences(view),
        methods=about.methods(view),
        baselines=about.baselines(view),
        limits=about.limits(view, results),
    )
    made.sections.extend(_sections(made))
    return made


def _sections(made: Chapter) -> list[tuple[str, str]]:
    """(anchor, name) of the sections that have something in them."""
    there = {
        "findings": made.findings or made.failures,
        "latency": [name for name in _LATENCY if name in made.figures],
        "tokens": [name for name in _TOKENS if name in made.figures],
        "cost": [*(name for name in _COST if name in made.figures), *made.speed_rows],
        "kinds": made.kind_rows,
        "inside": [name for name in _INSIDE if name in made.figures],
        "samples": made.samples,
        "table": made.table.rows,
        "method": True,
    }
    return [(anchor, name) for anchor, name in _SECTIONS.items() if there[anchor]]


def _hero(view: View, samples: Sequence[Sample]) -> tuple[Sample, Strip] | None:
    """The first sample that has the subject's cuts: the first, not the best."""
    for pictured in samples:
        for strip in pictured.strips:
            if strip.method == title(view.subject) and pictured.picture is not None:
                return pictured, strip
    return None


def _sample_note(view: View, samples: Sequence[Sample]) -> str:
    """In how many samples the subject is right at every ratio."""
    strips = [strip for item in samples for strip in item.strips if strip.method == title(view.subject)]
    if not strips:
        return ""
    held = sum(all(cell is None or cell.right for cell in strip.cells) for strip in strips)
    return f"In {held} of these {len(strips)} samples {phrase(view.subject)} leads to the right answer at every ratio."


def _kind_row(view: View, kind: str) -> KindRow:
    column = kind_column(kind)
    line = view.kind_line(kind, "majority_by_kind")
    cells = []
    for keep in view.keeps:
        value = view.value(view.subject, keep, column)
        level = max(0.0, min(1.0, value)) if value is not None else 0.0
        idle = value is not None and line is not None and value <= line
        cells.append(KindCell(text=_score(value), level=level, idle=idle))
    return KindRow(
        kind=kind,
        cells=tuple(cells),
        majority=_score(line),
        question_only=_score(view.kind_line(kind, "question_only_by_kind")),
    )


def _speed_rows(view: View) -> list[SpeedRow]:
    rows = []
    for keep in view.keeps:
        first, prefill = (view.value(view.subject, keep, name) for name in ("first_token_ms", "prefill_ms"))
        if first is None and prefill is None:
            continue
        tokens = view.tokens(keep)
        rows.append(
            SpeedRow(
                keep=share(keep),
                tokens="" if tokens is None else f"{tokens:.0f}",
                first=_ms(first),
                first_faster=_ratio(view, keep, "first_token_ms"),
                first_told=_ratio(view, keep, "flops_total"),
                prefill=_ms(prefill),
                prefill_faster=_ratio(view, keep, "prefill_ms"),
                four_faster=_ratio(view, keep, "prefill_batch4_ms"),
                prefill_told=_ratio(view, keep, "flops_llm"),
            )
        )
    return rows


def _ratio(view: View, keep: float, column: str) -> str:
    ratio = view.ratio(view.subject, keep, column)
    return "\u2013" if ratio is None else times(ratio)


def _ms(value: float | None) -> str:
    return "\u2013" if value is None else milliseconds(value)


def _score(value: float | None) -> str:
    return "\u2013" if value is None else score(value)
