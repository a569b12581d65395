"""No two sentences of one report disagree, and none disagrees with the rows or with its own lead.

Sentences are read back from their words (`report_claims.py`) and held against each other and against the differences
that the record holds. The named cases are records whose reports once contradicted themselves.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from report_claims import ALL, Reader, pair_lines

from salience.core.record import TradeoffRecord, load_results
from salience.lab.report import write_report
from salience.lab.report.kit.method_styles import role
from salience.lab.report.tradeoff import captions
from salience.lab.report.tradeoff.findings import findings
from salience.lab.report.tradeoff.headline import headline, summary
from salience.lab.report.tradeoff.limits import limits
from salience.lab.report.tradeoff.method_notes import method_notes
from salience.lab.report.tradeoff.tiles import tiles
from salience.lab.report.tradeoff.tradeoff_data import TradeoffData

Build = Callable[..., dict[str, Any]]
KEEPS = (1.0, 0.5, 0.25, 0.05)
_PRAISE = re.compile(
    r"\bbeats\b|no measurable accuracy|\bsooner\b(?!\.)|% of (?:the|its) accuracy|accuracy kept", re.IGNORECASE
)
_NO_BOUND = re.compile(r"ceiling|headroom", re.IGNORECASE)


def words_of(page: str) -> list[str]:
    """The page's texts, one an element that holds words; drawings, styles and scripts left out."""
    body = re.sub(r"<(style|script|svg|table)\b.*?</\1>", " ", page, flags=re.DOTALL)
    blocks = re.findall(r"<(?:li|p|h1|h2|h3|figcaption|title|dt|dd|div class=\"tile\")[^>]*>.*?</", body, re.DOTALL)
    items = re.findall(r"<li[^>]*>(.*?)</li>|<p[^>]*>(.*?)</p>|<dt[^>]*>(.*?)</dd>", body, re.DOTALL)
    texts = [*blocks, *("".join(item) for item in items)]
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]*>?", " ", text)).strip().removesuffix("<").strip() for text in texts]


def check(record: dict[str, Any], texts: list[str]) -> Reader:
    """Read every text; assert that none disagrees with another, with the rows, or with the record's differences."""
    reader = Reader(record)
    for text in texts:
        reader.read(text)
        assert not _NO_BOUND.search(text), text
        for tail in re.findall(r"best training-free method(.{0,24})", text):
            assert tail.startswith((" of those measured here", "\u2019s")), text
    assert reader.contradictions() == []
    known: dict[tuple[str, float, str], str] = {}
    for line in record.get("differences") or ():
        value = "better" if line["low"] > 0 else "worse" if line["high"] < 0 else "level"
        known.setdefault((line["method"], line["keep"], line["against"]), value)
        turned = {"better": "worse", "worse": "better", "level": "level"}[value]
        known.setdefault((line["against"], line["keep"], line["method"]), turned)
    for claim in reader.claims:
        verdict = known.get((claim.method, claim.keep, claim.against))
        allowed = ("level", "worse", None) if claim.verdict == "not better" else (claim.verdict,)
        assert verdict in allowed, claim
        a, b = reader.accuracies.get((claim.method, claim.keep)), reader.accuracies.get((claim.against, claim.keep))
        if claim.against != ALL and a is not None and b is not None and claim.verdict in ("better", "worse"):
            assert (a > b) == (claim.verdict == "better"), claim
    return reader


def texts_of(document: dict[str, Any]) -> list[str]:
    """Everything that a report says of its first record, without drawing it."""
    results = load_results(document, Path())
    data = TradeoffData(results.of_kind(TradeoffRecord)[0], results.environment)
    drawn = (
        captions.accuracy_tokens, captions.accuracy_latency, captions.time_stages, captions.speedups,
        captions.flop_stages, *((captions.loss_latency, captions.loss_tokens) if data.probe_reads else ()),
    )  # fmt: skip
    told = [finding.lead + " " + finding.text for finding in findings(data)]
    shown = [f"{tile.value} {tile.label} {tile.note}" for tile in tiles(data)]
    return [headline(data), *summary(data), *shown, *told, *(caption(data) for caption in drawn),
            *(text for _, text in method_notes(data)), *limits(data, results.environment)]  # fmt: skip


def document_of(
    accuracies: dict[str, tuple[float | None, ...]], *, apart: float = 0.015, half: float = 0.02,
    columns: dict[str, dict[str, tuple[float | None, ...]]] | None = None, keeps: tuple[float, ...] = KEEPS,
    **config: Any,
) -> dict[str, Any]:  # fmt: skip
    """A document of these accuracies by method and ratio, each +-`half`, every difference +-`apart`."""
    from salience.core.record import CONFIG_KEYS
    from salience.core.result_rows import ROW_COLUMNS

    rows = []
    for method, values in accuracies.items():
        for number, (keep, accuracy) in enumerate(zip(keeps, values, strict=True)):
            row: dict[str, Any] = {**dict.fromkeys(ROW_COLUMNS["tradeoff"]), "method": method, "keep": keep, "seed": 0}
            row["accuracy"] = accuracy
            if accuracy is not None:
                row["accuracy_low"], row["accuracy_high"] = accuracy - half, accuracy + half
            row |= {
                name: by_method[method][number] for name, by_method in (columns or {}).items() if method in by_method
            }
            rows.append(row)
    known = {(row["method"], row["keep"]): row["accuracy"] for row in rows if row["accuracy"] is not None}
    paired = {place: value for place, value in known.items() if place[0] != "oracle-question"}
    record = {
        "kind": "tradeoff", "config": {**dict.fromkeys(CONFIG_KEYS["tradeoff"]), **config}, "rows": rows,
        "differences": pair_lines(paired, apart),
    }  # fmt: skip
    return {"schema": 1, "environment": {}, "records": [record]}


def page_of(document: dict[str, Any], folder: Path) -> list[str]:
    return words_of(write_report(document, folder).read_text(encoding="utf-8"))


def test_the_reader_finds_what_a_sentence_claims_and_what_contradicts_it() -> None:
    record = document_of({"saliency": (0.9, 0.8, 0.7, 0.6), "random": (0.9, 0.7, 0.6, 0.5)})["records"][0]
    reader = Reader(record)
    reader.read("The learned saliency beats random tokens at 50% to 5%.")
    assert {(claim.keep, claim.verdict) for claim in reader.claims} == {(keep, "better") for keep in KEEPS[1:]}
    assert reader.contradictions() == []
    for text in (
        "At 25% it is not clearly ahead.", "No method is measurably better than another at 25%.",
        "Not measurably different from random tokens: the learned saliency at 50% [+0.1 (\u22121.0 to 1.2)], 5% [0.0 "
        "(0.0 to 1.0)].",
        "Random tokens beats the learned saliency at 5%.",
    ):  # fmt: skip
        other = copy.deepcopy(reader)
        other.read(text)
        assert other.contradictions(), text


def test_overlapping_intervals_beside_paired_differences(tmp_path: Path) -> None:
    """Once "At 50% it is not clearly ahead" and "Everything is alike at 50%" beside "Better at every ratio"."""
    document = document_of(
        {"saliency": (0.9, 0.895, 0.88, 0.7), "random": (0.9, 0.877, 0.78, 0.4), "uniform": (0.9, 0.89, 0.85, 0.42)},
        apart=0.007, half=0.05,
    )  # fmt: skip
    reader = check(document["records"][0], page_of(document, tmp_path))
    own = {
        (claim.keep, claim.verdict)
        for claim in reader.claims
        if (claim.method, claim.against) == ("saliency", "random")
    }
    assert own == {(0.5, "better"), (0.25, "better"), (0.05, "better")}


def test_the_best_training_free_method_is_the_best_in_the_rows_and_the_oracle_no_bound(tmp_path: Path) -> None:
    """Once [CLS] attention was the best, and the oracle a ceiling that DivPrune passes."""
    document = document_of(
        {"saliency": (0.89, 0.89, 0.89, 0.51), "cls-attention": (0.89, 0.89, 0.89, 0.64),
         "random": (0.89, 0.87, 0.77, 0.31), "divprune": (0.89, 0.89, 0.886, 0.877),
         "oracle": (0.89, 0.897, 0.899, 0.783),
         "oracle-question": (0.89, 0.92, 0.93, 0.91)},
        ceiling_pictures=24, ceiling_full_accuracy=0.903, question_only_accuracy=0.2, majority_accuracy=0.1,
    )  # fmt: skip
    texts = page_of(document, tmp_path)
    reader = check(document["records"][0], texts)
    claims = {(claim.method, claim.keep, claim.against): claim.verdict for claim in reader.claims}
    assert claims["saliency", 0.05, "divprune"] == "worse" and claims["oracle", 0.05, "divprune"] == "worse"
    assert "DivPrune 0.877" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_model_that_does_not_look_is_praised_nowhere(tmp_path: Path) -> None:
    """Once "180% of the accuracy kept" and "beats random tokens" under a lead that says that nothing can be seen."""
    times = {"first_token_ms": (60.0, 40.0, 30.0, 20.0), "prefill_ms": (40.0, 20.0, 10.0, 5.0),
             "select_ms": (0.0, 0.1, 0.1, 0.1), "encode_ms": (5.0, 5.0, 5.0, 5.0)}  # fmt: skip
    document = document_of(
        {"saliency": (0.25, 0.45, 0.45, 0.4), "random": (0.25, 0.2, 0.2, 0.2), "oracle": (0.25, 0.3, 0.5, 0.5)},
        columns={name: {"saliency": values} for name, values in times.items()}, question_only_accuracy=0.24,
        majority_accuracy=0.1, control_other_picture_accuracy=0.2,
        control_other_picture={"above_low": -0.1, "above_high": 0.0},
    )  # fmt: skip
    document["records"][0]["blind_differences"] = [
        {
            "method": "all tokens",
            "keep": 1.0,
            "against": "question only",
            "difference": 0.01,
            "low": -0.02,
            "high": 0.04,
        }
    ]
    page = write_report(document, tmp_path).read_text(encoding="utf-8")
    texts = words_of(page)
    check(document["records"][0], texts)
    assert any("no better than without the picture" in text for text in texts)
    assert not [text for text in texts if _PRAISE.search(text) or "come from the picture" in text]
    assert '<li class="good">' not in page


def test_a_probe_that_reads_little_gains_nothing(tmp_path: Path) -> None:
    """Once "The probe gains 3.5 points at 25%" beside "the answers themselves lose 0 points", of a probe at .24."""
    probe = {"saliency": (0.24, 0.26, 0.28, 0.26), "random": (0.24, 0.24, 0.19, 0.16)}
    document = document_of({"saliency": (0.9, 0.9, 0.9, 0.7), "random": (0.9, 0.88, 0.78, 0.4)},
                           columns={"probe_accuracy": probe})  # fmt: skip
    texts = page_of(document, tmp_path)
    check(document["records"][0], texts)
    assert not [text for text in texts if re.search(r"\bgains?\b", text)]
    assert any("too little to tell what is lost" in text for text in texts)
    assert not [text for text in texts if text.startswith("Information loss against")]


NAMES = ("saliency", "random", "uniform", "cls-attention", "divprune", "visionzip", "oracle", "oracle-question",
         "saliency-shuffled", "saliency-untrained")  # fmt: skip
_ACCURACY = st.one_of(
    st.none(), st.sampled_from((0.0, 0.2, 0.205, 0.5, 0.51, 0.9, 1.0)), st.floats(0, 1).map(lambda x: round(x, 3))
)
_TIME = st.one_of(st.none(), st.sampled_from((-3.0, 0.0, 5.0, 5.1, 60.0)))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Records of every sort: methods missing, ties, nulls, negative times, one ratio, lines missing or broken."""
    methods = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=7, unique=True))
    keeps = draw(st.sampled_from((KEEPS, (1.0, 0.25), (1.0,), (0.5, 0.25), (1.0, 0.75, 0.5, 0.1, 0.025))))
    same = draw(st.one_of(st.none(), st.none(), _ACCURACY))
    full = draw(st.sampled_from((0.25, 0.5, 0.9)))
    values = {
        m: tuple(full if k == 1 else same if same is not None else draw(_ACCURACY) for k in keeps) for m in methods
    }
    columns = {
        name: {m: tuple(draw(_TIME) for _ in keeps) for m in methods}
        for name in draw(
            st.lists(st.sampled_from(("first_token_ms", "prefill_ms", "encode_ms", "select_ms")), unique=True)
        )
    }
    if draw(st.booleans()):
        columns["probe_accuracy"] = {m: tuple(draw(_ACCURACY) for _ in keeps) for m in methods}
    baselines = st.sampled_from((None, 0.1, 0.24, 0.6))
    document = document_of(
        values, keeps=keeps, columns=columns, apart=draw(st.sampled_from((0.0, 0.004, 0.05, 0.4))),
        half=draw(st.sampled_from((0.0, 0.03, 0.3))), question_only_accuracy=draw(baselines),
        majority_accuracy=draw(baselines), quick=draw(st.sampled_from((False, False, False, True))),
        task=draw(st.sampled_from(("scenes", "vqa:folder"))),
    )  # fmt: skip
    record = document["records"][0]
    lines = record["differences"]
    kept = draw(st.sampled_from(("all", "all", "random and all tokens", "some", "none")))
    if kept == "random and all tokens":
        lines = [line for line in lines if line["against"] in ("random", ALL)]
    elif kept == "some":
        lines = [line for line in lines if draw(st.booleans())]
    record["differences"] = [] if kept == "none" else lines
    if draw(st.booleans()):
        low = draw(st.sampled_from((-0.1, 0.0, 0.1)))
        line = {"method": ALL, "keep": 1.0, "against": "question only", "difference": low + 0.05}
        record["blind_differences"] = [{**line, "low": low, "high": low + 0.1}]
    if draw(st.booleans()):
        document["environment"] = {"load_average_start": draw(st.sampled_from((0.2, 9.0))), "cores": 2}
    return document


@settings(max_examples=150)
@given(document=documents())
def test_whatever_a_record_holds_its_sentences_agree(document: dict[str, Any]) -> None:
    texts = texts_of(document)
    check(document["records"][0], texts)
    results = load_results(document, Path())
    data = TradeoffData(results.of_kind(TradeoffRecord)[0], results.environment)
    assert not [text for text in texts if re.search(r"\bNone\b|\bnan\b|\binf\b", text)]
    if data.reliability.quick or data.blind is not None:
        assert not [text for text in texts if _PRAISE.search(text)]
        assert not [finding for finding in findings(data) if finding.tone == "good"]
    if data.reliability.title is not None:
        assert texts[0].startswith((data.reliability.title, "Quick run"))
    if data.reliability.busy:
        assert not [text for text in texts if re.search(r"\bms\b", text) and "Not measured" not in text
                    and "left out" not in text]  # fmt: skip


def test_every_role_of_a_method_is_among_the_records() -> None:
    assert {role(name) for name in NAMES} == {"learned", "free", "oracle", "control"}
