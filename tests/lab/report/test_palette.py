"""Colours that can be read and told apart, in both themes."""

from itertools import combinations

import numpy as np
import pytest

from salience.lab.report.kit.method_styles import styles
from salience.lab.report.kit.palette import DARK, LIGHT, css

TEXT_COLOURS = (
    "ink", "muted", "accent", "good", "bad", "blue", "orange", "green", "grey", "purple", "pink", "olive", "cyan",
)  # fmt: skip
# Machado, Oliveira and Fernandes 2009, severity 1: what people without one kind of cone see of linear RGB.
SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def contrast(first: str, second: str) -> float:
    """The WCAG 2 contrast ratio of two '#rrggbb' colours, 1 to 21."""
    bright, dim = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def lab(colour: str, sight: str) -> np.ndarray:
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = XYZ @ np.clip(np.asarray(SIGHT[sight]) @ linear, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("name", TEXT_COLOURS)
def test_text_can_be_read(theme: dict[str, str], name: str) -> None:
    assert contrast(theme[name], theme["surface"]) >= 4.5  # WCAG 2 AA


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize(
    ("text", "ground"), [("good", "good-wash"), ("bad", "bad-wash"), ("muted", "page"), ("accent", "page")]
)
def test_text_on_other_grounds_can_be_read(theme: dict[str, str], text: str, ground: str) -> None:
    assert contrast(theme[text], theme[ground]) >= 4.5  # WCAG 2 AA


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("sight", list(SIGHT))
@pytest.mark.parametrize(
    ("names", "least"),
    # the five main lines and the stages by colour alone; the further lines have markers and dashes as well
    [
        (("blue", "orange", "green", "grey", "purple"), 17),
        (("blue", "orange", "green", "grey", "purple", "pink", "olive", "cyan"), 10),
    ],
)
def test_lines_can_be_told_apart(theme: dict[str, str], sight: str, names: tuple[str, ...], least: float) -> None:
    nearest = min(np.linalg.norm(lab(theme[a], sight) - lab(theme[b], sight)) for a, b in combinations(names, 2))
    assert nearest >= least  # CIE 1976; 2.3 is just noticeable side by side


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("sight", list(SIGHT))
def test_stages_can_be_told_apart(theme: dict[str, str], sight: str) -> None:
    stages = [colour for name, colour in theme.items() if name.startswith("stage-")]
    assert len(stages) == 5
    assert min(np.linalg.norm(lab(a, sight) - lab(b, sight)) for a, b in combinations(stages, 2)) >= 17


def test_both_themes_have_the_same_roles_and_paper_is_light() -> None:
    assert list(LIGHT) == list(DARK)
    assert len(set(LIGHT.values())) == len(LIGHT)  # a figure's colours are turned into variables by value
    assert "prefers-color-scheme:dark" in css()
    assert css().count("@media screen") == 2


def test_methods_differ_by_more_than_colour() -> None:
    many = styles(["saliency", "random", "oracle", *(f"new-{number}" for number in range(5))])
    assert len({(style.marker, style.dash) for style in many.values()}) == len(many)
    assert styles(["random"])["random"] == many["random"]
    study = styles(["saliency", "random", "uniform", "cls-attention", "divprune", "vispruner", "visionzip", "oracle",
                    "oracle-question", "saliency-shuffled", "saliency-untrained"])  # fmt: skip
    assert len({(style.colour, style.marker) for style in study.values()}) == len(study)
