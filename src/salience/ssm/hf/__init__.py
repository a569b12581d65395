"""Runs an unmodified transformers Mamba on this package's operators; alone owns what is put on such a model.

    model = AutoModelForCausalLM.from_pretrained("state-spaces/mamba-130m-hf")
    with salience.fuse(model):                              # or: handle = salience.fuse(model) ... handle.undo()
        tokens = model.generate(**inputs, max_new_tokens=20)

The same weights get the gradients in training. A fused model differs only where transformers is wrong: several tokens
on a filled cache continue its state (`salience.ssm.hf.mixer_forward` has the list).
"""
