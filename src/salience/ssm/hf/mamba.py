"""transformers' Mamba: the published S6 block."""

from salience.ssm.hf.mixer_parts import Family

MAMBA = Family(mixer="transformers.models.mamba.modeling_mamba.MambaMixer")
