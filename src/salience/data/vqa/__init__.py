"""Questions about pictures in a local folder, in one of the layouts that people have, or in the easy-VQA package."""

from salience.data.vqa.baselines import VqaBaselines, vqa_baselines
from salience.data.vqa.folder import VqaTask, load_folder
from salience.data.vqa.metrics import exact_match, vqa_accuracy
from salience.data.vqa.sample import VqaSample

__all__ = [
    "VqaBaselines", "VqaSample", "VqaTask", "exact_match", "load_folder", "vqa_accuracy", "vqa_baselines",
]  # fmt: skip
