"""transformers' Jamba: S6 with learned RMS norms on dt's low-rank form, B and C, between attention layers."""

from salience.ssm.hf.mixer_parts import Family

JAMBA = Family(
    mixer="transformers.models.jamba.modeling_jamba.JambaMambaMixer",
    norms=("dt_layernorm", "b_layernorm", "c_layernorm"),
)
