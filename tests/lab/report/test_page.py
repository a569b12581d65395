"""The whole page: complete, self-contained, escaped, and there whatever is missing."""

import copy
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from salience.lab.report import write_report

Build = Callable[..., dict[str, Any]]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page and checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.words = ""
        self.tags: Counter[str] = Counter()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        values = dict(attrs)
        if values.get("id"):
            self.ids[str(values["id"])] += 1
        self.addresses += [str(values[name]) for name in ("src", "href", "xlink:href", "action") if values.get(name)]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.words += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture
def page(build: Build, folder: Path) -> Page:
    """The page of the full document, written once."""
    path = folder / "report.html"
    if not path.is_file():
        (folder / "results.json").write_text(json.dumps(build(folder)))
        assert write_report(folder / "results.json", folder) == path
    return Page(path.read_text(encoding="utf-8"))


def test_it_says_what_was_found(page: Page) -> None:
    for words in (
        "keeping 25% of the visual tokens costs 1.1 points of accuracy", "What did not work",
        "Count questions lose most",
        "the vision tower takes most of the time", "of those measured here", "98 rows", "made-up processor",
        "MNIST", "probe_accuracy", "not recorded",
    ):  # fmt: skip
        assert words in page.words


def test_it_asks_nothing_of_any_other_place(page: Page, folder: Path) -> None:
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"@import|url\((?!#)", text)


def test_ids_are_unique_and_links_lead_somewhere(page: Page) -> None:
    assert [name for name, count in page.ids.items() if count > 1] == []
    missing = {address[1:] for address in page.addresses if address.startswith("#")} - set(page.ids)
    assert missing == set()


def test_figures_are_files_too(page: Page, folder: Path) -> None:
    names = {path.name for path in (folder / "figures").iterdir()}
    for name in (
        "loss_latency",
        "accuracy_tokens",
        "loss_tokens",
        "time_stages",
        "flop_stages",
        "speedups",
        "kind_count",
    ):
        assert {f"{name}.svg", f"{name}.png"} <= names
    assert "kept.png" in names
    assert not [name for name in names if name.startswith(".")]  # nothing unfinished is left


def test_every_colour_of_a_figure_is_a_variable(page: Page, folder: Path) -> None:
    figures = re.findall(
        r'<svg role="img" aria-label="Figure.*?</svg>', (folder / "report.html").read_text(), re.DOTALL
    )
    assert len(figures) == 15
    assert {colour for figure in figures for colour in re.findall(r"(?:fill|stroke): (#\w+)", figure)} == set()


def test_markup_in_the_data_stays_text(build: Build, tmp_path: Path) -> None:
    document = build(tmp_path, examples=1)
    evil = "<script>alert('x')</script>"
    record = document["records"][0]
    record["config"]["model"] = record["examples"][0]["question"] = record["examples"][0]["answer"] = evil
    document["environment"]["cpu"] = evil
    for row in record["rows"]:
        row["method"] = row["method"].replace("uniform", evil)
    written = Page(write_report(document, tmp_path).read_text(encoding="utf-8"))
    assert written.tags["script"] == 1  # the page's own
    assert evil in written.words


def test_a_document_where_nearly_nothing_was_measured(build: Build, tmp_path: Path) -> None:
    document = build()
    record = document["records"][0]
    for row in record["rows"]:
        row.update({name: None for name in row if name not in ("method", "keep", "tokens_kept", "accuracy")})
    for name in ("majority_by_kind", "question_only_by_kind", "full_accuracy"):
        del record["config"][name]
    record["config"].update(question_only_accuracy=None, majority_accuracy=None)
    del record["examples"]
    words = Page(write_report(document, tmp_path).read_text(encoding="utf-8")).words
    assert "Not measured in this run: " in words
    assert "None" not in words


def empty_sections(text: str) -> list[str]:
    """Sections, and cards of findings, with a heading and nothing else."""
    bodies = re.findall(r"<section[^>]*>(.*?)</section>", text, re.DOTALL)
    return [body for body in bodies if not re.sub(r"<h[23]>.*?</h[23]>|<[^>]*>|\s", "", body, flags=re.DOTALL)]


@pytest.mark.parametrize("nulls", [("accuracy",), ("_ms", "flops", "bytes"), ("probe",), ("_",)])
def test_empty_sections_are_left_out(build: Build, tmp_path: Path, nulls: tuple[str, ...]) -> None:
    document = build()
    record = document["records"][0]
    for row in record["rows"]:
        row.update({name: None for name in row if any(part in name for part in nulls) and name != "tokens_kept"})
    written = write_report(document, tmp_path).read_text(encoding="utf-8")
    page = Page(written)
    assert empty_sections(written) == []
    assert not {"tradeoff1-samples"} & set(page.ids)  # this document has none
    links = {address.split("-", 1)[1] for address in page.addresses if address.startswith("#tradeoff1-")}
    assert links == {name.split("-", 1)[1] for name in page.ids if name.startswith("tradeoff1-")}
    if "_ms" in nulls:
        assert not {"tradeoff1-latency", "tradeoff1-cost"} & set(page.ids)


def test_a_quick_run_is_marked_in_page_and_title_and_concludes_nothing(build: Build, tmp_path: Path) -> None:
    document = build(tmp_path, examples=1)
    document["records"][0]["config"]["quick"] = True
    written = write_report(document, tmp_path).read_text(encoding="utf-8")
    page = Page(written)
    assert "<title>Quick run: " in written and 'content="This is a quick run' in written
    assert "<h1>Quick run: " in written and "This is a quick run" in page.words
    assert "tradeoff1-findings" not in page.ids and page.tags["dl"] and 'class="tiles"' not in written
    assert not re.search(
        r"\bbeats\b|no measurable accuracy|sooner", re.sub(r"<figure.*?</figure>", "", written, flags=re.DOTALL)
    )


def test_a_busy_machine_is_marked_in_page_and_title_and_its_times_are_not_told(build: Build, tmp_path: Path) -> None:
    document = build(tmp_path, examples=1)
    document["environment"] |= {"load_average_start": 6.5, "load_average_end": 6.0, "floor_spread": 2.0}
    written = write_report(document, tmp_path).read_text(encoding="utf-8")
    words = Page(written).words
    assert "<title>Busy machine: " in written
    assert "The machine was busy during this run. The load average was 6.5 at the start of the run" in words
    assert "random tokens" in words  # accuracies don't depend on the load
    told = " ".join(re.findall(r"<li.*?</li>|<dt.*?</dd>|<figcaption.*?</figcaption>", written, re.DOTALL))
    assert "sooner to the first token" not in told and "takes most of the time" not in told
    assert not re.search(r"\d ms\b", told)


def test_several_models_and_other_records(build: Build, tmp_path: Path) -> None:
    document = build(tmp_path, examples=1)
    second = copy.deepcopy(document["records"][0])
    second["config"]["model"] = "another-model"
    second["rows"] = [row for row in second["rows"] if row["method"] in ("random", "uniform")]
    row = {
        "model": "mamba", "seed": 0, "epoch": 1, "train_loss": 1.5, "test_loss": 1.6, "test_accuracy": 0.4,
        "parameters": 12345, "train_tokens_per_s": None,
    }  # fmt: skip
    config = {"task": "copying", "length": 64, "majority_accuracy": 0.1, "chance_accuracy": 0.1}
    document["records"] += [second, {"kind": "compare", "config": config, "rows": [row]}]
    written = Page(write_report(document, tmp_path).read_text(encoding="utf-8"))
    assert [name for name, count in written.ids.items() if count > 1] == []
    assert "another-model" in written.words
    assert "Sequence models under identical training" in written.words
    assert "12,345" in written.words
    assert (tmp_path / "figures" / "tradeoff2_accuracy_tokens.svg").is_file()


def test_a_document_without_a_tradeoff(tmp_path: Path) -> None:
    row = dict.fromkeys(("keep", "tokens_kept", "flops_vision", "flops_scorer", "flops_projector", "flops_llm"), 1)
    row |= {"flops_total": 4, "kv_bytes": None, "peak_bytes": None}
    document = {"schema": 1, "environment": {}, "records": [{"kind": "profile", "config": {}, "rows": [row]}]}
    assert "Counted savings of pruning" in Page(write_report(document, tmp_path).read_text(encoding="utf-8")).words
