"""transformers' Mamba: the published S6 block."""

from salience.fuse.family import Family

MAMBA = Family(mixer="transformers.models.mamba.modeling_mamba.MambaMixer")
