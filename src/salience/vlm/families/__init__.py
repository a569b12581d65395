"""Model families: the only code that knows a vision-language model's insides."""

from salience.vlm.families.base import Adapter, adapter_for, same_adapters, same_tower, unlike
from salience.vlm.families.encoded import Encoded

__all__ = ["Adapter", "Encoded", "adapter_for", "same_adapters", "same_tower", "unlike"]
