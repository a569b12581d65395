"""Published files: what is read, what is written, and what is refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from salience import MambaLM

from .conftest import ROWS, VOCABULARY, build_theirs, near

HEAD = "lm_head.weight"
EMBEDDING = {"hf": "backbone.embeddings.weight", "original": "backbone.embedding.weight"}


@pytest.fixture
def folder(saved: dict[str, Path], layout: str, tmp_path: Path) -> Path:
    """A copy of the saved model that a test may change."""
    return shutil.copytree(saved[layout], tmp_path / layout)


def change(folder: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    """Write the folder's weights again after `how` has changed them."""
    weights = load_file(folder / "model.safetensors")
    how(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def reconfigure(folder: Path, **fields: Any) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | fields))


def same(a: MambaLM, b: MambaLM) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def refused(folder: Path | str, said: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=said) as told:
        MambaLM.from_pretrained(folder, **options)
    assert str(told.value).rstrip(".").count(". ") == 0 and "\n" not in str(told.value)  # one sentence


def test_what_is_read(saved: dict[str, Path], layout: str) -> None:
    model = MambaLM.from_pretrained(saved[layout])
    assert not model.training and model.lm_head.weight is model.backbone.embeddings.weight
    assert model.config.rows == ROWS
    assert model.config.vocab_size == (VOCABULARY if layout == "original" else ROWS)
    assert (model.config.d_state, model.config.dt_rank) == (5, 3)


@pytest.mark.parametrize("there", [True, False], ids=["head there", "head omitted"])
def test_a_tied_head_may_be_there_or_not(saved: dict[str, Path], folder: Path, layout: str, there: bool) -> None:
    def put(weights: dict[str, Any]) -> None:
        weights.pop(HEAD, None)
        if there:
            weights[HEAD] = weights[EMBEDDING[layout]].clone()

    change(folder, put)
    same(MambaLM.from_pretrained(folder), MambaLM.from_pretrained(saved[layout]))


def test_a_head_that_is_not_the_embedding(folder: Path, layout: str) -> None:
    change(folder, lambda w: w.update({HEAD: w[EMBEDDING[layout]] + 1}))
    refused(folder, "has a lm_head.weight that is not its embedding, and its config.json says they are one")
    reconfigure(folder, **{{"hf": "tie_word_embeddings", "original": "tie_embeddings"}[layout]: False})
    model = MambaLM.from_pretrained(folder)
    near(model.lm_head.weight, model.backbone.embeddings.weight + 1)
    change(folder, lambda w: w.pop(HEAD))
    refused(folder, "it lacks lm_head.weight")


def test_early_hf_files_name_the_embedding_as_the_original(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved["hf"], tmp_path / "early")
    change(folder, lambda w: w.update({EMBEDDING["original"]: w.pop(EMBEDDING["hf"])}))
    same(MambaLM.from_pretrained(folder), MambaLM.from_pretrained(saved["hf"]))


def shard(folder: Path, suffix: str, write: Callable[[dict[str, Any], Path], Any]) -> list[Path]:
    """Two shards and their index in place of the folder's one file."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names, files = sorted(weights), [folder / f"{stem}-{i}-of-2.{suffix}" for i in (1, 2)]
    halves = [names[::2], names[1::2]]
    for half, file in zip(halves, files, strict=True):
        write({name: weights[name] for name in half}, file)
    index = {name: file.name for half, file in zip(halves, files, strict=True) for name in half}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return files


def test_shards(saved: dict[str, Path], folder: Path, layout: str) -> None:
    files = shard(folder, "safetensors", save_file)
    same(MambaLM.from_pretrained(folder), MambaLM.from_pretrained(saved[layout]))
    files[1].unlink()
    refused(folder, "has no model-2-of-2.safetensors, which its index names")


def test_transformers_own_shards(theirs: Any, saved: dict[str, Path], tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="8KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    same(MambaLM.from_pretrained(tmp_path), MambaLM.from_pretrained(saved["hf"]))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "shards"])
def test_a_bin_is_read_when_asked_for(saved: dict[str, Path], folder: Path, layout: str, whole: bool) -> None:
    if whole:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    else:
        shard(folder, "bin", torch.save)
    refused(folder, r"has its weights pickled \(pytorch_model.*\.bin\): read them with allow_pickle=True")
    same(MambaLM.from_pretrained(folder, allow_pickle=True), MambaLM.from_pretrained(saved[layout]))


class Trap:
    """What a malicious file holds: reading it without care runs a command."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_a_bin_that_holds_code_runs_none(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    refused(folder, "holds something else than weights, which torch's loader refuses", allow_pickle=True)
    assert not (tmp_path / "sprung").exists()


def test_a_safe_file_is_taken_before_a_bin(saved: dict[str, Path], folder: Path, layout: str) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    same(MambaLM.from_pretrained(folder, allow_pickle=True), MambaLM.from_pretrained(saved[layout]))


def test_round_trip(saved: dict[str, Path], theirs: Any, ids: Any, layout: str, tmp_path: Path) -> None:
    """Read in one layout, written in each, read again; transformers reads the -hf one."""
    model = MambaLM.from_pretrained(saved[layout])
    for written in ("hf", "original"):
        again = MambaLM.from_pretrained(model.save_pretrained(tmp_path / written, layout=written))
        same(again, model)
        assert again.config == model.config or written == "hf"  # which has no word for rows that mean nothing
    names = set(load_file(tmp_path / "original" / "model.safetensors"))
    assert names == set(load_file(saved["original"] / "model.safetensors"))
    told = json.loads((tmp_path / "original" / "config.json").read_text())
    published = json.loads((saved["original"] / "config.json").read_text())
    assert told["ssm_cfg"] == published["ssm_cfg"]
    if layout == "original":
        assert {name: told[name] for name in published} == published
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        near(AutoModelForCausalLM.from_pretrained(tmp_path / "hf")(ids(2, 9)).logits, theirs(ids(2, 9)).logits)


def test_round_trip_of_an_untied_model_in_another_dtype(tmp_path: Path, layout: str) -> None:
    model = MambaLM(vocab_size=13, d_model=8, n_layers=1, d_state=3, bias=True, tie_embeddings=False).bfloat16()
    model.generation_config |= {"eos_token_id": 3, "do_sample": True}
    again = MambaLM.from_pretrained(model.save_pretrained(tmp_path, layout=layout))
    same(again, model)
    assert again.config == model.config and again.generation_config == model.generation_config
    assert again.lm_head.weight.dtype == torch.bfloat16


def test_what_cannot_be_written(tmp_path: Path) -> None:
    model = MambaLM(vocab_size=13, d_model=8, n_layers=1, norm_eps=1e-3)
    with pytest.raises(ValueError, match='layout must be "hf" or "original", not \'gguf\''):
        model.save_pretrained(tmp_path, layout="gguf")
    with pytest.raises(ValueError, match=r'layout must be "hf" for a norm_eps of 0\.001'):
        model.save_pretrained(tmp_path, layout="original")
    assert list(tmp_path.iterdir()) == []


DT = "backbone.layers.1.mixer.dt_proj.bias"


def test_weights_that_do_not_fit(folder: Path) -> None:
    def lose(weights: dict[str, Any]) -> None:
        weights["more"] = weights.pop(DT)

    change(folder, lose)
    refused(folder, f"does not hold the weights its config.json describes: it lacks {DT} and has the surplus more")
    change(folder, lambda w: w.update({DT: torch.zeros(7)}) or w.pop("more"))  # type: ignore[func-returns-value]
    refused(folder, rf"has a {DT} of shape \(7,\), and its config.json wants \(40,\)")


def test_a_config_that_tells_of_more_layers(folder: Path, layout: str) -> None:
    reconfigure(folder, **{{"hf": "num_hidden_layers", "original": "n_layer"}[layout]: 3})
    refused(folder, r"it lacks backbone.layers.2.*and \d+ more")


def test_fields_nobody_knows(folder: Path, layout: str) -> None:
    reconfigure(folder, gates="two", attention=True)
    refused(folder, "config.json has fields this version does not know: attention, gates")
    if layout == "original":
        shutil.copy(folder / "config.json", folder / "before.json")
        told = json.loads((folder / "config.json").read_text())
        del told["gates"], told["attention"]
        (folder / "config.json").write_text(json.dumps(told | {"ssm_cfg": {"d_state": 5, "heads": 2}}))
        refused(folder, "ssm_cfg in .*config.json has fields this version does not know: heads")


def test_values_that_mean_another_model(saved: dict[str, Path], folder: Path, layout: str) -> None:
    if layout == "hf":
        reconfigure(folder, hidden_act="gelu")
        refused(folder, "says hidden_act is 'gelu', and MambaLM runs 'silu' only")
        reconfigure(folder, hidden_act="silu", model_type="llama", num_attention_heads=2)
        refused(folder, "says model_type is 'llama', and MambaLM runs 'mamba' only")
        reconfigure(folder, model_type="mamba")
        refused(folder, "fields this version does not know: num_attention_heads")
        shutil.copy(saved["hf"] / "config.json", folder)
    else:
        reconfigure(folder, rms_norm=False)
        refused(folder, "says rms_norm is False, and MambaLM runs True only")
        reconfigure(folder, rms_norm=True)
    reconfigure(folder, **{{"hf": "state_size", "original": "d_model"}[layout]: 0})
    refused(folder, "describes no Mamba: d_(state|model) must be a whole number of at least 1, not 0")


def test_mamba_2_is_refused_by_name(saved: dict[str, Path], tmp_path: Path) -> None:
    from transformers import Mamba2Config

    shape = {"hidden_size": 32, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}
    folder = shutil.copytree(saved["hf"], tmp_path / "hf")
    Mamba2Config(vocab_size=32, num_hidden_layers=1, **shape).save_pretrained(folder)
    refused(folder, "describes a Mamba-2, another recurrence: MambaLM runs S6")
    folder = shutil.copytree(saved["original"], tmp_path / "original")
    reconfigure(folder, ssm_cfg={"layer": "Mamba2"}, attn_layer_idx=[], attn_cfg={}, pad_vocab_size_multiple=16)
    refused(folder, "ssm_cfg in .*config.json describes a Mamba-2, another recurrence")


def test_folders_without_a_model(saved: dict[str, Path], tmp_path: Path, folder: Path) -> None:
    refused(tmp_path / "nowhere", "is neither a model's folder nor a hub id of the form 'owner/name'")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is no model's folder: it has no config.json")
    (folder / "model.safetensors").unlink()
    refused(folder, "is no model's folder: it has no model.safetensors, and no model.safetensors.index.json")
    (folder / "config.json").write_text("[1]")
    refused(folder, "must hold a JSON object")
    (folder / "config.json").write_text("{")
    refused(folder, "is not JSON")


def test_damaged_files(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(folder, "model.safetensors is damaged")


def test_a_name_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*args: Any, **options: Any) -> None:
        raise OSError("offline\nwith details")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    refused("owner/name", r"no model 'owner/name': no such folder, and the hub does not give it \(offline\)")


def test_the_hub_is_asked_for_what_is_read(saved: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def give(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(saved["hf"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    MambaLM.from_pretrained("owner/name", revision="v1")
    MambaLM.from_pretrained("owner/name", allow_pickle=True)
    safe = ["*.json", "*.safetensors"]
    assert asked == [("owner/name", "v1", safe), ("owner/name", None, [*safe, "pytorch_model*.bin"])]


def test_a_checkpoint_with_fewer_rows_than_its_config_pads_to(folder: Path, layout: str) -> None:
    theirs = build_theirs(vocab_size=40)
    change(folder, lambda w: w.update({EMBEDDING[layout]: theirs.backbone.embeddings.weight.detach().clone()}))
    change(folder, lambda w: w.pop(HEAD, None))
    refused(folder, r"has a (lm_head|backbone.embeddings).weight of shape \(40, 20\), .* wants \(48, 20\)")
