"""Write docs/profile.md: what pruning would save on four published models, by `salience profile` of their configs.

    python recipes/profile_page.py --measure benchmarks/results/profile_<hardware>_<date>.json
    python recipes/profile_page.py benchmarks/results/profile_<hardware>_<date>.json

The first runs the commands, with a clock around each, and keeps what they printed; both write the page.
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

from salience.core.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "profile.md"
CONFIGS = "tests/lab/profile/configs"
MODELS = {
    "llava-1.5-7b": "LLaVA-1.5-7B", "llava-next-vicuna-7b": "LLaVA-NeXT (Vicuna 7B)", "qwen2.5-vl-7b": "Qwen2.5-VL-7B",
    "smolvlm-2.2b": "SmolVLM 2.2B",
}  # fmt: skip
KEEPS = (1.0, 0.5, 0.25)


def command(name: str) -> list[str]:
    """As a user types it."""
    ratios = ",".join(f"{keep:g}" for keep in KEEPS)
    return ["salience", "profile", f"{CONFIGS}/{name}", "--keep", ratios, "--text-tokens", "64", "--device", "meta"]


def measured() -> dict[str, Any]:
    """A results document: each command's record, and in its config how long the process took."""
    documents = []
    for name in MODELS:
        since = time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-m", *command(name), "--json"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        took = time.perf_counter() - since
        document = json.loads(ran.stdout)
        document["records"][0]["config"]["took_s"] = round(took, 2)
        documents.append(document)
    return {**documents[0], "records": [document["records"][0] for document in documents]}


def page(document: Mapping[str, Any], source: str) -> str:
    """The Markdown."""
    records = {Path(record["config"]["model"]).name: record for record in document["records"]}
    about = document["environment"]
    return "\n".join([
        "# What pruning would save on four published models", "",
        "From their configurations alone, no weights and no download: one picture of 1024 x 768 pixels (scaled where a "
        "model takes one size; tiles and pixels as is usual in its family, for there is no processor here), 64 tokens "
        "of text, batch 1. TFLOPs are 2 a multiply-add, attention as the full square, "
        "the head for the last token; the projector reads the kept tokens. Peak memory includes the weights in the "
        "model's own type, and is the tower's where the language model's is less.", "",
        "| model | visual tokens | vision tower | in all | at a half | at a quarter | cache, whole and quarter | peak, "
        "whole and quarter | the tower dominates from | took |",
        "|---" * 10 + "|",
        *(_line(name, records[key]) for key, name in MODELS.items()), "",
        "**Where the vision tower begins to dominate** is the number of visual tokens at and below which the tower "
        "takes more work than the kept tokens still cost after it: pruning further saves less than the tower takes. "
        "LLaVA's towers are small beside 7B parameters; SmolVLM's sees 13 tiles of 384 pixels and already turns 9 "
        "patches into a token, so there the tower is most of the work with all tokens kept, and pruning saves the "
        "first token little.", "",
        "A row is one command, and `took` the whole process, with its imports and the second in which it measures this "
        "machine; Python's bytecode is there from an earlier run:", "",
        "```bash", *(" ".join(command(name)) for name in MODELS), "```", "",
        f"Measured on {about['cpu']} ({about['threads']} threads, {about['date'][:10]}, commit "
        f"`{about['commit'][:12]}`, torch {about['torch']}, transformers {about['transformers']}): "
        f"[`{source}`](../{source}).", "",
        "Written by `python recipes/profile_page.py`; not to be edited.", "",
    ])  # fmt: skip


def _line(name: str, record: Mapping[str, Any]) -> str:
    config, (whole, half, quarter) = record["config"], record["rows"]
    share = [
        f"{row['flops_total'] / 1e12:.3f} ({row['flops_total'] / whole['flops_total']:.2f})" for row in (half, quarter)
    ]
    cache, peak = (
        " / ".join(f"{row[column] / 2**20:,.0f}" for row in (whole, quarter)) for column in ("kv_bytes", "peak_bytes")
    )
    tokens = config["vision_dominates_at_tokens"]
    cells = [
        name, str(config["n_visual_tokens"]), f"{whole['flops_vision'] / 1e12:.3f} T",
        f"{whole['flops_total'] / 1e12:.3f} T", *(f"{text.replace(' ', ' T ')}" for text in share), f"{cache} MiB",
        f"{peak} MiB", f"{tokens} tokens (keep {config['vision_dominates_at_keep']:.2g})", f"{config['took_s']:.1f} s",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--measure", action="store_true", help="run the commands first")
    told = parser.parse_args()
    if told.measure:
        write_atomic(told.results, json.dumps(measured(), indent=1) + "\n")
    document = json.loads(told.results.read_text(encoding="utf-8"))
    write_atomic(PAGE, page(document, told.results.resolve().relative_to(ROOT).as_posix()))


if __name__ == "__main__":
    main()
