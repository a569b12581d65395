"""What stands between two markers is rewritten, the rest left alone."""

from __future__ import annotations

import pytest

from salience.core.markers import filled

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def test_filling_in_touches_only_what_is_between_the_markers() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = filled(readme, BEGIN, END, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert filled(once, BEGIN, END, "new") == once


@pytest.mark.parametrize("broken", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_text_without_both_markers_once_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        filled(broken, BEGIN, END, "new")
