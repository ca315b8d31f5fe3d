"""The breaker between runs and a repository that does not answer."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.watch.breaker import FIRST_PAUSE, LIMIT, LONGEST_PAUSE, Breaker

NOW = datetime(2026, 1, 2, 2, tzinfo=UTC)


def breaker(random=1.0):
    return Breaker(random=lambda: random)


def pauses(of, count):
    return [(of.probe_at(NOW) - NOW).total_seconds() for _ in range(count)]


def test_breaker_opens_at_the_third_failure_in_a_row():
    """Two are bad luck; only the third says that it opened."""
    one = breaker()
    assert [(one.failed(), one.open) for _ in range(5)] == [
        (False, False),
        (False, False),
        (True, True),
        (False, True),
        (False, True),
    ]


def test_success_between_failures_keeps_it_closed():
    """Failures count in a row only."""
    one = breaker()
    for _ in range(4):
        assert not one.failed()
        assert not one.failed()
        one.succeeded()
    assert not one.open


def test_answer_closes_it_on_trial():
    """One failure more opens it again: a probe reads, and the disk may be full for writers."""
    one = breaker()
    for _ in range(LIMIT):
        one.failed()
    assert one.answered()
    assert not one.open
    assert not one.answered()
    assert one.failed()
    assert one.open


def test_answer_forgets_no_failure_of_a_closed_one():
    """Probes come between runs; three runs that fail in a row open it all the same."""
    one = breaker()
    one.failed()
    assert not one.answered()
    one.failed()
    assert not one.answered()
    assert one.failed()


def test_run_that_comes_through_forgets_the_failures():
    """After it, a failure is the first again."""
    one = breaker()
    for _ in range(LIMIT):
        one.failed()
    one.answered()
    one.succeeded()
    assert not one.failed()
    assert not one.failed()
    assert not one.open


def test_probe_pauses_double_up_to_a_quarter_of_an_hour():
    """From half a minute on."""
    assert pauses(breaker(), 7) == [30, 60, 120, 240, 480, 900, 900]


def test_probe_pauses_are_at_least_half():
    """Many hosts do not beat in time, and none of them beats without a pause."""
    assert pauses(breaker(0.0), 7) == [15, 30, 60, 120, 240, 450, 450]


def test_probe_pauses_grow_until_a_run_comes_through():
    """An answer alone is no end of the outage."""
    one = breaker()
    pauses(one, 3)
    one.answered()
    assert pauses(one, 1) == [240]
    one.succeeded()
    assert pauses(one, 2) == [30, 60]


STEPS = ["failed", "succeeded", "answered", "probe"]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0, 1))))
def test_breaker_is_open_exactly_after_three_failures_without_success(steps):
    """Answers between them forget none, but close it; every pause has its bounds."""
    draws = iter([draw for _, draw in steps])
    one = Breaker(random=lambda: next(draws))
    row = 0
    for step, _ in steps:
        was_open = row >= LIMIT
        if step == "failed":
            row += 1
            assert one.failed() == (row >= LIMIT and not was_open)
        elif step == "succeeded":
            row = 0
            one.succeeded()
        elif step == "answered":
            row = min(row, LIMIT - 1)
            assert one.answered() == was_open
        else:
            assert FIRST_PAUSE / 2 <= one.probe_at(NOW) - NOW <= LONGEST_PAUSE
        assert one.open == (row >= LIMIT)
