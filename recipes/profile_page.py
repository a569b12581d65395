"""Fill the table of docs/profile.md: savings on four published models, by `salience profile` of their configurations.

    python recipes/profile_page.py --measure benchmarks/results/profile_<hardware>_<date>.json
    python recipes/profile_page.py benchmarks/results/profile_<hardware>_<date>.json

With --measure the recipe first runs the commands, times each, and stores their results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pages

from salience.core.files import write_atomic

PAGE, BLOCK = pages.ROOT / "docs" / "profile.md", ("profiles", "recipes/profile_page.py")
CONFIGS = "tests/lab/profile/configs"
MODELS = {
    "llava-1.5-7b": "LLaVA-1.5-7B", "llava-next-vicuna-7b": "LLaVA-NeXT (Vicuna 7B)", "qwen2.5-vl-7b": "Qwen2.5-VL-7B",
    "smolvlm-2.2b": "SmolVLM 2.2B",
}  # fmt: skip
KEEPS = (1.0, 0.5, 0.25)


def command(name: str) -> list[str]:
    """Command of one model, as a user types it."""
    ratios = ",".join(f"{keep:g}" for keep in KEEPS)
    return ["salience", "profile", f"{CONFIGS}/{name}", "--keep", ratios, "--text-tokens", "64", "--device", "meta"]


def measured() -> dict[str, Any]:
    """A results document: each command's record, and in its config the seconds that the process took."""
    documents = []
    for name in MODELS:
        since = time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-m", *command(name), "--json"], cwd=pages.ROOT, check=True, capture_output=True, text=True
        )
        took = time.perf_counter() - since
        document = json.loads(ran.stdout)
        document["records"][0]["config"]["took_s"] = round(took, 2)
        documents.append(document)
    return {**documents[0], "records": [document["records"][0] for document in documents]}


def table(document: Mapping[str, Any], source: Path) -> str:
    """Markdown of the block: a line for each model, the commands, and the origin."""
    records = {Path(record["config"]["model"]).name: record for record in document["records"]}
    about = document["environment"]
    head = (
        "model", "visual tokens", "vision tower", "total", "at a half", "at a quarter", "cache, whole and quarter",
        "peak, whole and quarter", "the tower dominates from", "took",
    )  # fmt: skip
    return "\n".join([
        *pages.table(head, [_row(name, records[key]) for key, name in MODELS.items()]), "",
        "```bash", *(" ".join(command(name)) for name in MODELS), "```", "",
        f"Measured on {about['cpu']} ({about['threads']} threads, {about['date'][:10]}, commit "
        f"`{about['commit'][:12]}`, torch {about['torch']}, transformers {about['transformers']}): "
        f"{pages.link(source, PAGE)}.",
    ])  # fmt: skip


def _row(name: str, record: Mapping[str, Any]) -> list[str]:
    config, (whole, half, quarter) = record["config"], record["rows"]
    share = [
        f"{row['flops_total'] / 1e12:.3f} ({row['flops_total'] / whole['flops_total']:.2f})" for row in (half, quarter)
    ]
    cache, peak = (
        " / ".join(f"{row[column] / 2**20:,.0f}" for row in (whole, quarter)) for column in ("kv_bytes", "peak_bytes")
    )
    tokens = config["vision_dominates_at_tokens"]
    return [
        name, str(config["n_visual_tokens"]), f"{whole['flops_vision'] / 1e12:.3f} T",
        f"{whole['flops_total'] / 1e12:.3f} T", *(f"{text.replace(' ', ' T ')}" for text in share), f"{cache} MiB",
        f"{peak} MiB", f"{tokens} tokens (keep {config['vision_dominates_at_keep']:.2g})", f"{config['took_s']:.1f} s",
    ]  # fmt: skip


def main() -> None:
    """Measure if asked, and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--measure", action="store_true", help="run the commands first")
    arguments = parser.parse_args()
    if arguments.measure:
        write_atomic(arguments.results, json.dumps(measured(), indent=1) + "\n")
    document = json.loads(arguments.results.read_text(encoding="utf-8"))
    pages.fill(PAGE, *BLOCK, table(document, arguments.results.resolve()))


if __name__ == "__main__":
    main()
