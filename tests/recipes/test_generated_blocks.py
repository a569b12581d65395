"""Generated blocks of the README and the pages equal what their results files say: no number there is typed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import compare_table
import methods_page
import package_tree
import pages
import profile_page
import pytest
import readme_table

from salience.core.markers import filled


def sources(page: Path, *blocks: str) -> list[Path]:
    """The results files that blocks of a page link, in order."""
    text, found = page.read_text(encoding="utf-8"), list[Path]()
    for name in blocks:
        inside = text.split(f"<!-- {name}: begin (")[1].split(f"<!-- {name}: end -->")[0]
        found += [pages.ROOT / path for path in re.findall(r"\]\([./]*(benchmarks/results/[^)]+\.json)\)", inside)]
    return list(dict.fromkeys(found))


def _readme() -> str:
    ((source, results),) = pages.loaded(sources(readme_table.PAGE, "results"))
    return readme_table.table(results, source)


def _comparisons() -> str:
    return compare_table.table(pages.loaded(sources(compare_table.PAGE, "comparisons")))


def _profiles() -> str:
    (source,) = sources(profile_page.PAGE, "profiles")
    return profile_page.table(json.loads(source.read_text(encoding="utf-8")), source)


@pytest.mark.parametrize(
    ("recipe", "written"), [(readme_table, _readme), (compare_table, _comparisons), (profile_page, _profiles)]
)
def test_a_block_is_what_its_results_say(recipe: object, written: Callable[[], str]) -> None:
    page, (name, script) = recipe.PAGE, recipe.BLOCK  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8")
    assert filled(text, *pages.markers(name, script), written()) == text
    assert (pages.ROOT / script).is_file()


def test_the_methods_page_is_what_its_results_say() -> None:
    files = sources(methods_page.PAGE, "before-differences", "inside", "easy-vqa")
    assert len(files) == 3, "the page names the results of methods before the language model, inside it, on easy-VQA"
    before, inside, easy = pages.loaded(files)
    text = methods_page.PAGE.read_text(encoding="utf-8")
    for name, block in methods_page.blocks(before, inside, easy).items():
        assert filled(text, *pages.markers(name, methods_page.SCRIPT), block) == text, name


def test_the_tree_has_a_line_for_each_folder_and_file() -> None:
    """The paths, not the sentences: `python recipes/package_tree.py` takes those from the modules."""
    begin, end = pages.markers(*package_tree.BLOCK)
    written = package_tree.PAGE.read_text(encoding="utf-8").split(begin)[1].split(end)[0].strip()

    def paths(tree: str) -> list[str]:
        return [line[: package_tree.COLUMN].rstrip() for line in tree.splitlines()]

    if paths(written) != paths(package_tree.tree()):
        pytest.fail(
            "CONTRIBUTING.md lacks a module or names a deleted one: run python recipes/package_tree.py", pytrace=False
        )
    assert [line for line in written.splitlines()[2:-1] if not line[package_tree.COLUMN :].strip()] == []
