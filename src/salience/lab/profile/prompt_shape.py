"""Shape of the prompts that a profile counts and times."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_TEXT = 2**24  # ids and masks are in memory, though weights are not


@dataclass(frozen=True, kw_only=True)
class PromptShape:
    """`batch` rows of `images` pictures and `text_tokens` of text, and `decode` tokens of answer."""

    text_tokens: int = 64
    batch: int = 1
    images: int = 1
    decode: int = 0

    def __post_init__(self) -> None:
        for name, least in (("text_tokens", 1), ("batch", 1), ("images", 1), ("decode", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
        if self.batch * (self.text_tokens + self.images) > _MAX_TEXT:
            raise ValueError(
                f"batch x (text_tokens + images) must be at most {_MAX_TEXT:,}, not {self.batch:,} x "
                f"({self.text_tokens:,} + {self.images:,})."
            )
