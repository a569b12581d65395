"""A made-up but plausible trade-off document: its numbers are invented here and measure nothing."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salience.core.record import CONFIG_KEYS, TradeoffRecord
from salience.core.result_rows import ROW_COLUMNS, TradeoffRow
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

sys.path.insert(0, str(Path(__file__).parent))

from report_claims import pair_lines

KEEPS = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05, 0.025)
FULL = 0.92
#: share of the full accuracy kept at each of KEEPS
CURVES = {
    "saliency": (1, 1.0, 0.999, 0.985, 0.955, 0.885, 0.76),
    "cls-attention": (1, 0.998, 0.995, 0.98, 0.965, 0.925, 0.83),
    "uniform": (1, 1.0, 0.998, 0.975, 0.84, 0.61, 0.42),
    "random": (1, 0.998, 0.99, 0.955, 0.71, 0.53, 0.39),
    "oracle": (1, 1.0, 1.0, 0.992, 0.986, 0.982, 0.975),
    "oracle-question": (1, 1.0, 1.005, 1.01, 1.02, 1.02, 1.015),
    "saliency-shuffled": (1, 0.995, 0.985, 0.95, 0.7, 0.51, 0.37),
    "saliency-untrained": (1, 0.99, 0.98, 0.92, 0.62, 0.42, 0.31),
}
SEEDS = {"saliency": 3, "random": 5, "saliency-shuffled": 1, "saliency-untrained": 1}
KINDS = {"digit-of-colour": 0.05, "colour-of-digit": 0.06, "is-there": 0.03, "count": -0.19, "relation": -0.03}
MAJORITY = {"digit-of-colour": 0.11, "colour-of-digit": 0.14, "is-there": 0.51, "count": 0.22, "relation": 0.12}


def tokens_kept(keep: float) -> int:
    return max(1, math.floor(keep * 576 + 0.5))


def _row(method: str, index: int, seed: int) -> dict[str, Any]:
    keep, draw = KEEPS[index], random.Random(f"{method} {index} {seed}")
    kept, held = tokens_kept(keep), CURVES[method][index]
    accuracy = FULL * held + (draw.gauss(0, 0.006) if keep < 1 else 0)
    prefill = 3.9 + 35.0 * (kept / 576) ** 1.05
    select = 0 if keep == 1 or method in ("uniform", "oracle") else 0.35 if method.startswith("saliency") else 0.12
    row: dict[str, Any] = {
        "method": method, "keep": keep, "tokens_kept": kept, "seed": seed,
        "accuracy": accuracy, "accuracy_low": accuracy - 0.018, "accuracy_high": accuracy + 0.017,
        "answer_kl": 0.0 if keep == 1 else 2.6 * (1 - held) + 0.004, "probe_accuracy": 0.94 - 0.42 * (1 - held) ** 0.8,
        "feature_cosine": 1 - 0.3 * (1 - held) - 0.01 * (1 - keep),
        "saliency_mass": keep**0.45 if method in ("saliency", "cls-attention", "oracle") else keep,
        "encode_ms": 21.0, "select_ms": select, "project_ms": 0.1 + 0.9 * keep, "prefill_ms": prefill,
        "decode_ms_per_token": 3.1 + 0.6 * keep,
        "flops_vision": 3.41e9, "flops_scorer": 1.4e7 if method.startswith("saliency") else 0.0,
        "flops_projector": 2.3e8 * keep, "flops_llm": 4.7e9 * keep + 1.1e9 * keep**2 + 2.6e8,
        "n_pictures": 40 if method == "oracle-question" and keep < 1 else 100,
        "kv_bytes": 12288 * (kept + 16), "peak_bytes": int(4.1e7 + 3.4e7 * keep),
    }  # fmt: skip
    if method == "oracle-question":
        row["probe_accuracy"] = None
    row["first_token_ms"] = row["encode_ms"] + select + row["project_ms"] + prefill
    row["flops_total"] = sum(row[f"flops_{part}"] for part in ("vision", "scorer", "projector", "llm"))
    for kind, shift in KINDS.items():
        fall = held ** (2.6 if kind == "count" else 0.7)
        row["accuracy_" + kind.replace("-", "_")] = max(0.05, (FULL + shift) * fall + draw.gauss(0, 0.004))
    return row


def _cuts(boxes: list[tuple[int, int, int, int]]) -> list[dict[str, Any]]:
    cuts = []
    for method in ("saliency", "cls-attention", "random"):
        for keep in KEEPS[1:]:
            draw = random.Random(f"{method} {keep} {boxes}")

            def far(token: int, method: str = method, draw: random.Random = draw) -> float:
                if method == "random":
                    return draw.random()
                y, x = (token // 24 + 0.5) * 14, (token % 24 + 0.5) * 14
                spread = 6 if method == "saliency" else 14
                return min(math.hypot(x - (a + c) / 2, y - (b + d) / 2) for a, b, c, d in boxes) + draw.gauss(0, spread)

            kept = sorted(sorted(range(576), key=far)[: tokens_kept(keep)])
            wrong = keep < {"saliency": 0.05, "cls-attention": 0.05, "random": 0.25}[method]
            cuts.append({"method": method, "keep": keep, "kept": kept, "answer": "blue" if wrong else "red"})
    return cuts


def _picture(path: Path, number: int) -> list[tuple[int, int, int, int]]:
    """A small made-up scene: a gradient with coloured digits. Returns the digits' boxes."""
    from PIL import Image, ImageDraw, ImageFont

    draw = random.Random(number)
    noise = Image.frombytes("L", (336, 336), draw.randbytes(336 * 336)).convert("RGB")
    picture = Image.linear_gradient("L").resize((336, 336)).rotate(90 * number).convert("RGB")
    picture = Image.blend(picture, noise, 0.35)
    pen, boxes = ImageDraw.Draw(picture), []
    for digit, colour in zip("3718", ("#e42024", "#2d55eb", "#fae832", "#28af3c"), strict=True):
        x, y, size = draw.randint(20, 270), draw.randint(20, 270), draw.randint(34, 54)
        pen.text((x, y), digit, fill=colour, font=ImageFont.load_default(size), stroke_width=1)
        boxes.append((x, y, x + size * 2 // 3, y + size))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return boxes


def _differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of what the rows say, without the oracle that has questions of its own."""
    return pair_lines(
        {place: mean for place, mean in _means(rows, "accuracy").items() if place[0] != "oracle-question"}, 0.01
    )


def _kind_differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for kind in (kind.replace("-", "_") for kind in KINDS):
        means = _means(rows, f"accuracy_{kind}")
        for (method, keep), own in means.items():
            value = own - means[method, 1.0]
            line = {"method": method, "keep": keep, "kind": kind, "difference": value}
            found += [{**line, "low": value - 0.02, "high": value + 0.02}] if keep < 1 else []
    return found


def _means(rows: list[dict[str, Any]], column: str) -> dict[tuple[str, float], float]:
    each: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        each.setdefault((row["method"], row["keep"]), []).append(row[column])
    return {place: sum(values) / len(values) for place, values in each.items()}


def build_document(folder: Path | None = None, examples: int = 4) -> dict[str, Any]:
    """The document; with a folder, its samples' pictures are drawn into `folder/figures`."""
    rows = [
        _row(method, index, seed)
        for method in CURVES
        for index in range(len(KEEPS))
        for seed in range(SEEDS.get(method, 1))
    ]
    shown = []
    for number in range(examples if folder else 0):
        assert folder is not None
        boxes = _picture(folder / "figures" / f"sample_{number}.png", number)
        shown.append(
            {
                "image": f"figures/sample_{number}.png",
                "question": "which colour is the 3 ?",
                "answer": "red",
                "full_answer": "red",
                "kind": "colour-of-digit",
                "boxes": boxes,
                "grid": [24, 24],
                "cuts": _cuts(boxes),
            }
        )
    config = {
        "model": "llava-scenes", "task": "scenes", "n_questions": 1600, "n_pictures": 100, "n_visual_tokens": 576,
        "question_only_accuracy": 0.243, "majority_accuracy": 0.131, "full_accuracy": FULL,
        "majority_by_kind": MAJORITY,
        "question_only_by_kind": {kind: value + 0.02 for kind, value in MAJORITY.items()}, "keeps": list(KEEPS),
        "methods": list(CURVES), "control_other_picture_accuracy": 0.22, "probe_majority_accuracy": 0.31,
    }  # fmt: skip
    environment = {
        "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "salience": "0.1.0",
        "cpu": "made-up processor",
        "cores": 2, "threads": 2, "platform": "Linux", "commit": None, "date": "2026-01-31T12:00:00+00:00",
        "device": "cpu",
    }  # fmt: skip
    record = {
        "kind": "tradeoff", "config": config, "rows": rows, "examples": shown, "differences": _differences(rows),
        "kind_differences": _kind_differences(rows),
        "blind_differences": [{"method": "all tokens", "keep": 1.0, "against": "question only",
                               "difference": 0.68, "low": 0.65, "high": 0.71}],
    }  # fmt: skip
    return {"schema": 1, "environment": environment, "records": [record]}


@pytest.fixture
def build() -> Callable[..., dict[str, Any]]:
    """The function that builds a fresh document, to be changed at will."""
    return build_document


def small_view(
    accuracies: dict[str, tuple[float | None, ...]],
    keeps: tuple[float, ...] = (1.0, 0.25, 0.05),
    half: float | None = 0.01,
    columns: dict[str, dict[str, tuple[float | None, ...]]] | None = None,
    apart: float | None = 0.015,
    environment: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    **config: Any,
) -> TradeoffData:
    """Data of a few rows: method -> accuracy per ratio, +-`half`; `columns`: column -> method -> values.

    apart: half the width of the interval of each difference, None for a record without differences   extra: tables
    """
    rows = []
    for method, values in accuracies.items():
        for index, (keep, accuracy) in enumerate(zip(keeps, values, strict=True)):
            known = accuracy is not None and half is not None
            values_of = {
                "accuracy": accuracy,
                "accuracy_low": accuracy - half if known else None,  # type: ignore[operator]
                "accuracy_high": accuracy + half if known else None,  # type: ignore[operator]
                **{
                    name: by_method.get(method, (None,) * len(keeps))[index]
                    for name, by_method in (columns or {}).items()
                },
            }
            rows.append(row_of(method=method, keep=keep, seed=0, **values_of).to_json())
    known = {(row["method"], row["keep"]): row["accuracy"] for row in rows if row["accuracy"] is not None}
    lines = [] if apart is None else pair_lines(known, apart)
    settings = dict.fromkeys(CONFIG_KEYS["tradeoff"]) | config
    found = {"config": settings, "rows": rows, "differences": lines, **(extra or {})}
    return TradeoffData(TradeoffRecord.from_json(found, "record"), environment)


def row_of(**columns: Any) -> TradeoffRow:
    """A row of these columns, the others null."""
    return TradeoffRow.from_json({**dict.fromkeys(ROW_COLUMNS["tradeoff"]), **columns}, "row")


@pytest.fixture
def view_of() -> Callable[..., TradeoffData]:
    """The function that makes a small data from accuracies."""
    return small_view
