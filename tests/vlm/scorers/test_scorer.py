"""The scorer and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from salience.vlm.scorers.scorer import Scorer
from salience.vlm.scorers.scorer_config import ARCHITECTURES


def test_one_logit_a_token() -> None:
    scorer = Scorer(12, hidden=5)
    assert scorer(torch.randn(16, 12)).shape == (16,)
    assert scorer(torch.randn(2, 3, 16, 12)).shape == (2, 3, 16)
    assert scorer(torch.randn(16, 12, dtype=torch.bfloat16)).dtype == torch.float32


def test_a_token_is_scored_by_itself() -> None:
    scorer, features = Scorer(12).eval(), torch.randn(16, 12)
    order = torch.randperm(16)
    # float32 products of the same rows, in another order of rows
    torch.testing.assert_close(scorer(features[order]), scorer(features)[order], atol=1e-6, rtol=0)


def test_round_trip(tmp_path: Path) -> None:
    scorer = Scorer(12, hidden=5, objective="distil", model={"tower": "clip", "sample": [1.0]}, training={"steps": 3})
    folder = scorer.save_pretrained(tmp_path / "deep" / "scorer")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    again = Scorer.from_pretrained(folder)
    assert again.config == scorer.config
    assert not again.training
    features = torch.randn(16, 12)
    assert torch.equal(again(features), scorer(features))


def test_saving_again_replaces_and_leaves_nothing_aside(tmp_path: Path) -> None:
    Scorer(12).save_pretrained(tmp_path / "scorer")
    Scorer(7).save_pretrained(tmp_path / "scorer")
    assert Scorer.from_pretrained(tmp_path / "scorer").config.d_features == 7
    assert [path.name for path in tmp_path.iterdir()] == ["scorer"]


def test_saving_leaves_what_else_the_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    Scorer(12).save_pretrained(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert Scorer.from_pretrained(tmp_path).config.d_features == 12


def test_a_failed_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    Scorer(12).save_pretrained(tmp_path / "scorer")
    monkeypatch.setattr(safetensors.torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        Scorer(7).save_pretrained(tmp_path / "scorer")
    assert Scorer.from_pretrained(tmp_path / "scorer").config.d_features == 12
    assert [path.name for path in tmp_path.iterdir()] == ["scorer"]


def test_another_architecture_is_a_file_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config without an architecture is an MLP's."""
    (tmp_path / "mean_scorer.py").write_text(
        "from torch import nn\n\nclass Mean(nn.Linear):\n    def __init__(self, config):\n"
        "        super().__init__(config.d_features, 1)\n\n"
        "    def forward(self, features):\n        return super().forward(features).squeeze(-1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ARCHITECTURES, "mean", "mean_scorer:Mean")
    scorer, features = Scorer(12, architecture="mean"), torch.randn(2, 16, 12)
    again = Scorer.from_pretrained(scorer.save_pretrained(tmp_path / "mean"))
    assert torch.equal(again(features), scorer(features)) and again(features).shape == (2, 16)
    folder = Scorer(12).save_pretrained(tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({name: v for name, v in config.items() if name != "architecture"}))
    assert Scorer.from_pretrained(folder).config.architecture == "mlp"


class TestRefused:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return Scorer(12).save_pretrained(tmp_path / "scorer")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(ValueError, match=f"has no {name}"):
            Scorer.from_pretrained(folder)

    def test_an_unknown_field(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "dropout": 0.1}))
        with pytest.raises(ValueError, match="fields this version does not know: dropout"):
            Scorer.from_pretrained(folder)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "llava"}'])
    def test_another_config(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"is not JSON|is no scorer's config"):
            Scorer.from_pretrained(folder)

    def test_weights_of_another_shape(self, folder: Path, tmp_path: Path) -> None:
        other = Scorer(7).save_pretrained(tmp_path / "other")
        (other / "model.safetensors").replace(folder / "model.safetensors")
        with pytest.raises(ValueError, match="does not hold the weights"):
            Scorer.from_pretrained(folder)

    def test_truncated_weights(self, folder: Path) -> None:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(ValueError, match="does not hold the weights"):
            Scorer.from_pretrained(folder)

    @pytest.mark.parametrize("where", ["nowhere", "/nowhere/at/all", "./a/b/c"])
    def test_no_folder(self, where: str) -> None:
        with pytest.raises(ValueError, match="neither a scorer's folder nor a hub id"):
            Scorer.from_pretrained(where)

    def test_an_unknown_architecture(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="architecture must be one of mlp, not 'cnn'"):
            Scorer(12, architecture="cnn")
        config = json.loads((folder / "config.json").read_text())
        assert config["architecture"] == "mlp"
        (folder / "config.json").write_text(json.dumps({**config, "architecture": "cnn"}))
        with pytest.raises(ValueError, match="architecture must be one of mlp"):
            Scorer.from_pretrained(folder)

    @pytest.mark.parametrize("width", [0, -1, 1.5, True, None])
    def test_a_width_that_is_none(self, width: Any) -> None:
        with pytest.raises(ValueError, match="d_features must be a whole number of at least 1"):
            Scorer(width)
