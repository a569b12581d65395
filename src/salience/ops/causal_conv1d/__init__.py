"""The causal depthwise convolution of Mamba's block, with its activation, and its single decoding step."""

from salience.ops.causal_conv1d.api import causal_conv1d, causal_conv1d_step

__all__ = ["causal_conv1d", "causal_conv1d_step"]
