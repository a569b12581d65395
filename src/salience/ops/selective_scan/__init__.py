"""Mamba's selective scan and its single decoding step."""

from salience.ops.selective_scan.api import selective_scan, selective_scan_step

__all__ = ["selective_scan", "selective_scan_step"]
