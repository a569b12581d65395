"""Blocks of Markdown pages, and stand-ins for the published models that the pages name."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "recipes"), str(Path(__file__).parent)]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory, tiny_llava: Any, tiny_processor: Any) -> Callable[[str], str]:
    """`hub(code)` -> the code with the ids of published models replaced by folders of the same layout, and no more."""
    folders = {
        "llava-hf/llava-1.5-7b-hf": tmp_path_factory.mktemp("llava"),
        "state-spaces/mamba-130m-hf": tmp_path_factory.mktemp("mamba"),
    }
    llava, mamba = folders.values()
    tiny_llava(side=336).save_pretrained(llava)  # 576 visual tokens, as the published one
    tiny_processor(336).save_pretrained(llava)
    _write_mamba(mamba)

    def replaced(code: str) -> str:
        for name, folder in folders.items():
            code = code.replace(f'"{name}"', f'"{folder.as_posix()}"')
        assert not re.search(r'from_pretrained\("[\w.-]+/[\w.-]+"', code), "a published model without a stand-in"
        return code

    return replaced


def _write_mamba(folder: Path) -> None:
    """A MambaLM of two words with its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    import salience

    words = Tokenizer(models.WordLevel({"<unk>": 0, "The": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", model_input_names=["input_ids", "attention_mask"]
    )
    tokenizer.save_pretrained(folder)
    model = salience.MambaLM(vocab_size=2, d_model=4, n_layers=1)
    model.generation_config["pad_token_id"] = 0
    model.save_pretrained(folder)
