"""The plug-in for lmms-eval against a stand-in of its interface: lmms-eval itself is not installed beside the tests."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from salience.lab.evaluate.prompts import prompt_inputs

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Manifest:
    model_id: str
    simple_class_path: str


class Lmms:
    """What lmms-eval's base class gives a model."""

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}
        self.cached: list[Any] = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *given: self.cached.append(given))


@pytest.fixture
def model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_llava: Callable[..., Any],
    tiny_processor: Callable[[int], Any],
) -> Iterator[Callable[..., Any]]:  # fmt: skip
    for name, contents in {
        "lmms_eval": {}, "lmms_eval.api": {}, "lmms_eval.api.model": {"lmms": Lmms}, "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": Manifest},
    }.items():  # fmt: skip
        module = ModuleType(name)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    tiny_llava(84).save_pretrained(tmp_path / "model")
    tiny_processor(84).save_pretrained(tmp_path / "model")
    group = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lmms_eval.models"]
    (entry,) = group.values()
    module, _, attribute = entry.partition(":")
    manifest = getattr(importlib.import_module(module), attribute)()
    assert manifest.model_id == "salience_llava"
    place, _, name = manifest.simple_class_path.rpartition(".")
    built = getattr(importlib.import_module(place), name)
    assert issubclass(built, Lmms)
    yield lambda **given: built(pretrained=str(tmp_path / "model"), device="cpu", **given)
    sys.modules.pop(place)  # it was made with the stand-in


DOCUMENT = {"question": "which digit is red?", "picture": Image.new("RGB", (84, 84), "red")}


def request(*middle: Any) -> Any:
    return SimpleNamespace(args=("<image> which digit is red?", *middle, lambda doc: [doc["picture"]], 0, "t", "test"))


def test_a_task_runs_pruned(model: Callable[..., Any]) -> None:
    lm = model(method="uniform", keep="0.25")
    lm.task_dict = {"t": {"test": [DOCUMENT]}}
    (said,) = lm.generate_until([request({"until": ["\n"], "max_new_tokens": 2})])
    assert isinstance(said, str) and len(lm.cached) == 1
    assert len(lm.pruned.trace.images[0].kept) == 9
    found = lm.loglikelihood([request("red"), request(lambda doc: "blue 7")])
    assert all(loss > 0 for loss, _ in found)
    # What is said greedily, and nothing else, is marked so.
    inputs = prompt_inputs(lm.processor, [DOCUMENT["picture"]], [DOCUMENT["question"]])
    first = int(lm.model.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1])
    word = lm.processor.tokenizer.decode([first])
    (_, greedy), (_, other) = lm.loglikelihood([request(word), request("yes" if word != "yes" else "no")])
    assert greedy and not other
    with pytest.raises(ValueError, match="one picture, not 0"):
        lm.generate_until([SimpleNamespace(args=("q", {}, lambda doc: [], 0, "t", "test"))])


def test_bad_arguments(model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="batch_size must be 1"):
        model(batch_size=8)
    with pytest.raises(ValueError, match="does not know wings"):
        model(wings=2)
    with pytest.raises(ValueError, match="keep"):
        model(keep="1.5")
