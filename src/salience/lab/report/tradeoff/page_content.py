"""A trade-off record as what the page's template shows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from salience.lab.report.kit.finding import Finding
from salience.lab.report.kit.method_styles import phrase, title
from salience.lab.report.kit.reliability import notices
from salience.lab.report.kit.words import milliseconds, score, share, times
from salience.lab.report.load import Record, Results
from salience.lab.report.tradeoff import limits
from salience.lab.report.tradeoff.column_definitions import Table, csv, table
from salience.lab.report.tradeoff.figures import Drawn, draw_all
from salience.lab.report.tradeoff.findings import findings
from salience.lab.report.tradeoff.headline import Tile, answer, headline, tiles
from salience.lab.report.tradeoff.sample_strip import draw_strip
from salience.lab.report.tradeoff.samples import Sample, Strip, sample
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData, kind_column

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
    data = TradeoffData(record, results.environment)
    name = "" if number == 0 else f"tradeoff{number + 1}_"
    drawn = draw_all(data, figures, name)
    pictured = [sample(example, f"{name}picture{index}") for index, example in enumerate(record.examples)]
    told = findings(data)
    draw_strip(data, record.examples, figures, name)
    made = Chapter(
        id=f"tradeoff{number + 1}",
        model=str(data.config.get("model") or "a vision-language model"),
        task=str(data.config.get("task") or ""),
        subject=phrase(data.subject),
        notices=notices(data.reliability),
        sections=[],
        headline=headline(data),
        answer=answer(data),
        tiles=tiles(data),
        hero=_hero(data, pictured),
        findings=[finding for finding in told if finding.tone != "bad"],
        failures=[finding for finding in told if finding.tone == "bad"],
        figures=drawn,
        kinds=[figure for key, figure in drawn.items() if key.startswith("kind_")],
        keeps=[share(keep) for keep in data.keeps],
        kind_rows=[_kind_row(data, kind) for kind in data.kinds],
        speed_rows=_speed_rows(data),
        sample_note=_sample_note(data, pictured),
        samples=pictured[:OPEN_SAMPLES],
        more_samples=pictured[OPEN_SAMPLES:],
        table=table(record.rows),
        csv="data:text/csv;base64," + base64.b64encode(csv(record.rows).encode()).decode("ascii"),
        facts=limits.facts(data.config),
        description=limits.description(data),
        licences=limits.licences(data),
        methods=limits.methods(data),
        baselines=limits.baselines(data),
        limits=limits.limits(data, results),
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


def _hero(data: TradeoffData, samples: Sequence[Sample]) -> tuple[Sample, Strip] | None:
    """The first sample that has the subject's cuts: the first, not the best."""
    for pictured in samples:
        for strip in pictured.strips:
            if strip.method == title(data.subject) and pictured.picture is not None:
                return pictured, strip
    return None


def _sample_note(data: TradeoffData, samples: Sequence[Sample]) -> str:
    """In how many samples the subject is right at every ratio."""
    strips = [strip for item in samples for strip in item.strips if strip.method == title(data.subject)]
    if not strips:
        return ""
    held = sum(all(cell is None or cell.right for cell in strip.cells) for strip in strips)
    return f"In {held} of these {len(strips)} samples {phrase(data.subject)} leads to the right answer at every ratio."


def _kind_row(data: TradeoffData, kind: str) -> KindRow:
    column = kind_column(kind)
    line = data.kind_line(kind, "majority_by_kind")
    cells = []
    for keep in data.keeps:
        value = data.value(data.subject, keep, column)
        level = max(0.0, min(1.0, value)) if value is not None else 0.0
        idle = value is not None and line is not None and value <= line
        cells.append(KindCell(text=_score(value), level=level, idle=idle))
    return KindRow(
        kind=kind,
        cells=tuple(cells),
        majority=_score(line),
        question_only=_score(data.kind_line(kind, "question_only_by_kind")),
    )


def _speed_rows(data: TradeoffData) -> list[SpeedRow]:
    rows = []
    for keep in data.keeps:
        first, prefill = (data.value(data.subject, keep, name) for name in ("first_token_ms", "prefill_ms"))
        if first is None and prefill is None:
            continue
        tokens = data.tokens(keep)
        rows.append(
            SpeedRow(
                keep=share(keep),
                tokens="" if tokens is None else f"{tokens:.0f}",
                first=_ms(first),
                first_faster=_ratio(data, keep, "first_token_ms"),
                first_told=_ratio(data, keep, "flops_total"),
                prefill=_ms(prefill),
                prefill_faster=_ratio(data, keep, "prefill_ms"),
                four_faster=_ratio(data, keep, "prefill_batch4_ms"),
                prefill_told=_ratio(data, keep, "flops_llm"),
            )
        )
    return rows


def _ratio(data: TradeoffData, keep: float, column: str) -> str:
    ratio = data.ratio(data.subject, keep, column)
    return "\u2013" if ratio is None else times(ratio)


def _ms(value: float | None) -> str:
    return "\u2013" if value is None else milliseconds(value)


def _score(value: float | None) -> str:
    return "\u2013" if value is None else score(value)
