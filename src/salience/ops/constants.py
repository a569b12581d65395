"""Numerical constants of kernels. A change here compiles every kernel again."""

from __future__ import annotations

LOG2E = 1.4426950408889634074  # log2(e): exp(x) = exp2(x LOG2E)
LN2 = 0.69314718055994530942  # ln(2)
