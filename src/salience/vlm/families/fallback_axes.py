"""Families without a file of their own whose positions have several axes, counted by the model's `get_rope_index`."""

from __future__ import annotations

from salience.vlm.families.base import RopeIndexPositions
from salience.vlm.families.fallback import FallbackAdapter


class AxesFallbackAdapter(RopeIndexPositions, FallbackAdapter):
    """A fallback for models whose `get_rope_index` alone decides the positions, as the tests found."""

    several_axes = True
    no_compact = "its pictures' positions lie on a canvas, and there is no rule for closing gaps in it"
