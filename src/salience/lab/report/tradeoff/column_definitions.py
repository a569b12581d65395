"""What every column means: its short name, how its numbers are written, its definition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from salience.lab.report.kit.words import DASH, finite, share


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the full table. Values are divided by `unit` and written with `digits` decimals."""

    name: str
    short: str
    meaning: str
    digits: int = 2
    unit: float = 1.0

    def written(self, value: Any) -> str:
        """The cell's text; a dash for what was not measured."""
        number = finite(value)
        if number is None:
            return DASH if value is None or isinstance(value, float) else str(value)
        if self.name == "keep":
            return share(number)
        return f"{number / self.unit:,.{self.digits}f}".replace("-", "\u2212")


_MIB, _G = 2.0**20, 1e9
COLUMNS = (
    Column(name="method", short="method", meaning="How tokens were chosen."),
    Column(
        name="keep", short="keep",
        meaning="Share of a picture's visual tokens that go on to the projector and the language model.",
    ),
    Column(
        name="tokens_kept", short="tokens", digits=0,
        meaning="The same as a count: max(1, floor(keep \u00d7 n + 0.5)).",
    ),
    Column(
        name="seed", short="seed", digits=0,
        meaning="Which fitted scorer, or which random draw; deterministic methods have one row.",
    ),
    Column(name="accuracy", short="accuracy", meaning="Share of questions answered exactly, 0 to 1.", digits=3),
    Column(
        name="accuracy_low", short="low", digits=3,
        meaning="Lower end of its 95% interval, by bootstrap over pictures (not questions).",
    ),
    Column(name="accuracy_high", short="high", meaning="Upper end of the same interval.", digits=3),
    Column(
        name="answer_kl", short="answer KL, nats", digits=3,
        meaning="KL(full || pruned) of the distribution over the answer\u2019s tokens.",
    ),
    Column(
        name="probe_accuracy", short="probe", digits=3,
        meaning="Accuracy of a small classifier that reads each kept token after the projector and names the"
        " (digit, colour) pairs in the picture, retrained per method and ratio on training pictures. "
        "Information loss is its value with all tokens minus its value here.",
    ),
    Column(
        name="feature_cosine", short="cosine", digits=3,
        meaning="Cosine of the kept tokens\u2019 mean feature with that of all tokens.",
    ),
    Column(
        name="saliency_mass", short="attention kept", digits=3,
        meaning="Share of the unpruned model\u2019s text-to-image attention that falls on kept tokens; one "
        "reference for all methods.",
    ),
    Column(
        name="item_share", short="on items", digits=3,
        meaning="Share of the kept tokens that lie on an item of the picture; what no method but an oracle is told.",
    ),
    Column(name="encode_ms", short="encode, ms", meaning="The vision tower, one picture; median."),
    Column(name="select_ms", short="select, ms", meaning="Scoring and choosing the tokens; median.", digits=3),
    Column(name="project_ms", short="project, ms", meaning="The projector on the kept tokens; median.", digits=3),
    Column(
        name="prefill_ms", short="prefill, ms",
        meaning="The language model alone, over prompt and kept tokens; median, with warm caches.",
    ),
    Column(
        name="prefill_batch4_ms", short="prefill of 4, ms",
        meaning="The same of four pictures at once, in all: they share what a call costs whatever its size.",
    ),
    Column(name="first_token_ms", short="first token, ms", meaning="encode + select + project + prefill."),
    Column(name="decode_ms_per_token", short="decode, ms/token", meaning="Each further token; median."),
    Column(
        name="flops_total", short="GFLOP", unit=_G,
        meaning="Arithmetic to the first token: vision tower, scorer, projector and language model. 2 a multiply-"
        "add, attention as the full square, every layer that runs, the head for the last token.",
    ),
    Column(name="flops_vision", short="tower, GFLOP", meaning="The vision tower\u2019s part of it.", unit=_G),
    Column(name="flops_scorer", short="scorer, GFLOP", meaning="The scorer\u2019s part of it.", digits=3, unit=_G),
    Column(
        name="flops_projector", short="projector, GFLOP", digits=3, unit=_G,
        meaning="The projector\u2019s part of it.",
    ),
    Column(name="flops_llm", short="LLM GFLOP", meaning="The language model\u2019s part of it.", unit=_G),
    Column(name="kv_bytes", short="cache, MiB", meaning="Keys and values of one sequence after prefill.", unit=_MIB),
    Column(
        name="peak_bytes", short="peak, MiB", digits=1, unit=_MIB,
        meaning="The most bytes of tensors alive at once up to the first token, weights included.",
    ),
    Column(name="n_pictures", short="pictures", meaning="Test pictures that the row was measured on.", digits=0),
)  # fmt: skip
_BY_NAME = {column.name: column for column in COLUMNS}
#: of comparisons of sequence models, whose seeds and intervals are of another kind
COMPARE = (
    Column(name="model", short="model", meaning="The sequence model."),
    Column(name="seed", short="seed", digits=0, meaning="Of the first weights and of the order of the batches."),
    Column(name="epoch", short="epoch", meaning="Passes over the training data.", digits=0),
    Column(name="train_loss", short="train loss", meaning="Mean over the epoch, nats a target.", digits=3),
    Column(name="test_loss", short="test loss", meaning="On data never trained on, nats a target.", digits=3),
    Column(name="test_accuracy", short="test accuracy", meaning="On data never trained on, 0 to 1.", digits=3),
    Column(
        name="accuracy_low", short="low", digits=3,
        meaning="Lower end of its 95% interval, by bootstrap over test examples; of the last epoch.",
    ),
    Column(name="accuracy_high", short="high", meaning="Upper end of the same interval.", digits=3),
    Column(name="parameters", short="parameters", meaning="Numbers that are learnt.", digits=0),
    Column(
        name="train_tokens_per_s", short="training, tokens/s", digits=0,
        meaning="Tokens (time steps of all sequences) that training reads a second; median over optimiser steps.",
    ),
)  # fmt: skip


def describe(name: str) -> Column:
    """The column of a name; question kinds and unknown ones describe themselves."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.startswith("accuracy_"):
        kind = name.removeprefix("accuracy_").replace("_", "-")
        return Column(name=name, short=kind, meaning=f"Accuracy on {kind} questions alone.", digits=3)
    return Column(name=name, short=name.replace("_", " "), meaning="", digits=3)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns, and rows of (text, value to sort by)."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]


def table(rows: tuple[Mapping[str, Any], ...], known: tuple[Column, ...] = COLUMNS) -> Table:
    """Every row and column of a record, `known` columns first and in their order."""
    present, by_name = dict.fromkeys(name for row in rows for name in row), {column.name: column for column in known}
    names = [column.name for column in known if column.name in present]
    after = names.index("accuracy_high") + 1 if "accuracy_high" in names else len(names)
    kinds = [name for name in present if name not in by_name and name.startswith("accuracy_")]
    names[after:after] = kinds
    names += [name for name in present if name not in names]
    columns = tuple(by_name.get(name) or describe(name) for name in names)
    return Table(
        columns=columns,
        rows=tuple(tuple((c.written(row.get(c.name)), _sortable(row.get(c.name))) for c in columns) for row in rows),
    )


def _sortable(value: Any) -> str:
    number = finite(value)
    return repr(number) if number is not None else "" if value is None else str(value)


def csv(rows: tuple[Mapping[str, Any], ...]) -> str:
    """The rows as CSV, as written in the results; empty where not measured."""
    import csv as writer
    import io

    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    out = writer.writer(buffer, lineterminator="\n")
    out.writerow(names)
    out.writerows([["" if row.get(name) is None else row[name] for name in names] for row in rows])
    return buffer.getvalue()
