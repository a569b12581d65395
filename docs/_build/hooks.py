"""Hooks of the site's build: results files outside of docs/ become part of it, and a page that loads from elsewhere fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
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


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Refuse a page whose scripts, styles, fonts or pictures come from the internet: the site works without it."""
    loaded = re.findall(r'<(?:script|img|iframe)[^>]*\bsrc="?(https?:[^" >]*)|<link[^>]*\bhref="?(https?:[^" >]*)', output)
    if loaded:
        raise PluginError(f"{page.file.src_uri} loads {''.join(loaded[0])} from the internet.")
    return output
