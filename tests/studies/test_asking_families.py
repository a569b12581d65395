"""Families beyond LLaVA-1.5 asked through their own processors; those that need torchvision can't be built here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from salience.pruning.methods.uniform import Uniform
from salience.studies.asking import Asking
from salience.training.fit_scorer import FitConfig, fit

IMAGE, OPEN, CLOSE, END = 3, 4, 5, 7  # as tests/tiny_families.py has them


def tokenizer(special: dict[int, str], **named: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [special.get(number, f"w{number}") for number in range(64)]
    words[20:30] = "which digit is red ? yes no USER : ASSISTANT".split()
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[2]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=words[0], eos_token=words[1], unk_token=words[2],
        additional_special_tokens=list(special.values()), **({"extra_special_tokens": named} if named else {}),
    )  # fmt: skip


def chat(image: str) -> str:
    return (
        "{% for m in messages %}USER : {% for c in m['content'] %}{% if c['type'] == 'image' %} "
        + image
        + " {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT :"
        "{% endif %}"
    )


def idefics3() -> Any:
    from transformers.models.idefics3 import Idefics3ImageProcessorPil, Idefics3Processor

    words = {IMAGE: "<image>", OPEN: "<fake_token_around_image>", CLOSE: "<global-img>", END: "<end_of_utterance>"}
    images = Idefics3ImageProcessorPil(
        do_image_splitting=False, size={"longest_edge": 84}, max_image_size={"longest_edge": 84}
    )
    return Idefics3Processor(
        image_processor=images, tokenizer=tokenizer(words), image_seq_len=9, chat_template=chat("<image>")
    )


def llava_next() -> Any:
    from transformers.models.llava_next import LlavaNextImageProcessorPil, LlavaNextProcessor

    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42},
        image_grid_pinpoints=[[42, 84], [84, 42], [84, 84]],
    )  # fmt: skip
    return LlavaNextProcessor(
        image_processor=images, tokenizer=tokenizer({IMAGE: "<image>"}), patch_size=14,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=chat("<image>"),
    )  # fmt: skip


def gemma3() -> Any:
    from transformers.models.gemma3 import Gemma3ImageProcessorPil, Gemma3Processor

    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    words = {IMAGE: named["image_token"], OPEN: named["boi_token"], CLOSE: named["eoi_token"]}
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 84, "width": 84}), tokenizer=tokenizer(words, **named),
        chat_template=chat("<start_of_image>"), image_seq_length=9,
    )  # fmt: skip


def sample(image: Any, question: str, **fields: Any) -> Any:
    return SimpleNamespace(image=image, question=question, answer="yes", kind="", **fields)


@pytest.mark.filterwarnings("ignore")  # transformers' own, about its deprecated names
@pytest.mark.parametrize(
    ("family", "processor"),
    [("idefics3", idefics3), ("smolvlm", idefics3), ("llava_next", llava_next), ("gemma3", gemma3)],
)
def test_a_family_is_asked_in_batches(
    family: str, processor: Callable[[], Any], tiny_family: Callable[[str], Any]
) -> None:
    """Two questions of unlike length together, against each alone with its own padding, all tokens and half."""
    model, made = tiny_family(family).model(), processor()
    picture = Image.effect_noise((100, 70), 90).convert("RGB")
    questions = [sample(picture, "which digit is red ?"), sample(picture, "is red ?", choices=("yes", "no"))]
    together = Asking(model, made, [questions], max_new_tokens=2)
    apart = Asking(model, made, [[question] for question in questions], max_new_tokens=2)
    for method, keep in ((None, 1.0), (Uniform(), 0.5)):
        both, each = together.replies(method, keep), apart.replies(method, keep)
        assert (both.texts, both.chosen) == (each.texts, each.chosen)
        assert both.chosen[1] in ("yes", "no")
    full, half = together.replies(None, 1.0).tokens, both.tokens
    assert 0 < half[0] < full[0]


def test_fitting_a_scorer_for_another_family_is_refused_in_a_sentence(
    tiny_family: Callable[[str], Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="'smolvlm': use a training-free method"):
        fit(tiny_family("smolvlm").model(), FitConfig(), processor=None, out=tmp_path / "scorer", quiet=True)


@pytest.mark.filterwarnings("ignore")  # as above
def test_one_question_about_a_picture_that_is_cut_into_tiles(
    tiny_family: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`salience ask` counts the tokens of all views and draws the first, as the model saw it."""
    from salience.cli.main import run

    tiny_family("llava_next").model().save_pretrained(tmp_path / "model")
    llava_next().save_pretrained(tmp_path / "model")
    Image.effect_noise((100, 70), 90).convert("RGB").save(tmp_path / "picture.png")
    where = ["--model", str(tmp_path / "model"), "--picture", str(tmp_path / "kept.png"), "--json"]
    line = ["ask", str(tmp_path / "picture.png"), "which digit is red ?", "--method", "uniform", "--keep", ".5"]
    assert run([*line, *where]) == 0
    said = capsys.readouterr()
    assert "2 views" in said.err
    full, pruned = json.loads(said.out)["records"][0]["rows"]
    assert 0 < len(pruned["kept"]) < pruned["tokens_kept"] < full["tokens_kept"]
    with Image.open(tmp_path / "kept.png") as drawn:
        assert drawn.size == (42, 42)
