"""Hooks of the site's build: the results files that the pages link lie outside of docs/ and become part of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = "benchmarks/results"


def on_files(files: Files, *, config: Any) -> Files:
    """Add every results file as `benchmarks/results/<name>.json`."""
    root = Path(config.config_file_path).parent
    for path in sorted((root / RESULTS).glob("*.json")):
        files.append(File.generated(config, f"{RESULTS}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links that leave docs/ for a results file, as the repository's readers need them, to the site's copy."""
    up = "../" * page.file.src_uri.count("/")
    return markdown.replace(f"]({up}../{RESULTS}/", f"]({up}{RESULTS}/")
