"""Max-min diversity: a selection of items, one after the other, each far from those before it."""

from salience.ops.farthest_first.api import farthest_first

__all__ = ["farthest_first"]
