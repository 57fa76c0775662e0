"""A timeline answers from what was before a moment, whatever comes after."""

from __future__ import annotations

from reliability.checker.timeline import Timeline


def test_it_tells_the_highest_figure_before_a_moment() -> None:
    """In whichever order facts are added, and also between questions."""
    timeline: Timeline[str] = Timeline()
    assert timeline.before(10) is None
    timeline.add(5, 3, "c")
    timeline.add(1, 2, "a")
    timeline.add(2, 1, "b")
    asked = {moment: timeline.before(moment) for moment in (1, 2, 3, 5, 6)}
    assert asked == {1: None, 2: (2, "a"), 3: (2, "a"), 5: (2, "a"), 6: (3, "c")}
    timeline.add(3, 9, "d")
    assert timeline.before(4) == (9, "d")
