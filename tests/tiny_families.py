"""A tiny random model of every family, from its config, and batches for it; `tests/conftest.py` provides them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pytest
import torch
from torch import Tensor

PAD, END, IMAGE, OPEN, CLOSE, VIDEO, WORDS, VOCABULARY = 0, 1, 3, 4, 5, 6, 8, 64

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 1024, "pad_token_id": PAD,
    "bos_token_id": None, "eos_token_id": END,
}  # fmt: skip
VISION = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14,
}  # fmt: skip


@dataclass(kw_only=True)
class Tiny:
    """A family: its model, the picture sizes to try, and the tokens of each in the prompt.

    picture: (size, generator) -> its pixels and the ids that stand for it   collect: the batch's other arguments, of
    each row's (size, pixels).   types: (ids, mask) -> the argument that marks image tokens, if the family has one.
    broken_on: releases of transformers whose own forward fails, so that there is nothing to prune.
    """

    name: str
    build: Callable[[], Any]
    sizes: Sequence[Any]
    picture: Callable[[Any, torch.Generator], tuple[Tensor, list[int]]]
    collect: Callable[[list[list[tuple[Any, Tensor]]]], dict[str, Any]]
    types: Callable[[Tensor, Tensor], dict[str, Tensor]] = lambda ids, mask: {}
    broken_on: Sequence[str] = ()

    def model(self, dtype: torch.dtype = torch.float32) -> Any:
        if (release := version("transformers")) in self.broken_on:
            pytest.skip(f"the forward of {self.name} fails in transformers {release}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2:  # from the initial .02: attention far from uniform, logits of order one
                    parameter.mul_(2 if "vis" in name else 6)
        # complex buffers (Llama4's angles) stay, which `to` would make real
        return model._apply(lambda values: values.to(dtype) if values.is_floating_point() else values)

    def batch(self, pictures: Sequence[int] = (1, 2), *, side: str = "left", seed: int = 0) -> dict[str, Any]:
        """Rows with these numbers of pictures, cycling through the sizes, with words between them; padded on `side`."""
        generator = torch.Generator().manual_seed(seed)
        words = lambda n: torch.randint(WORDS, VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
        rows, seen, turn = [], [], 0
        for row, count in enumerate(pictures):
            ids, own = words(2 + row), []
            for _ in range(count):
                size = self.sizes[turn % len(self.sizes)]
                pixels, segment = self.picture(size, generator)
                own.append((size, pixels))
                ids += [*segment, *words(3)]
                turn += 1
            rows.append(ids)
            seen.append(own)
        width = max(map(len, rows))
        ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.int64)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[i, place], mask[i, place] = torch.tensor(row), 1
        return {"input_ids": ids, "attention_mask": mask, **self.types(ids, mask), **self.collect(seen)}


def _image_types(name: str) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    return lambda ids, mask: {name: (ids == IMAGE).long()}


# -- Qwen ------------------------------------------------------------------------------------------------------------


def _qwen_picture(size: tuple[int, int, int], generator: torch.Generator) -> tuple[Tensor, list[int]]:
    t, h, w = size
    patch = 3 * 2 * 14 * 14
    return torch.randn(t * h * w, patch, generator=generator), [OPEN, *[IMAGE] * (t * h * w // 4), CLOSE]


def _qwen_collect(rows: list[list[tuple[Any, Tensor]]]) -> dict[str, Any]:
    flat = [picture for row in rows for picture in row]
    grids = torch.tensor([size for size, _ in flat])
    return {"pixel_values": torch.cat([pixels for _, pixels in flat]), "image_grid_thw": grids}


def _qwen(
    name: str, model_class: str, config_class: str, vision: dict[str, Any], text: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> Tiny:  # fmt: skip
    """`text`, `more`: further settings of the text config and of the whole config."""
    own, rest = text or {}, more or {"vision_start_token_id": OPEN, "vision_end_token_id": CLOSE}

    def build() -> Any:
        import transformers

        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
        text = {**TEXT, "rope_parameters": rope, **own}
        config = getattr(transformers, config_class)(
            text_config=text, vision_config={"patch_size": 14, "spatial_merge_size": 2, **vision},
            image_token_id=IMAGE, video_token_id=VIDEO, **rest,
        )  # fmt: skip
        return getattr(transformers, model_class)(config)

    return Tiny(
        name=name, build=build, sizes=[(1, 6, 8), (1, 4, 6), (1, 10, 4)], picture=_qwen_picture,
        collect=_qwen_collect, types=_image_types("mm_token_type_ids"),
    )  # fmt: skip


_QWEN3 = {
    "depth": 3, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 24,
    "num_position_embeddings": 64,
}  # fmt: skip
_DELTA = {
    "head_dim": 8, "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2],
                        "partial_rotary_factor": 1.0},
}  # fmt: skip
_GLM = {
    "depth": 2, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 24, "image_size": 84,
}  # fmt: skip
_GLM_ROPE = {
    "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0,
}  # fmt: skip
_GLM_IDS = {
    "image_start_token_id": OPEN, "image_end_token_id": CLOSE, "video_start_token_id": 60, "video_end_token_id": 61,
}  # fmt: skip


# -- tiles with newlines ---------------------------------------------------------------------------------------------

_TILE = 42  # three tokens a side
_PINPOINTS = [[42, 84], [84, 42], [84, 84]]


def _large_rows(size: tuple[int, int]) -> tuple[int, int, int]:
    """Numbers of tiles, rows and columns of the enlarged view of a picture (height, width), without its padding."""
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    height, width = select_best_resolution(size, _PINPOINTS)
    rows, columns = unpad_image(torch.zeros(1, height // 14, width // 14), size).shape[1:]
    return (height // _TILE) * (width // _TILE), rows, columns


def _tiled_picture(budget: int | None) -> Callable[[Any, torch.Generator], tuple[Tensor, list[int]]]:
    """`budget`: the number of tiles from which LLaVA-OneVision scales an enlarged view down."""

    def picture(size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, list[int]]:
        tiles, rows, columns = _large_rows(size)
        ratio = (rows * columns / (budget * 9)) ** 0.5 if budget else 1.0
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        pixels = torch.randn(1 + tiles, 3, _TILE, _TILE, generator=generator)
        return pixels, [IMAGE] * (9 + rows * (columns + 1))

    return picture


def _tiled_collect(rows: list[list[tuple[Any, Tensor]]]) -> dict[str, Any]:
    flat = [picture for row in rows for picture in row]
    most = max(pixels.shape[0] for _, pixels in flat)
    padded = [torch.cat([p, p.new_zeros(most - p.shape[0], *p.shape[1:])]) for _, p in flat]
    return {"pixel_values": torch.stack(padded), "image_sizes": torch.tensor([size for size, _ in flat])}


def _llava_next() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

    vision = CLIPVisionConfig(**{**VISION, "num_hidden_layers": 3}, image_size=_TILE, projection_dim=24)
    config = LlavaNextConfig(
        vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_index=IMAGE, image_grid_pinpoints=_PINPOINTS,
    )  # fmt: skip
    return LlavaNextForConditionalGeneration(config)


def _llava_onevision() -> Any:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config

    vision = {"model_type": "siglip_vision_model", **VISION, "image_size": _TILE, "vision_use_head": False}
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=Qwen2Config(**TEXT), image_token_index=IMAGE, video_token_index=VIDEO,
        image_grid_pinpoints=_PINPOINTS, vision_aspect_ratio="anyres_max_2",
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config)


# -- tiles of one size -----------------------------------------------------------------------------------------------


def _tiles(tiles: int, generator: torch.Generator, *, apart: bool) -> tuple[Tensor, list[int]]:
    """Tiles of nine tokens; `apart`: text between them."""
    pixels = torch.randn(tiles, 3, 84, 84, generator=generator)
    each = [OPEN, *[IMAGE] * 9, CLOSE]
    return pixels, each * tiles if apart else [OPEN, *[IMAGE] * 9 * tiles, CLOSE]


def _sample_collect(rows: list[list[tuple[Any, Tensor]]]) -> dict[str, Any]:
    """(samples, most tiles, 3, H, W), zero for tiles that a sample lacks."""
    samples = [torch.cat([torch.zeros(0, 3, 84, 84), *(pixels for _, pixels in row)]) for row in rows]
    most = max(map(len, samples))
    return {"pixel_values": torch.stack([torch.cat([s, s.new_zeros(most - len(s), *s.shape[1:])]) for s in samples])}


def _flat_collect(rows: list[list[tuple[Any, Tensor]]]) -> dict[str, Any]:
    return {"pixel_values": torch.cat([pixels for row in rows for _, pixels in row])}


def _shuffled(name: str) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        config = getattr(transformers, f"{name}Config")(
            vision_config={**VISION, "image_size": 84}, text_config=transformers.LlamaConfig(**TEXT),
            image_token_id=IMAGE, scale_factor=2, pad_token_id=PAD,
        )  # fmt: skip
        return getattr(transformers, f"{name}ForConditionalGeneration")(config)

    return build


def _internvl() -> Any:
    from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Config

    config = InternVLConfig(
        vision_config={**VISION, "image_size": [84, 84], "patch_size": [14, 14]}, text_config=Qwen2Config(**TEXT),
        image_token_id=IMAGE, image_seq_length=9,
    )  # fmt: skip
    return InternVLForConditionalGeneration(config)


# -- one grid a picture ----------------------------------------------------------------------------------------------


def _paligemma() -> Any:
    from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaForConditionalGeneration

    vision = {"model_type": "siglip_vision_model", **VISION, "image_size": 42, "vision_use_head": False}
    config = PaliGemmaConfig(
        vision_config={**vision, "projection_dim": 32}, text_config=GemmaConfig(**TEXT, head_dim=8),
        image_token_index=IMAGE, projection_dim=32, hidden_size=32,
    )  # fmt: skip
    return PaliGemmaForConditionalGeneration(config)


def _gemma3() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig

    text = Gemma3TextConfig(
        **TEXT, head_dim=8, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"]
    )
    vision = {"model_type": "siglip_vision_model", **VISION, "image_size": 84, "vision_use_head": False}
    config = Gemma3Config(
        vision_config=vision, text_config=text, image_token_index=IMAGE, boi_token_index=OPEN, eoi_token_index=CLOSE,
        mm_tokens_per_image=9,
    )  # fmt: skip
    return Gemma3ForConditionalGeneration(config)


def _one_grid(side: int) -> Callable[[Any, torch.Generator], tuple[Tensor, list[int]]]:
    return lambda size, generator: (
        torch.randn(1, 3, side, side, generator=generator), [OPEN, *[IMAGE] * 9, CLOSE]
    )  # fmt: skip


# -- families without a file of their own -----------------------------------------------------------------------------


def _aya_vision() -> Any:
    """Its get_image_features gives a tensor."""
    from transformers import AyaVisionConfig, AyaVisionForConditionalGeneration, Cohere2Config

    vision = {"model_type": "siglip_vision_model", **VISION, "image_size": 84, "vision_use_head": False}
    config = AyaVisionConfig(
        vision_config=vision, text_config=Cohere2Config(**TEXT), image_token_index=IMAGE, downsample_factor=2,
        alignment_intermediate_size=32,
    )  # fmt: skip
    return AyaVisionForConditionalGeneration(config)


def _mistral3() -> Any:
    """Its get_image_features gives a list, of pictures of any size."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig

    vision = {"model_type": "pixtral", **VISION, "head_dim": 12, "image_size": 140}
    text = MistralConfig(**TEXT, sliding_window=None)
    config = Mistral3Config(vision_config=vision, text_config=text, image_token_index=IMAGE, spatial_merge_size=2)
    return Mistral3ForConditionalGeneration(config)


def _any_size(size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, list[int]]:
    height, width = size
    n = (height // 28) * (width // 28)
    return torch.randn(3, height, width, generator=generator), [OPEN, *[IMAGE] * n, CLOSE]


def _any_size_collect(rows: list[list[tuple[Any, Tensor]]]) -> dict[str, Any]:
    flat = [picture for row in rows for picture in row]
    high, wide = (max(size[axis] for size, _ in flat) for axis in (0, 1))
    pad = torch.nn.functional.pad
    pixels = [pad(p, (0, wide - p.shape[2], 0, high - p.shape[1])) for _, p in flat]
    return {"pixel_values": torch.stack(pixels), "image_sizes": torch.tensor([size for size, _ in flat])}


def _lfm2_vl() -> Any:
    """Layers with a convolution before layers with attention."""
    from transformers import Lfm2Config, Lfm2VlConfig, Lfm2VlForConditionalGeneration

    text = Lfm2Config(**TEXT, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False)
    vision = {"model_type": "siglip2_vision_model", **VISION, "num_patches": 36, "vision_use_head": False}
    config = Lfm2VlConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, projector_hidden_size=32,
    )  # fmt: skip
    return Lfm2VlForConditionalGeneration(config)


def _patches(size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, list[int]]:
    height, width = size
    n = height * width // 4
    return torch.randn(height * width, 3 * 14 * 14, generator=generator), [OPEN, *[IMAGE] * n, CLOSE]


def _patches_collect(rows: list[list[tuple[Any, Tensor]]]) -> dict[str, Any]:
    flat = [picture for row in rows for picture in row]
    most = max(len(pixels) for _, pixels in flat)
    pad = torch.nn.functional.pad
    return {
        "pixel_values": torch.stack([pad(p, (0, 0, 0, most - len(p))) for _, p in flat]),
        "pixel_attention_mask": torch.stack([pad(torch.ones(len(p), dtype=torch.int64), (0, most - len(p)))
                                             for _, p in flat]),
        "spatial_shapes": torch.tensor([size for size, _ in flat]),
    }  # fmt: skip


def _llama4() -> Any:
    """A layer that attends within chunks, and one whose queries are scaled by column."""
    from transformers import Llama4Config, Llama4ForConditionalGeneration, Llama4TextConfig

    text = Llama4TextConfig(
        **TEXT, head_dim=8, intermediate_size_mlp=48, num_local_experts=2, no_rope_layers=[1, 0], floor_scale=8192,
    )  # fmt: skip
    vision = {
        **VISION, "intermediate_size": 96, "image_size": 84, "vision_output_dim": 20, "projector_input_dim": 20,
        "projector_output_dim": 20,
    }  # fmt: skip
    model = Llama4ForConditionalGeneration(
        Llama4Config(text_config=text, vision_config=vision, image_token_index=IMAGE, boi_token_index=OPEN)
    )
    with torch.no_grad():
        for parameter in model.vision_model.vision_adapter.parameters():  # its tokens would hardly differ
            parameter.mul_(8)
    return model


def _ovis2() -> Any:
    """Four patches make up a token; the tokens around a picture are of the visual vocabulary."""
    from transformers import Ovis2Config, Ovis2ForConditionalGeneration, Qwen2Config

    vision = {**VISION, "image_size": 84, "vocab_size": 30, "hidden_stride": 2, "num_visual_indicator_tokens": 2}
    config = Ovis2Config(
        vision_config=vision, text_config=Qwen2Config(**TEXT), image_token_id=IMAGE, hidden_size=32,
        vocab_size=VOCABULARY, visual_indicator_token_ids=[OPEN, CLOSE],
    )  # fmt: skip
    return Ovis2ForConditionalGeneration(config)


def _kimi() -> Any:
    """Pictures of any size before DeepSeek's latent attention."""
    from transformers import DeepseekV3Config, Kimi_K25Config, Kimi_K25ForConditionalGeneration

    text = DeepseekV3Config(
        **{**TEXT, "num_key_value_heads": 4}, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        moe_intermediate_size=16, kv_lora_rank=16, q_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        first_k_dense_replace=1,
    )  # fmt: skip
    vision = {**VISION, "pos_emb_height": 8, "pos_emb_width": 8}
    config = Kimi_K25Config(
        vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO, projection_hidden_size=24,
    )  # fmt: skip
    return Kimi_K25ForConditionalGeneration(config)


def _kimi_picture(size: tuple[int, int, int], generator: torch.Generator) -> tuple[Tensor, list[int]]:
    t, h, w = size
    return torch.randn(t * h * w, 3, 14, 14, generator=generator), [OPEN, *[IMAGE] * (t * h * w // 4), CLOSE]


def _minicpm(version: str) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        text = transformers.Qwen3_5TextConfig(**{**TEXT, **_DELTA})
        vision = {**VISION, "image_size": 224, "num_hidden_layers": 3}
        config = getattr(transformers, f"MiniCPMV{version}Config")(
            vision_config=vision, text_config=text, image_token_id=IMAGE, video_token_id=VIDEO, insert_layer_id=1,
        )  # fmt: skip
        return getattr(transformers, f"MiniCPMV{version}ForConditionalGeneration")(config)

    return build


def _packed_picture(size: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, list[int]]:
    height, width = size
    return torch.randn(3, 14, height * width * 14, generator=generator), [
        OPEN,
        *[IMAGE] * (height * width // 16),
        CLOSE,
    ]


def _packed_collect(rows: list[list[tuple[Any, Tensor]]]) -> dict[str, Any]:
    flat = [picture for row in rows for picture in row]
    return {
        "pixel_values": torch.cat([pixels for _, pixels in flat], dim=-1)[None],
        "target_sizes": torch.tensor([size for size, _ in flat]),
    }


# -- LLaVA-1.5 -------------------------------------------------------------------------------------------------------


def _llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(**{**VISION, "num_hidden_layers": 3}, image_size=42, projection_dim=24)
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_index=IMAGE, image_seq_length=9,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def _vila() -> Any:
    """A SigLIP tower of five patches a side; the projector makes three tokens a side."""
    from salience.vlm.families.vila import with_downsampling

    return with_downsampling(_llava_siglip(70))


def _llava_siglip(side: int = 42) -> Any:
    """No [CLS]."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = {"model_type": "siglip_vision_model", **VISION, "image_size": side, "vision_use_head": False}
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_index=IMAGE, image_seq_length=9,
        vision_feature_select_strategy="full", vision_feature_layer=-2,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


_SIZES = [(40, 80), (84, 30), (50, 84)]

_TABLE = [
    Tiny(name="llava", build=_llava, sizes=[0], picture=_one_grid(42), collect=_flat_collect),
    Tiny(name="llava_siglip", build=_llava_siglip, sizes=[0], picture=_one_grid(42), collect=_flat_collect),
    Tiny(name="vila", build=_vila, sizes=[0], picture=_one_grid(70), collect=_flat_collect),
    _qwen("qwen2_vl", "Qwen2VLForConditionalGeneration", "Qwen2VLConfig",
          {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}),
    _qwen("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig",
          {"depth": 2, "hidden_size": 16, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 24,
           "window_size": 56, "fullatt_block_indexes": [1]}),
    _qwen("qwen3_vl", "Qwen3VLForConditionalGeneration", "Qwen3VLConfig",
          _QWEN3 | {"deepstack_visual_indexes": [0, 1]}, {"head_dim": 8}),
    _qwen("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", "Qwen3VLMoeConfig",
          _QWEN3 | {"deepstack_visual_indexes": [0, 1]},
          {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    _qwen("qwen3_5", "Qwen3_5ForConditionalGeneration", "Qwen3_5Config", _QWEN3, _DELTA),
    _qwen("qwen3_5_moe", "Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeConfig", _QWEN3,
          _DELTA | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                    "shared_expert_intermediate_size": 16}),
    _qwen("glm4v", "Glm4vForConditionalGeneration", "Glm4vConfig", _GLM, {"rope_parameters": _GLM_ROPE}, _GLM_IDS),
    _qwen("glm46v", "Glm46VForConditionalGeneration", "Glm46VConfig", _GLM | {"model_type": "glm4v_vision"},
          {"model_type": "glm4v_text", "rope_parameters": _GLM_ROPE}, _GLM_IDS),
    _qwen("glm4v_moe", "Glm4vMoeForConditionalGeneration", "Glm4vMoeConfig", _GLM,
          {"rope_parameters": _GLM_ROPE, "head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
           "moe_intermediate_size": 16}, _GLM_IDS),
    Tiny(name="llava_next", build=_llava_next, sizes=_SIZES, picture=_tiled_picture(None), collect=_tiled_collect),
    Tiny(name="llava_onevision", build=_llava_onevision, sizes=_SIZES, picture=_tiled_picture(2),
         collect=_tiled_collect),
    Tiny(name="idefics3", build=_shuffled("Idefics3"), sizes=[3, 1, 2], collect=_sample_collect,
         picture=functools.partial(_tiles, apart=True)),
    Tiny(name="smolvlm", build=_shuffled("SmolVLM"), sizes=[3, 1, 2], collect=_sample_collect,
         picture=functools.partial(_tiles, apart=True)),
    Tiny(name="internvl", build=_internvl, sizes=[3, 1, 2], collect=_flat_collect,
         picture=functools.partial(_tiles, apart=False)),
    Tiny(name="paligemma", build=_paligemma, sizes=[0], picture=_one_grid(42), collect=_flat_collect,
         types=lambda ids, mask: {"token_type_ids": torch.zeros_like(ids)}),
    Tiny(name="gemma3", build=_gemma3, sizes=[0], picture=_one_grid(84), collect=_flat_collect,
         types=_image_types("token_type_ids")),
    Tiny(name="lfm2_vl", build=_lfm2_vl, sizes=[(4, 6), (6, 4), (2, 8)], picture=_patches, collect=_patches_collect),
    Tiny(name="llama4", build=_llama4, sizes=[1, 2], picture=functools.partial(_tiles, apart=True),
         collect=_flat_collect, broken_on=["5.24.0"]),
    Tiny(name="ovis2", build=_ovis2, sizes=[1, 2], picture=functools.partial(_tiles, apart=True),
         collect=_flat_collect),
    Tiny(name="kimi_k25", build=_kimi, sizes=[(1, 6, 8), (1, 4, 6), (1, 8, 4)], picture=_kimi_picture,
         collect=_qwen_collect),
    Tiny(name="minicpmv4_6", build=_minicpm("4_6"), sizes=[(12, 16), (8, 12), (16, 8)], picture=_packed_picture,
         collect=_packed_collect),
    Tiny(name="minicpmv4_7", build=_minicpm("4_7"), sizes=[(12, 16), (8, 12), (16, 8)], picture=_packed_picture,
         collect=_packed_collect, types=_image_types("mm_token_type_ids")),
    Tiny(name="aya_vision", build=_aya_vision, sizes=[0], picture=_one_grid(84), collect=_flat_collect),
    Tiny(name="mistral3", build=_mistral3, sizes=[(84, 112), (56, 84), (140, 56)], picture=_any_size,
         collect=_any_size_collect),
]  # fmt: skip

FAMILIES = {family.name: family for family in _TABLE}
