"""`salience.profile`: a 7B model's known costs from shapes alone, other families, and the clock with weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import salience
from salience.core.transformers_names import cache_of_output
from salience.lab.profile.counted_stages import vision_dominates_at
from salience.lab.profile.operator_counts import count_flops
from salience.lab.profile.peak_memory import kv_bytes
from salience.lab.profile.roofline import Roofline
from salience.lab.profile.shapes_only import shapes_only
from salience.vlm.methods.compose import then
from salience.vlm.methods.fastv import FastV
from salience.vlm.methods.registry import method_class
from salience.vlm.methods.uniform import Uniform

CONFIGS = Path(__file__).parent / "configs"
#: a device nobody has to measure
ROOF = Roofline(flops_per_s=1e13, bytes_per_s=1e12, launch_s=1e-5, name="made up")
#: LLaVA-1.5-7B, 64 text tokens, fp16: visual tokens -> TFLOPs of the language model and in all, MiB of the cache; the
#: projector over all tokens
TABLE = {576: (8.504, 8.910, 320), 144: (2.717, 3.123, 104)}


def profile(name: str, **options: Any) -> Any:
    return salience.profile(CONFIGS / name, roof=ROOF, **options)


def test_llava_7b_comes_to_the_table() -> None:
    found = profile("llava-1.5-7b", keep=[1, 0.25])
    assert found.config["n_visual_tokens"] == 576
    for row in found.rows:
        llm, total, cache = TABLE[row.tokens_kept]
        # the table has three decimals, and our total the scorer on top: below a thousandth
        assert row.flops_llm / 1e12 == pytest.approx(llm, rel=1e-3)
        assert row.flops_vision / 1e12 == pytest.approx(0.382, rel=2e-3)
        as_in_table = row.flops_total - row.flops_projector + row.flops_projector_all
        assert as_in_table / 1e12 == pytest.approx(total, rel=1e-3)
        assert row.kv_bytes == cache * 2**20
    # 29 tokens times 13.2 GFLOPs are the tower's 382
    assert found.config["vision_dominates_at_tokens"] == 29
    first = found.rows[0]
    # at least what the operations need, and the weights once
    assert first.predicted_llm_ms / 1e3 >= first.flops_llm / ROOF.flops_per_s
    assert first.peak_bytes > 2 * found.config["parameters"] > 14e9
    assert first.llm_ms is None and first.llm_measured_over_predicted is None


@pytest.mark.parametrize(
    ("name", "tokens", "d_features"),
    [
        # 2 x 2 tiles of 24 x 24 cut to 36 x 48 with a newline a row, and the whole picture
        ("llava-next-vicuna-7b", 36 * 49 + 576, 1024),
        ("qwen2.5-vl-7b", 27 * 37, 4 * 1280),  # 1024 x 768 in cells of 28 pixels
        ("smolvlm-2.2b", 13 * 81, 9 * 1152),  # 4 x 3 tiles and the whole picture
    ],
)
def test_other_families_on_shapes(name: str, tokens: int, d_features: int, tmp_path: Path) -> None:
    """With two layers each, for speed: what is asked here hangs on none of them."""
    config = json.loads((CONFIGS / name / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 2
    config["vision_config"]["depth" if "depth" in config["vision_config"] else "num_hidden_layers"] = 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = salience.profile(tmp_path, keep=[1, 0.1], roof=ROOF)
    assert (found.config["n_visual_tokens"], found.config["d_features"]) == (tokens, d_features)
    whole, tenth = found.rows
    assert whole.tokens_kept == tokens
    for column in ("flops_llm", "flops_projector", "kv_bytes", "predicted_first_token_ms"):
        assert 0 < getattr(tenth, column) < getattr(whole, column)
    assert tenth.peak_bytes <= whole.peak_bytes
    assert tenth.flops_vision == whole.flops_vision > 0


def test_shapes_count_as_the_real_thing_does(tiny_llava: Any) -> None:
    model = tiny_llava()
    found = salience.profile(model, keep=[1.0], text_tokens=5, roof=ROOF)
    (row,) = found.rows
    pixels = torch.randn(1, 3, 84, 84)
    encoded = count_flops(model.get_image_features, pixels)
    assert row.flops_vision + row.flops_projector == encoded
    ids = torch.tensor([[5, 6, *[model.config.image_token_id] * 36, 7, 8, 9]])
    whole = count_flops(
        model, input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), logits_to_keep=1
    )
    assert row.flops_llm == whole - encoded
    assert row.flops_scorer == 36 * 2 * (24 * 64 + 64)


@pytest.mark.parametrize("known", [[], [576], [576, 288, 144], [144, 576], [58, 29, 14, 576]], ids=str)
def test_where_the_tower_dominates_hangs_on_no_counts_that_are_known(known: list[int]) -> None:
    """8 k + k^2 / 100 of the language model and the projector against a tower of 850."""

    def language(kept: int) -> Any:
        return SimpleNamespace(prefill=SimpleNamespace(flops=500 + 6 * kept + kept**2 / 100))

    counted: Any = SimpleNamespace(
        n=576, counts=known, language=language, vision=SimpleNamespace(flops=850),
        projector=SimpleNamespace(flops=2 * 576),
    )  # fmt: skip
    assert vision_dominates_at(counted) == 94  # 94: 840.36, 95: 850.25


def test_where_the_tower_dominates_a_picture_of_one_token() -> None:
    work = SimpleNamespace(flops=3)
    counted: Any = SimpleNamespace(
        n=1, counts=[], language=lambda kept: SimpleNamespace(prefill=SimpleNamespace(flops=5 + 2 * kept)), vision=work,
        projector=SimpleNamespace(flops=1),
    )  # fmt: skip
    assert vision_dominates_at(counted) == 1
    work.flops = 2
    assert vision_dominates_at(counted) == 0


@pytest.mark.parametrize("method", ["fastv", "pyramiddrop", "then"])
def test_tokens_dropped_inside_count_as_the_real_thing_does(tiny_llava: Any, method: str) -> None:
    """Looking at attention included; the cache is what each layer really holds."""
    model = tiny_llava(layers=4)
    chosen = then(Uniform(), FastV(), keep=0.5) if method == "then" else method_class(method)()
    (row,) = salience.profile(model, keep=[0.25], method=chosen, text_tokens=5, roof=ROOF).rows
    ids = torch.tensor([[5, 6, *[model.config.image_token_id] * 36, 7, 8, 9]])
    pixels, kept = torch.randn(1, 3, 84, 84), []

    def call() -> None:
        out = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), logits_to_keep=1)
        kept.append(cache_of_output(out))

    with salience.prune(model, chosen, keep=0.25) as pruned:
        real = count_flops(call)
    assert row.flops_vision + row.flops_projector + row.flops_llm == real
    assert row.kv_bytes == kv_bytes(kept[0])
    image = pruned.trace.images[0]
    assert (row.tokens_kept, row.tokens_entered) == (len(image.kept), len(image.entered)) == (9, image.counts(4)[0])
    assert row.kv_bytes == sum(5 + count for count in image.counts(4)) * 2 * 16 * 4  # keys and values, 16 wide


def test_a_method_that_is_not_inside(tiny_llava: Any) -> None:
    with pytest.raises(ValueError, match=r"method must be one of fastv, pyramiddrop, sparsevlm, .*, or None"):
        salience.profile(tiny_llava(), method="uniform", roof=ROOF)


def test_batch_images_and_decoding_add_up(tiny_llava: Any) -> None:
    model = tiny_llava()
    config = model.config

    def counted(**options: Any) -> dict[str, Any]:
        from salience.lab.profile.counted_stages import CountedModel
        from salience.lab.profile.meta_model import build
        from salience.lab.profile.picture_arguments import PictureInputs
        from salience.lab.profile.profile_config import PromptShape

        prompt = PromptShape(text_tokens=4, **options)
        found = CountedModel(build(config, torch.float32), prompt, PictureInputs(count=prompt.batch * prompt.images))
        language = found.language(9)
        return {"vision": found.vision.flops, "llm": language.prefill.flops, "kv": language.kv_bytes, "it": language}

    one, rows, pictures = counted(), counted(batch=3), counted(images=2)
    assert rows["vision"] == 3 * one["vision"] and rows["llm"] == 3 * one["llm"] and rows["kv"] == 3 * one["kv"]
    assert pictures["vision"] == 2 * one["vision"]
    assert pictures["kv"] / (4 + 18) == one["kv"] / (4 + 9)
    answered = counted(decode=3)
    assert answered["kv"] / (13 + 3) == one["kv"] / 13
    # a step's attention sees one column more each time: 2 layers x 4 heads x 4 operations x d_head 8
    assert answered["it"].more_flops == 2 * 4 * 4 * 8
    assert answered["it"].decode_flops(3) == 3 * answered["it"].step.flops + 3 * answered["it"].more_flops


def test_with_weights_every_stage_is_timed_beside_its_prediction(tiny_llava: Any) -> None:
    model = tiny_llava()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    found = salience.profile(model, keep=[1, 0.25], text_tokens=6, batch=2, images=2, decode=2)
    for row in found.rows:
        numbers = row.numbers()
        parts = [numbers[f"{stage}_ms"] for stage in ("vision", "scorer", "projector", "llm", "rest")]
        assert all(part > 0 for part in parts)
        assert row.first_token_ms == pytest.approx(sum(parts))
        assert row.decode_ms_per_token > 0
        for stage in ("vision", "scorer", "projector", "llm"):
            ratio = numbers[f"{stage}_ms"] / numbers[f"predicted_{stage}_ms"]
            assert numbers[f"{stage}_measured_over_predicted"] == pytest.approx(ratio)
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert "forward" not in model.__dict__


def test_whole_numbers_are_real_among_shapes() -> None:
    with shapes_only():
        x = torch.randn(5, 3)
        mask = torch.arange(5) < torch.full((5,), 2, dtype=torch.int64)
        assert x.is_meta and not mask.is_meta
        assert x[mask].shape == (2, 3)
        assert int(mask.to(x.device).sum()) == 2
        assert not bool((x > 0).any())  # nobody can know
        assert x.masked_scatter(mask[:, None], torch.randn(6)).shape == (5, 3)
    assert not torch.zeros(1).is_meta


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": [0.0]}, "keep"),
        ({"keep": [float("nan")]}, "keep"),
        ({"keep": []}, "keep"),
        ({"text_tokens": 0}, "text_tokens"),
        ({"batch": 0}, "batch"),
        ({"decode": -1}, "decode"),
        ({"picture": (0, 5)}, "pixel"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        profile("llava-1.5-7b", **options)


def test_no_model_to_profile(tmp_path: Path) -> None:
    def refused(*words: str) -> None:
        with pytest.raises(ValueError) as error:
            salience.profile(tmp_path, roof=ROOF)
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)

    refused("no config.json")
    (tmp_path / "config.json").write_text("{")
    refused("JSON")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nobody-knows"}))
    refused("nobody-knows")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    refused("llama", "vision-language")
    with pytest.raises(ValueError, match="neither a model's folder nor a hub id"):
        salience.profile("nowhere", roof=ROOF)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_roof_is_made_of_positive_numbers(value: float) -> None:
    with pytest.raises(ValueError, match="bytes_per_s"):
        Roofline(flops_per_s=1.0, bytes_per_s=value, launch_s=1.0)


@pytest.mark.parametrize("kind", ["smolvlm", "gemma3", "mllama", "blip-2"])
def test_a_class_that_a_picture_does_not_fit_is_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    """Configurations of defaults alone: their shapes do not fit each other, or the class has another seam."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ValueError, match=r"^model: .*\.$") as refused:
        salience.profile(tmp_path, keep=[1.0])
    assert "\n" not in str(refused.value)
