"""The bundled model's words, tokenizer, processor and chat template."""

from __future__ import annotations

from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from salience.lab.data.scene_pictures import COLOURS

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:")
WORDS = (
    *(str(d) for d in range(10)), *COLOURS,
    *"which digit colour is the there a an how many digits are left right of above below one yes no ?".split(),
)  # fmt: skip
IDS = {word: n for n, word in enumerate(SPECIAL + WORDS)}
VOCABULARY = 64
PAD, BOS, EOS, IMAGE, USER, ASSISTANT = (IDS[w] for w in ("<pad>", "<s>", "</s>", "<image>", "USER:", "ASSISTANT:"))
CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% for part in message['content'] %}"
    "{% if part is string %}{{ part }}{% elif part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% else %} ASSISTANT: {% for part in message['content'] %}"
    "{% if part is string %}{{ part }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def question_ids(text: str) -> list[int]:
    """The tokens of a question and the turn's end: what stands between the picture and the answer."""
    return [IDS[word] for word in text.lower().replace("?", " ?").split()] + [ASSISTANT]


def build_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    core = Tokenizer(models.WordLevel(dict(IDS), unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=["<image>", "USER:", "ASSISTANT:"], padding_side="left", model_max_length=2048,
    )  # fmt: skip


def build_processor() -> LlavaProcessor:
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, do_center_crop=True
    )
    return LlavaProcessor(
        image_processor=pictures, tokenizer=build_tokenizer(), patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token="<image>", chat_template=CHAT,
    )  # fmt: skip
