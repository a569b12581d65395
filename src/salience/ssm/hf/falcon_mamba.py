"""transformers' FalconMamba: S6 with RMS norms without weights on dt's low-rank form, B and C."""

from salience.ssm.hf.mixer_parts import Family

FALCON_MAMBA = Family(
    mixer="transformers.models.falcon_mamba.modeling_falcon_mamba.FalconMambaMixer",
    norms=("dt_layernorm", "b_layernorm", "c_layernorm"),
)
