"""Model families: the only code that knows a vision-language model's insides."""

from salience.families.base import Adapter, Encoded, adapter_for, same_tower

__all__ = ["Adapter", "Encoded", "adapter_for", "same_tower"]
