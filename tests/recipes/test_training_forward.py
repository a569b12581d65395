"""The recipes train through forwards of their own; these must be what the stock models compute."""

from __future__ import annotations

import describe
import numpy as np
import reader
import torch
import tower
import tune
from transformers import CLIPVisionModel, LlamaForCausalLM
from vocabulary import EOS, IDS, build_processor, question_ids

from salience.lab.data.scene_pictures import Layout, draw_picture
from salience.lab.data.scenes import Question


def test_the_towers_training_forward_is_the_stock_one() -> None:
    model = CLIPVisionModel(tower.tower_config()).eval()
    tower.initialise(model, 0)
    pixels = torch.randn(2, 3, 336, 336)
    places = torch.arange(576).expand(2, -1)
    with torch.no_grad():
        ours = tower.encode(model, pixels, places, tower.LAYERS - 1)
        stock = model(pixels, output_hidden_states=True).hidden_states[-2]
    # float32, four layers of values up to 5, sums of 577 terms in another order
    torch.testing.assert_close(ours, stock, atol=1e-4, rtol=1e-4)


def test_the_language_models_training_forward_is_the_stock_one() -> None:
    model = LlamaForCausalLM(reader.language_config()).eval()
    reader.initialise(model, 0)
    said = describe.Description(reader.WIDTH)
    rng = np.random.default_rng(0)
    what, cells, asked = describe.describe(rng, 40)
    batch = describe.collate([(what, cells, asked[:3])], count_weight=1.0)
    with torch.no_grad():
        visual = said(batch.said)
        ours, want, _ = reader.answer_logits(model, visual, batch)
        table = model.model.embed_tokens
        rows = []
        for question in asked[:3]:
            ids = torch.tensor([[*question_ids(question.text), IDS[question.answer]]])
            start = table(torch.tensor([list(describe.PREFIX)]))
            embedded = torch.cat([start, visual[:, : len(cells)], table(ids)], 1)
            at = [0, 1, *(cells + describe.FIRST), *range(describe.AFTER, describe.AFTER + ids.shape[1])]
            mask = torch.ones(1, embedded.shape[1], dtype=torch.long)
            out = model(inputs_embeds=embedded, position_ids=torch.tensor([at]), attention_mask=mask)
            rows.append(out.logits[0, -2:])
            assert want[len(rows) * 2 - 2] == IDS[question.answer] and want[len(rows) * 2 - 1] == EOS
    # float32, six layers: sums in another order
    torch.testing.assert_close(ours, torch.cat(rows), atol=1e-4, rtol=1e-4)


def test_padding_and_other_questions_change_nothing() -> None:
    model = LlamaForCausalLM(reader.language_config()).eval()
    said = describe.Description(reader.WIDTH)
    rng = np.random.default_rng(1)
    small, large = describe.describe(rng, 30), describe.describe(rng, 90)
    with torch.no_grad():
        alone = describe.collate([(small[0], small[1], small[2][:2])], count_weight=1.0)
        beside = describe.collate([small, large], count_weight=1.0)
        first, _, _ = reader.answer_logits(model, said(alone.said), alone)
        both, _, _ = reader.answer_logits(model, said(beside.said), beside)
    # the same values through kernels of other shapes, in float32
    torch.testing.assert_close(first, both[: len(first)], atol=1e-5, rtol=1e-4)


def test_dense_labels_say_what_was_drawn() -> None:
    picture = draw_picture(np.random.default_rng(3), "train", Layout(side=168, items=(2, 4)))
    found = tower.labels(picture, 12)
    for n, item in enumerate(picture.items):
        own = torch.from_numpy(picture.ink[n].reshape(-1) >= tower.INKED)
        assert (found["digit"][own] >= 0).all()
        x, y = item.centre
        holds = int(y // 14) * 12 + int(x // 14)
        assert found["centre"][holds] == 1 and found["digit"][holds] == item.digit
    assert found["pairs"].sum() == len(picture.items)
    assert ((found["digit"] >= 0) == (found["colour"] >= 0)).all()


def test_owners_agree_with_labels() -> None:
    picture = draw_picture(np.random.default_rng(4), "train")
    owner, found = tune.owner_of(picture.items, picture.ink), tower.labels(picture, 24)
    digits = np.array([item.digit for item in picture.items])
    held = owner >= 0
    assert (digits[owner[held]] == found["digit"].numpy()[held]).all()
    said = describe.said_of(picture.items, owner)
    assert said[:, 4].sum() == len(picture.items)
    assert (said[~held][:, 0] == describe.NONE_DIGIT).all()


def test_questions_are_packed_apart_and_answers_stand_where_they_are_read() -> None:
    questions = [
        Question(text="which digit is red?", answer="7", kind="digit-of-colour", about=(0,)),
        Question(text="how many digits are there?", answer="5", kind="count", about=(0, 1)),
    ]
    ids, positions, block, answers, weights = describe.pack([questions], count_weight=3.0)
    for n, question in enumerate(questions):
        own = block[0] == n
        assert ids[0][own].tolist() == [*question_ids(question.text), IDS[question.answer]]
        assert positions[0][own].tolist() == list(range(describe.AFTER, describe.AFTER + int(own.sum())))
        assert answers[0][own][-2:].tolist() == [IDS[question.answer], EOS]
    assert weights.max() == 3.0


def test_the_processors_prompt_is_the_one_trained_on() -> None:
    processor = build_processor()
    asked = "which digit is left of the red one?"
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True)
    picture = draw_picture(np.random.default_rng(0), "val").image
    inputs = processor(images=picture, text=text, return_tensors="pt")
    ids = inputs["input_ids"][0].tolist()
    assert ids[:2] == list(describe.PREFIX) and ids[2:578] == [IDS["<image>"]] * 576
    assert ids[578:] == question_ids(asked)
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
    # float32 rounding of one division and one subtraction
    torch.testing.assert_close(inputs["pixel_values"][0], (pixels - tower.MEAN) / tower.STD, atol=1e-5, rtol=0)
