"""The scorer of a model from the hub is found in its repository: a local cache stands in for the hub here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import salience
from salience.lab.fit.fit_scorer import scorers_for
from salience.vlm.families import adapter_for
from salience.vlm.model_scorer import own_scorer

hub = pytest.importorskip("huggingface_hub")
NAME, COMMIT = "somebody/a-vlm", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the repository's commit in an empty local cache; nothing is asked of the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--somebody--a-vlm"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


@pytest.fixture
def model(make_model: Callable[..., Any]) -> Any:
    """A model as `from_pretrained(NAME)` leaves it."""
    model = make_model()
    model.name_or_path, model.config._commit_hash = NAME, COMMIT
    return model


def scorer_of(model: Any) -> salience.Scorer:
    return salience.Scorer(24, model=adapter_for(model).fingerprint())


@pytest.mark.parametrize("method", ["saliency", "auto"])
@torch.no_grad()
def test_from_the_cache(model: Any, cache: Path, make_batch: Any, method: str) -> None:
    scorer = scorer_of(model)
    scorer.save_pretrained(cache / "salience")
    with salience.prune(model, method, tokens=4) as pruned:
        model(**make_batch([1]))
    found = pruned.trace.images[0].kept
    with salience.prune(model, scorer, tokens=4) as pruned:
        model(**make_batch([1]))
    assert torch.equal(found, pruned.trace.images[0].kept)
    assert list(scorers_for(adapter_for(model))) == [0]


def test_at_the_model_s_revision(model: Any, cache: Path) -> None:
    scorer_of(model).save_pretrained(cache / "salience")
    assert own_scorer(NAME, COMMIT).folder == own_scorer(NAME).folder == cache / "salience"
    model.config._commit_hash = COMMIT[::-1]
    with pytest.raises(ValueError, match=f"the hub repository {NAME} at {COMMIT[::-1][:12]} can't be asked for"):
        salience.prune(model, "saliency", tokens=4)


def test_of_another_tower_it_is_refused(model: Any, cache: Path, tiny_llava: Callable[..., Any]) -> None:
    scorer_of(tiny_llava(side=56, layers=3, seed=5)).save_pretrained(cache / "salience")
    for method in ("saliency", "auto"):
        with pytest.raises(ValueError, match="was trained on another vision tower than this model's"):
            salience.prune(model, method, tokens=4)


def test_offline_it_says_what_was_looked_for(model: Any, cache: Path) -> None:
    with pytest.raises(ValueError, match="there is none") as caught:
        salience.prune(model, "saliency", tokens=4)
    for words in (
        f"the hub repository {NAME} at {COMMIT[:12]} can't be asked for salience/config.json (",
        "the bundled scorer is made for another vision tower",
        "train one with `salience fit`, or use a training-free method such as 'cls-attention'.",
    ):
        assert words in str(caught.value)
    with salience.prune(model, "auto", tokens=4) as pruned:
        assert pruned.method.name == "cls-attention"


def test_a_repository_without_one(model: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is asked once, and a commit that is known to have none is not asked again."""
    asked = []

    def download(name: str, file: str, *, revision: str | None) -> str:
        asked.append((name, file, revision))
        known = cache.parents[1] / ".no_exist" / COMMIT / "salience"
        known.mkdir(parents=True)
        (known / "config.json").touch()
        raise hub.errors.EntryNotFoundError("404")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"the hub repository {NAME} at {COMMIT[:12]} has no salience/config.json"):
            salience.prune(model, "saliency", tokens=4)
    assert asked == [(NAME, "salience/config.json", COMMIT)]


def test_it_is_downloaded(model: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer_of(model).save_pretrained(tmp_path / "remote" / "salience")
    lost: set[str] = set()

    def download(name: str, file: str, *, revision: str | None) -> str:
        if file in lost:
            raise ConnectionError("gone")
        return str(tmp_path / "remote" / file)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with salience.prune(model, "saliency", tokens=4) as pruned:
        assert pruned.method.name == "saliency"
    lost.add("salience/model.safetensors")
    with pytest.raises(
        ValueError, match=r"has a scorer's config, but can't be asked for salience/model.safetensors \(Conn"
    ):
        salience.prune(model, "auto", tokens=4)


def test_a_folder_is_no_repository(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).mkdir(parents=True)
    assert own_scorer(NAME).not_in == (f"{NAME}/salience has no config.json",)
    assert own_scorer("").not_in == ()
