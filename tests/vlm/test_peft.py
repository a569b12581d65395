"""A model with PEFT's adapters is pruned like any other, through its wrapper or inside it, and trains so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import salience
from salience.vlm.families import adapter_for

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # PEFT asks it

# float32 keeps 24 bits and logits are of order one; the sums run over fewer terms in another order.
FLOAT32 = 1e-5
KINDS = ("llava", "qwen2_5_vl")  # one axis of positions, and three


def with_lora(model: Any, **options: Any) -> Any:
    """Adapters that change what the model says: PEFT's own start as zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **options)
        return peft.get_peft_model(model, config)


def masked(model: Any, batch: dict[str, Any], pruned: Any) -> dict[str, Any]:
    """The oracle's arguments: the whole sequence, what the trace says is gone masked."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    stays = torch.zeros_like(ids, dtype=torch.bool)
    for row, columns in enumerate(pruned.trace.columns):
        stays[row, columns[columns >= 0]] = True
    positions = adapter_for(model).position_ids(batch, mask, generating=False)
    return {**batch, "attention_mask": mask.masked_fill(~stays, 0), "position_ids": positions}


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest, tiny_family: Any) -> Any:
    return tiny_family(request.param)


@pytest.mark.parametrize("target", ["wrapper", "inside"])
@torch.no_grad()
def test_two_lines(family: Any, target: str, photograph: Any) -> None:
    model, batch = with_lora(family.model()).eval(), family.batch([1, 2])
    before, plain = photograph(model), family.model()
    with salience.prune(model if target == "wrapper" else model.get_base_model(), "uniform", keep=0.5) as pruned:
        short = model(**batch).logits
        said = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert photograph(model) == before
    full = model(**masked(model, batch, pruned)).logits
    for row, columns in enumerate(pruned.trace.columns):
        real = (columns >= 0) & (batch["attention_mask"][row, columns.clamp_min(0)] == 1)
        torch.testing.assert_close(short[row, real], full[row, columns[real]], atol=FLOAT32, rtol=0)
    assert torch.equal(said[:, : batch["input_ids"].shape[1]], batch["input_ids"])
    with salience.prune(plain, "uniform", keep=0.5):
        assert (plain(**batch).logits - short).abs().max() > 100 * FLOAT32  # the adapters do something


def test_a_training_step_has_the_masked_ones_gradient(family: Any) -> None:
    """Of the adapters alone: nothing else is trained."""
    batch = family.batch([1, 2])
    ids = batch["input_ids"]
    behind = torch.nn.functional.pad(ids == 3, (1, 0))[:, :-1]  # the token that predicts it may be gone
    labels = ids.masked_fill((batch["attention_mask"] == 0) | (ids == 3) | behind, -100)
    gradients: list[dict[str, Tensor]] = []
    for way in ("pruned", "masked"):
        model = with_lora(family.model()).train()
        if way == "pruned":
            with salience.prune(model, "uniform", keep=0.5) as pruned:
                loss = model(**batch, labels=labels).loss
        else:
            loss = model(**masked(model, batch, pruned), labels=labels).loss
        loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    got, wanted = gradients
    assert got.keys() == wanted.keys()
    assert all("lora_" in name for name in got)
    for name, gradient in wanted.items():
        # float32 sums of other lengths, through two layers and back: relative to the largest entry
        assert (got[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max().clamp_min(1e-3), name


def test_trained_adapters_are_pruned_merged_and_not(family: Any) -> None:
    """A fine-tuned model: a step with tokens dropped, then the adapters folded into the weights."""
    model, batch = with_lora(family.model()).train(), family.batch([1, 1])
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    steps = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(2):
        with salience.prune(model, "uniform", keep=0.5):
            loss = model(**batch, labels=labels.masked_fill(batch["input_ids"] == 3, -100)).loss
        loss.backward()
        steps.step()
        steps.zero_grad()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    model.eval()
    with torch.no_grad(), salience.prune(model, "uniform", keep=0.5):
        wanted = model(**batch).logits
    tuned = model.merge_and_unload()
    with torch.no_grad(), salience.prune(tuned, "uniform", keep=0.5):
        # W + B A is rounded once to float32 where W x + B (A x) is not
        torch.testing.assert_close(tuned(**batch).logits, wanted, atol=1e-4, rtol=0)


@torch.no_grad()
def test_adapters_in_the_tower_have_their_say(tiny_family: Any) -> None:
    """[CLS]'s attention is that of the weights and the adapters together."""
    family = tiny_family("llava")
    model, batch = family.model(), family.batch([1, 2])
    model.set_attn_implementation("eager")
    config = peft.LoraConfig(r=2, target_modules=".*vision_tower.*k_proj", init_lora_weights=False)
    tuned = peft.get_peft_model(model, config).eval()
    got = adapter_for(tuned).encode(batch["pixel_values"]).cls_attention()
    wanted = tuned.model.model.vision_tower(batch["pixel_values"], output_attentions=True).attentions[-2]
    torch.testing.assert_close(got, wanted[:, :, 0, 1:].mean(1), atol=FLOAT32, rtol=0)
    with tuned.disable_adapter():
        assert (adapter_for(tuned).encode(batch["pixel_values"]).cls_attention() - got).abs().max() > 100 * FLOAT32


def test_twice_is_refused_whoever_is_asked(tiny_family: Any) -> None:
    model = with_lora(tiny_family("llava").model())
    for first, second in ((model, model.get_base_model()), (model.get_base_model(), model)):
        with (
            salience.prune(first, "uniform", keep=0.5),
            pytest.raises(ValueError, match="already being pruned"),
        ):
            salience.prune(second, "uniform", keep=0.5)


def test_a_learned_prompt_is_refused(tiny_family: Any) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    model = peft.get_peft_model(tiny_family("llava").model(), config)
    with pytest.raises(ValueError, match=r"'default' must not learn a prompt, as PROMPT_TUNING does: .*columns\.$"):
        salience.prune(model, "uniform", keep=0.5)


@pytest.mark.parametrize("in_tower", [False, True])
def test_the_bundled_scorer_is_found(tiny_family: Any, caplog: pytest.LogCaptureFixture, in_tower: bool) -> None:
    """Adapters in the language model leave the tower, which the scorer is made for, as it was; in it they are told."""
    from transformers import LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(salience.bundled_model())
    adapted = with_lora(model, **({} if in_tower else {"exclude_modules": ".*vision_tower.*"}))
    with salience.prune(adapted, "saliency", keep=0.25) as pruned:
        assert pruned.method.name == "saliency"
    told = [record.message for record in caplog.records if "PEFT adapters" in record.message]
    assert len(told) == in_tower
    own = salience.Scorer(192, model=adapter_for(adapted).fingerprint())
    salience.prune(adapted, own, keep=0.25).undo()
    assert len([record for record in caplog.records if "PEFT adapters" in record.message]) == in_tower
