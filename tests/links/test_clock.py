"""The server's clock as a process knows it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentsession.redis._core.clock import ServerClock

MOMENTS = st.floats(0, 1e9)
TOLD = st.integers(1, 1 << 52)


def test_nothing_is_known_before_the_server_has_told() -> None:
    """The time is 0 then, by which every deadline has passed: nothing is run by it."""
    assert ServerClock().at(1e9) == 0


def test_time_goes_on_from_what_was_told() -> None:
    """In microseconds, backwards too."""
    clock = ServerClock()
    clock.learn(5_000_000, 100.0, 100.0)
    assert clock.at(100.0) == 5_000_000
    assert clock.at(100.5) == 5_500_000
    assert clock.at(99.999_999) == 4_999_999


def test_the_last_word_counts() -> None:
    """Also if it goes back: another server may be asked by now."""
    clock = ServerClock()
    clock.learn(5_000_000, 100.0, 100.0)
    clock.learn(1_000_000, 101.0, 101.0)
    assert clock.at(101.0) == 1_000_000


@given(TOLD, MOMENTS, st.floats(0, 1e6), st.floats(0, 10))
def test_the_true_time_is_between_the_bounds(
    told: int, read: float, later: float, way: float
) -> None:
    """What a reply tells is past when it is read, so a deadline comes no later than it should.

    And the server told it after it was asked.
    """
    clock = ServerClock()
    clock.learn(told, read, read + way)
    moment = read + later
    true = told + (moment - read) * 1_000_000
    # A floating-point second of that size is exact to a quarter of a microsecond.
    assert clock.at(moment) <= true + 1.5
    assert clock.at(moment) + clock.behind >= true - 1.5
