"""Reads a report's sentences back: which method each of them ranks above which, at which ratios.

Written from the words alone, so that it knows nothing of how the report came to them; words of former reports included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from salience.lab.report.kit.method_styles import phrase, role

ALL, BEST = "all tokens", "of those measured here"
_SAID = {"beats": "better", "is worse than": "worse", "is not measurably different from": "level"}
_TURNED = {"better": "worse", "worse": "better", "level": "level"}
_VERB = "|".join(map(re.escape, _SAID))
_RATIO = r"\d+(?:\.\d+)?%"
_RANGES = rf"{_RATIO}(?: to {_RATIO})?(?:(?:, | and ){_RATIO}(?: to {_RATIO})?)*"


def pair_lines(accuracies: dict[tuple[str, float], float], apart: float) -> list[dict[str, Any]]:
    """Differences of every pair at a ratio, and of every method from all tokens, each +-`apart`."""
    found = []
    for (method, keep), own in accuracies.items():
        if keep == 1:
            continue
        others = [(name, value) for (name, at), value in accuracies.items() if at == keep and name != method]
        whole = [("all tokens", accuracies[method, 1.0])] if (method, 1.0) in accuracies else []
        for against, value in (*others, *whole):
            line = {"method": method, "keep": keep, "against": against, "difference": own - value}
            found.append({**line, "low": own - value - apart, "high": own - value + apart})
    return found


@dataclass(frozen=True)
class Claim:
    """One ranking at one ratio, and the sentence that holds it."""

    method: str
    keep: float
    against: str
    verdict: str
    sentence: str


class Reader:
    """Of one trade-off record, as it stands in a document."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        rows = record["rows"]
        self.methods = list(dict.fromkeys(str(row["method"]) for row in rows))
        self.keeps = sorted({float(row["keep"]) for row in rows}, reverse=True)
        self.names = {phrase(method).lower(): method for method in self.methods}
        self.names |= {"the all-items oracle": "oracle", "random tokens": "random"}
        learned = [method for method in self.methods if role(method) == "learned"]
        self.subject = "saliency" if "saliency" in learned else learned[0] if learned else None
        self.accuracies: dict[tuple[str, float], float] = {}
        for method in self.methods:
            for keep in self.keeps:
                values = [row["accuracy"] for row in rows if (row["method"], row["keep"]) == (method, keep)]
                if values and None not in values:
                    self.accuracies[method, keep] = sum(values) / len(values)
        self.claims: list[Claim] = []

    @property
    def pruned(self) -> list[float]:
        return [keep for keep in self.keeps if keep < 1]

    def ratios(self, text: str) -> list[float]:
        """ "50% to 10% and 2.5%" as ratios that were measured."""
        found: list[float] = []
        for first, last in re.findall(rf"({_RATIO})(?: to ({_RATIO}))?", text):
            high = float(first[:-1]) / 100
            low = float(last[:-1]) / 100 if last else high
            found += [keep for keep in self.keeps if low - 1e-9 <= keep <= high + 1e-9]
        return found

    def best(self, keep: float, roles: Sequence[str]) -> set[str]:
        """The most accurate methods of these roles at a ratio, ties included."""
        known = {m: a for (m, k), a in self.accuracies.items() if k == keep and role(m) in roles}
        return {m for m, a in known.items() if a >= max(known.values()) - 1e-12}

    def others(self, text: str, keep: float) -> set[str]:
        """The methods that the words may mean at a ratio."""
        text = text.strip().lower()
        if text.startswith("the best training-free method of those measured here"):
            return self.best(keep, ("free",))
        if text.startswith("the best method of those measured here"):
            return self.best(keep, ("free", "learned"))
        return {self.names[text]} if text in self.names else set()

    def say(self, methods: Iterable[str], keep: float, against: Iterable[str], verdict: str, sentence: str) -> None:
        methods, against = set(methods), set(against)
        if len(methods) == 1 and len(against) == 1 and methods != against:  # a tie may mean either
            self.claims.append(Claim(methods.pop(), keep, against.pop(), verdict, sentence))

    def read(self, text: str) -> None:
        """Every claim of a text."""
        name = rf"(?:{'|'.join(sorted(map(re.escape, self.names), key=len, reverse=True))})"
        best = "the best (?:training-free )?method of those measured here"
        joined = rf"({name})((?: (?:{_VERB}) random tokens at {_RANGES}(?:,| and)?)+)"
        for own, said in re.findall(joined, text, re.IGNORECASE):
            for verb, where in re.findall(rf"({_VERB}) random tokens at ({_RANGES})", said, re.IGNORECASE):
                for keep in self.ratios(where):
                    self.say(self.others(own, keep), keep, {"random"}, _SAID[verb.lower()], text)
        found = re.compile(rf"({name}) ({_VERB}) ({name}|{best}) at ({_RANGES})", re.IGNORECASE)
        for own, verb, other, where in found.findall(text):
            for keep in self.ratios(where):
                self.say(self.others(own, keep), keep, self.others(other, keep), _SAID[verb.lower()], text)
        answered = rf"At ({_RATIO})[^.:]*?, ({name}) reaches [\d.]+: it ({_VERB}) random tokens"
        for where, own, verb in re.findall(answered, text, re.IGNORECASE):
            for keep in self.ratios(where):
                self.say(self.others(own, keep), keep, {"random"}, _SAID[verb], text)
        beside = rf"At ({_RATIO})[^:]*?, ({name}) reaches [^:]*: it [^:]*?({_VERB}) {best}, ({name})"
        for where, own, verb, other in re.findall(beside, text, re.IGNORECASE):
            for keep in self.ratios(where):
                self.say(self.others(own, keep), keep, self.others(other, keep), _SAID[verb], text)
        self._lists(text, name)
        self._former(text)

    def _lists(self, text: str, name: str) -> None:
        said = (("Not measurably different from random tokens: ", "level"), ("Worse than random tokens: ", "worse"))
        for start, verdict in said:
            for listed in re.findall(rf"{start}(.*?\])\.", text):
                for own, places in re.findall(rf"({name}) at ((?:{_RATIO} \[[^\]]*\](?:, )?)+)", listed, re.IGNORECASE):
                    for keep in self.ratios(re.sub(r"\[[^\]]*\]", "", places)):
                        self.say(self.others(own, keep), keep, {"random"}, verdict, text)
        for listed in re.findall(r"Better at every ratio: (.*?)\.(?: |$)", text):
            for own in listed.split(", "):
                for keep in self.pruned:
                    self.say(self.others(own, keep), keep, {"random"}, "better", text)
        for listed in re.findall(r"Better(?: at some ratios)?: (.*?%)\.", text):
            for own, where in re.findall(rf"({name}) at ({_RANGES})", listed, re.IGNORECASE):
                for keep in self.ratios(where):
                    self.say(self.others(own, keep), keep, {"random"}, "better", text)
        for listed in re.findall(r"Better than all tokens: (.*?%)\.", text):
            for own, where in re.findall(rf"({name}) at ({_RANGES})", listed, re.IGNORECASE):
                for keep in self.ratios(where):
                    self.say(self.others(own, keep), keep, {ALL}, "better", text)
        alike = re.findall(rf"No method is measurably better than another at ({_RANGES})", text)
        for keep in [keep for where in alike for keep in self.ratios(where)]:
            real = [m for m in self.methods if role(m) in ("free", "learned") and (m, keep) in self.accuracies]
            for number, one in enumerate(real):
                for other in real[:number]:
                    self.say({one}, keep, {other}, "level", text)
        for own in re.findall(rf"({name}) beats random tokens at no ratio", text, re.IGNORECASE):
            for keep in self.pruned:
                self.say(self.others(own, keep), keep, {"random"}, "not better", text)

    def _former(self, text: str) -> None:
        """Words that reports once had."""
        for where in re.findall(rf"At ({_RANGES}) it is not clearly ahead", text):
            for keep in self.ratios(where):
                self.say({self.subject or ""}, keep, {"random"}, "level", text)

    def contradictions(self) -> list[tuple[Claim, Claim]]:
        """Pairs of claims that can't both be true."""
        table: dict[tuple[str, float, str], Claim] = {}
        found = []
        for claim in self.claims:
            turned = Claim(claim.against, claim.keep, claim.method, _TURNED.get(claim.verdict, ""), claim.sentence)
            for one in (claim, turned):
                before = table.setdefault((one.method, one.keep, one.against), one)
                pair = {before.verdict, one.verdict}
                if len(pair) > 1 and "" not in pair and pair not in ({"not better", "level"}, {"not better", "worse"}):
                    found.append((before, one))
        return found
