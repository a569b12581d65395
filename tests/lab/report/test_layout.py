"""What makes a page wider than its screen: text hidden by `position: absolute` that leaves the box it scrolls in."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from salience.lab.report import write_report

STYLE = Path(__file__).resolve().parents[3] / "src" / "salience" / "lab" / "report" / "templates" / "page.css"


def classes_with(declaration: str) -> set[str]:
    """Classes that a rule of their own gives the declaration (a regular expression) at every width."""
    screen = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", STYLE.read_text(encoding="utf-8"))
    rules = re.findall(r"([^{}]+)\{([^{}]*)\}", screen)
    return {
        selector.strip().rsplit(".", 1)[1]
        for selectors, body in rules
        if re.search(declaration, body)
        for selector in selectors.split(",")
        if re.fullmatch(r"(?:.*\s)?\.[\w-]+", selector.strip())
    }


class Escapes(HTMLParser):
    """Elements of the class `hidden` whose nearest positioned ancestor lies outside the box that scrolls them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scrolls, self.placed = classes_with(r"overflow(?:-x)?:auto"), classes_with(r"position:(?:relative|sticky)")
        self.open: list[set[str]] = []
        self.seen, self.found = 0, 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = set((dict(attrs).get("class") or "").split())
        if "hidden" in classes and tag != "svg":
            self.seen += 1
            for outer in reversed(self.open):
                if outer & self.placed:
                    break
                if outer & self.scrolls:
                    self.found += 1
                    break
        if tag not in {"meta", "link", "br", "img", "input", "hr"}:
            self.open.append(classes)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()


def test_hidden_words_stay_in_the_box_that_scrolls_them(build: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(build(tmp_path)))
    page = Escapes(write_report(tmp_path / "results.json", tmp_path).read_text(encoding="utf-8"))
    assert page.scrolls == {"scroll"} and page.seen > 50
    assert page.found == 0
    assert {"mark", "scroll"} <= page.placed
