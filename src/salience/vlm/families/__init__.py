"""Model families, one a file: the only code that knows the insides of a vision-language model."""

from salience.vlm.families.base import Adapter
from salience.vlm.families.registry import FAMILIES, adapter_for
from salience.vlm.tower.encoded_views import EncodedViews
from salience.vlm.tower.fingerprint import same_adapters, same_tower, unlike

__all__ = ["FAMILIES", "Adapter", "EncodedViews", "adapter_for", "same_adapters", "same_tower", "unlike"]
