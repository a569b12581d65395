"""Max-min diversity: which of n things are chosen one after another so that each is far from those before it."""

from salience.ops.farthest_first.api import farthest_first

__all__ = ["farthest_first"]
