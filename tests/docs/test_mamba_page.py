"""docs/mamba.md runs from top to bottom in an empty folder, and prints what it says it prints."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "mamba.md").read_text(encoding="utf-8")


class Block(NamedTuple):
    """A fenced block, and the line of the page on which its text begins."""

    language: str
    code: str
    line: int


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [Block(m[1], m[2], PAGE[: m.start()].count("\n") + 2) for m in found]


HUB = "state-spaces/mamba-130m-hf"


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {block.language for block in blocks()} == {"bash", "python", "text"}
    assert [block.code for block in blocks() if block.language == "bash"] == [
        "pip install -c constraints.txt '.[vlm]'\n"
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "vlm" in project["optional-dependencies"] and (ROOT / "constraints.txt").is_file()
    wanted = " ".join(project["dependencies"] + project["optional-dependencies"]["vlm"])
    code = "".join(block.code for block in blocks() if block.language == "python")
    for package in re.findall(r"^ *(?:from|import) (\w+)", code, flags=re.MULTILINE):
        assert package in ("salience", "inspect", "random", "pathlib") or package in wanted, package


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that stands for the published model wherever the page names it: two words, its own tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    import salience.ssm.models.mamba_lm as lm

    folder = tmp_path / "hub"
    words = Tokenizer(models.WordLevel({"<unk>": 0, "The": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", model_input_names=["input_ids", "attention_mask"]
    )
    tokenizer.save_pretrained(folder)
    model = lm.MambaLM(vocab_size=2, d_model=4, n_layers=1)
    model.generation_config["pad_token_id"] = 0
    model.save_pretrained(folder)
    ours, theirs = lm.find_folder, AutoTokenizer.from_pretrained
    monkeypatch.setattr(lm, "find_folder", lambda name, **options: ours(folder if name == HUB else name, **options))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name: theirs(folder if name == HUB else name))


@pytest.mark.usefixtures("hub")
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    names: dict[str, Any] = {"__name__": "page"}
    outputs = [""]
    for block in blocks():
        if block.language == "python":
            # as many lines before it as on the page: a traceback then names the page's line
            exec(compile("\n" * (block.line - 1) + block.code, "docs/mamba.md", "exec"), names)
            outputs.append(capsys.readouterr().out)
        elif block.language == "text":
            assert outputs[-1] == block.code, f"line {block.line}"
    assert any("120/120" in text for text in outputs)  # the bar, which reached its end
    # what the page says of the training: the loss began at about 3 (the logarithm of 17 words) and is far below
    assert names["loss"] < 1.5
    sentence = names["write"](names["model"], names["tokenizer"], "the red fox")
    assert re.match(r"the red fox (sees|hears|likes) the (cat|dog|owl) and the (cat|dog|owl) runs away", sentence)


def test_its_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in PAGE.splitlines()
        if line.startswith("#")
    }
    targets = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (ROOT / "docs" / target).exists(), target
