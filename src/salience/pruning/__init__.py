"""Methods that choose which visual tokens stay: they see tensors and a grid, never a model family."""

from salience.pruning.compose import then as then
from salience.pruning.compose import union as union
