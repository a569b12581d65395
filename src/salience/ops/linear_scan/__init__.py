"""The diagonal linear recurrence x_t = a_t x_{t-1} + b_t, real or complex."""

from salience.ops.linear_scan.api import linear_scan, linear_scan_planes

__all__ = ["linear_scan", "linear_scan_planes"]
