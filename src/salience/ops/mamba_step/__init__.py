"""One decoding step of a Mamba block between its two large projections, as one kernel on a CPU.

Separately, the convolution's step, x_proj, dt_proj and the scan's step would be five calls for 0.1 ms of work.
"""

from salience.ops.mamba_step.api import mamba_step

__all__ = ["mamba_step"]
