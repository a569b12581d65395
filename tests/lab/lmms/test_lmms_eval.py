"""lmms-eval itself, as a person runs it, with the plug-in: in an environment of its own, never in that of the tests.

python -m venv ENV; ENV/bin/pip install lmms-eval .
SALIENCE_LMMS_PYTHON=ENV/bin/python pytest -m lmms
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import salience
from salience.cli.loading import load_vlm
from salience.lab.evaluate.evaluator import AnswerSettings
from salience.lab.evaluate.generate_evaluator import GenerateEvaluator
from salience.vlm.methods.budget import Budget
from salience.vlm.methods.divprune import DivPrune

PYTHON = os.environ.get("SALIENCE_LMMS_PYTHON", "")
TASK = """\
task: digits_said
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/test.jsonl
test_split: test
output_type: generate_until
doc_to_visual: !function about.visual
doc_to_text: !function about.text
doc_to_target: answer
generation_kwargs:
  max_new_tokens: 3
  until: ["."]
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
ABOUT = """\
from PIL import Image


def visual(doc):
    return [Image.open(doc["image"])]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[Path, list[Any]]:
    """A folder with a task of six questions."""
    samples = salience.data.load("scenes", split="test", n=6, seed=0)
    folder = tmp_path / "tasks" / "digits"
    folder.mkdir(parents=True)
    lines = []
    for number, sample in enumerate(samples):
        sample.image.save(folder / f"{number}.png")
        picture = str(folder / f"{number}.png")
        lines.append({"image": picture, "question": sample.question, "answer": sample.answer})
    (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "about.py").write_text(ABOUT)
    (folder / "digits_said.yaml").write_text(TASK.format(folder=folder))
    return tmp_path / "tasks", samples


@pytest.mark.lmms
@pytest.mark.skipif(not PYTHON, reason="SALIENCE_LMMS_PYTHON names no Python with lmms-eval and salience")
def test_lmms_eval_s_own_command_on_a_local_task(tasks: tuple[Path, list[Any]], tmp_path: Path) -> None:
    """What it counts is what the model says here, pruned alike."""
    folder, samples = tasks
    arguments = f"pretrained={salience.bundled_model()},method=divprune,keep=0.05,device=cpu"
    command = [
        PYTHON, "-m", "lmms_eval", "--model", "salience_llava", "--model_args", arguments, "--batch_size", "1",
        "--tasks", "digits_said", "--include_path", str(folder), "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    ran = subprocess.run(command, env=offline, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    (written,) = (tmp_path / "out").rglob("*_results.json")
    results = json.loads(written.read_text())["results"]
    loaded = load_vlm(None, "cpu")
    groups = [[sample] for sample in samples]
    evaluator = GenerateEvaluator(loaded.model, loaded.processor, groups, AnswerSettings(max_new_tokens=3))
    said = evaluator.run(DivPrune(), Budget(keep=0.05)).texts
    assert said is not None
    right = sum(text == sample.answer for text, sample in zip(said, samples, strict=True))
    assert results["digits_said"]["exact_match,none"] == pytest.approx(right / 6)
