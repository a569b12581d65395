"""Replacement of the text between two markers, so that no number there is typed by hand."""

from __future__ import annotations


def filled(whole: str, begin: str, end: str, body: str) -> str:
    """`whole` with its text between the lines `begin` and `end` replaced by `body`.

    Raises: ValueError when it does not hold both markers once, in order
    """
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise ValueError(f"the text must hold {begin!r} and {end!r}, once each and in this order.")
    before, rest = whole.split(begin)
    return f"{before}{begin}\n\n{body}\n\n{end}{rest.split(end)[1]}"
