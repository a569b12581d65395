"""Assemble the trained parts into a stock LLaVA folder with its processor, weights in half precision.

Run: python recipes/assemble.py --out build/recipe --to src/salience/bundled/llava-scenes
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from reader import language_config
from tower import tower_config
from transformers import CLIPVisionModel, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration
from vocabulary import BOS, EOS, IMAGE, PAD, build_processor


def assemble(out: Path) -> LlavaForConditionalGeneration:
    config = LlavaConfig(
        vision_config=tower_config(), text_config=language_config(), image_token_index=IMAGE, image_seq_length=576,
        vision_feature_select_strategy="default", vision_feature_layer=-2, projector_hidden_act="gelu",
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    tower, language = CLIPVisionModel.from_pretrained(out / "tower"), LlamaForCausalLM.from_pretrained(out / "tuned")
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    model.model.multi_modal_projector.load_state_dict(torch.load(out / "projector.pt", weights_only=True))
    model.generation_config.update(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, max_new_tokens=4)
    return model.eval()


def _single(config: dict[str, Any]) -> dict[str, Any]:
    """Configuration with float32 in place of float16, also in its parts."""
    return {
        key: _single(value) if isinstance(value, dict) else "float32" if value == "float16" else value
        for key, value in config.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/recipe"))
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    model = assemble(args.out)
    aside = args.to.with_name(args.to.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    model.half().save_pretrained(aside)
    # Stored in half precision to be small, loaded in single to be exact and quick on a CPU.
    config = json.loads((aside / "config.json").read_text())
    (aside / "config.json").write_text(json.dumps(_single(config), indent=2, sort_keys=True) + "\n")
    build_processor().save_pretrained(aside)
    for kept in ("README.md", "LICENSE"):
        if (args.to / kept).exists():
            shutil.copy(args.to / kept, aside / kept)
    shutil.rmtree(args.to, ignore_errors=True)
    aside.replace(args.to)
    print(f"{args.to}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")


if __name__ == "__main__":
    main()
