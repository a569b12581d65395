"""Questions about pictures in a local folder or in the package easy-vqa, in one of several layouts."""

from salience.lab.data.vqa.answer_metrics import exact_match, vqa_accuracy, vqa_baselines
from salience.lab.data.vqa.question_folder import VqaTask, load_folder
from salience.lab.data.vqa.sample import VqaSample

__all__ = ["VqaSample", "VqaTask", "exact_match", "load_folder", "vqa_accuracy", "vqa_baselines"]
