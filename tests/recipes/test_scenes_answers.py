"""The stored training answers of the `scenes` task are those of its pictures."""

from __future__ import annotations

import json

import scenes_answers

from salience.lab.data import scenes


def test_the_stored_answers_are_of_these_pictures() -> None:
    """Of the first hundred; all of them take half a minute."""
    stored = json.loads(scenes.ANSWERS.read_text())
    by_text, by_kind = scenes_answers.count_answers(scenes_answers.CHECKED)
    # answers in the order of their first coming, which decides between equally common ones
    assert [(text, [*counts.items()]) for text, counts in stored["first"].items()] == [
        (text, [*counts.items()]) for text, counts in by_text.items()
    ]
    for now, whole in ((by_text, stored["by_text"]), (by_kind, stored["by_kind"])):
        for key, counts in now.items():
            assert list(whole[key])[: len(counts)] == list(counts)
            assert all(count <= whole[key][answer] for answer, count in counts.items())
    assert sum(sum(counts.values()) for counts in stored["by_kind"].values()) == sum(
        sum(counts.values()) for counts in stored["by_text"].values()
    )
