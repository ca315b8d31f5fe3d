"""Runs that wait for their turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.watch.queue import RETRY_PAUSE, Ask, Queue

NOW = datetime(2026, 1, 2, 2, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def ask(unit="shop", minutes=0, *, trigger="schedule", priority=100, **fields):
    """An ask whose due time is some minutes after NOW, queued at its due time."""
    due = NOW + minutes * MINUTE
    return Ask(unit, due, due, trigger, priority, **fields)


def queue_of(*asks, random=lambda: 0.5):
    queue = Queue(random=random)
    for each in asks:
        queue.add(each)
    return queue


def taken(queue, now=NOW):
    units = []
    while (found := queue.take(now)) is not None:
        units.append(found.unit)
    return units


def test_queue_that_is_empty_gives_nothing():
    """Nothing to take, nothing to wait for."""
    queue = queue_of()
    assert queue.take(NOW) is None
    assert queue.next_at(NOW) is None
    assert len(queue) == 0


def test_queue_gives_by_priority_then_due_time_then_name():
    """However they were added, and waiting() shows the same order."""
    asks = [
        ask("late", 9),
        ask("b", 3),
        ask("early", 1),
        ask("a", 3),
        ask("first", 99, priority=1),
        ask("last", -99, priority=200),
    ]
    queue = queue_of(*asks)
    assert [each.unit for each in queue.waiting()] == ["first", "early", "a", "b", "late", "last"]
    assert taken(queue) == ["first", "early", "a", "b", "late", "last"]


def test_unit_waits_once_for_its_newest_due_time():
    """Two due times of one unit become one run, which has waited since the first."""
    queue = queue_of(ask(minutes=0), ask(minutes=60))
    assert len(queue) == 1
    found = queue.take(NOW)
    assert found is not None
    assert (found.due, found.since) == (NOW + 60 * MINUTE, NOW)
    assert queue.take(NOW) is None


def test_older_due_time_does_not_replace_a_newer_one():
    """The clock was set back: what waits already serves both."""
    found = queue_of(ask(minutes=60), ask(minutes=0)).take(NOW)
    assert found is not None
    assert found.due == NOW + 60 * MINUTE


def test_stronger_priority_counts_when_two_become_one():
    """Whoever asks with less weight takes none away."""
    for asks in ((ask(priority=5), ask(priority=50)), (ask(priority=50), ask(priority=5))):
        found = queue_of(*asks).take(NOW)
        assert found is not None
        assert found.priority == 5


@pytest.mark.parametrize("command_first", [True, False])
def test_command_is_not_lost_in_a_merge(command_first):
    """Nor is the due time that it serves besides."""
    command = ask(minutes=7, trigger="command", priority=-1)
    asks = [command, ask(minutes=0)] if command_first else [ask(minutes=0), command]
    found = queue_of(*asks).take(NOW)
    assert found is not None
    assert (found.trigger, found.priority) == ("command", -1)
    assert (found.due, found.since) == (NOW, NOW)
    assert found.serves == NOW


def test_command_alone_serves_no_due_time():
    """Two commands are still no schedule; the time of the first is when it was given."""
    one = queue_of(ask(trigger="command")).take(NOW)
    two = queue_of(ask(trigger="command"), ask(minutes=3, trigger="command")).take(NOW)
    assert one is not None
    assert two is not None
    assert (one.serves, two.serves) == (None, None)
    assert two.since == NOW


def test_due_time_outlives_a_second_command():
    """Three become one, and it still serves the schedule."""
    first, second = ask(minutes=5, trigger="command"), ask(minutes=6, trigger="command")
    found = queue_of(ask(minutes=1), first, second).take(NOW)
    assert found is not None
    assert found.serves == NOW + MINUTE


@pytest.mark.parametrize("trigger", ["schedule", "catch-up", "retry"])
def test_run_of_a_schedule_serves_its_due_time(trigger):
    """Whatever started it, as long as no one commanded it."""
    assert ask(trigger=trigger).serves == NOW


def test_asking_anew_ends_the_pause_after_a_failure():
    """And the new due time has a retry of its own."""
    queue = queue_of()
    assert queue.retry(ask(), NOW)
    queue.add(ask(minutes=1))
    found = queue.take(NOW + MINUTE)
    assert found is not None
    assert (found.trigger, found.retried, found.not_before) == ("schedule", False, None)
    assert queue.retry(found, NOW + 2 * MINUTE)


def test_failure_is_retried_once_and_no_more():
    """Then it is the schedule's turn."""
    queue = queue_of(ask())
    first = queue.take(NOW)
    assert first is not None
    assert queue.retry(first, NOW)
    second = queue.take(NOW + RETRY_PAUSE)
    assert second is not None
    assert (second.trigger, second.retried, second.due) == ("retry", True, NOW)
    assert second.serves == NOW
    assert not queue.retry(second, NOW + RETRY_PAUSE)
    assert len(queue) == 0


def test_command_is_not_retried():
    """Somebody saw it fail."""
    queue = queue_of()
    assert not queue.retry(ask(trigger="command"), NOW)
    assert len(queue) == 0


def test_retry_gives_way_to_what_was_asked_meanwhile():
    """A run that was due while the failing one ran is the retry."""
    queue = queue_of(ask(minutes=3))
    assert not queue.retry(ask(), NOW)
    assert [each.due for each in queue.waiting()] == [NOW + 3 * MINUTE]


@pytest.mark.parametrize(("random", "minutes"), [(0.0, 4), (0.5, 5), (1.0, 6)])
def test_retry_comes_after_five_minutes_more_or_less(random, minutes):
    """Not earlier than its pause of 5 min ± 20 %, and then at once."""
    queue = queue_of(random=lambda: random)
    queue.retry(ask(), NOW)
    at = NOW + minutes * MINUTE
    assert queue.next_at(NOW) == at
    assert queue.take(at - timedelta(seconds=1)) is None
    assert queue.take(at) is not None


def test_again_puts_back_for_later():
    """What could not be carried out keeps its place, its trigger and its due time."""
    queue = queue_of()
    queue.again(ask(trigger="catch-up"), NOW + MINUTE)
    assert queue.take(NOW) is None
    assert queue.next_at(NOW) == NOW + MINUTE
    found = queue.take(NOW + MINUTE)
    assert found is not None
    assert (found.due, found.trigger, found.retried) == (NOW, "catch-up", False)


def test_again_becomes_one_with_what_was_asked_meanwhile():
    """The newer wish does not wait, and neither due time nor priority of either is lost."""
    queue = queue_of(ask(minutes=2, priority=200))
    queue.again(ask(priority=50), NOW + MINUTE)
    (found,) = queue.waiting()
    assert (found.due, found.priority, found.not_before) == (NOW + 2 * MINUTE, 50, None)


def test_command_that_is_put_back_is_not_lost_to_the_schedule():
    """Somebody follows it, and the scheduled time is served by it, too."""
    queue = queue_of(ask(minutes=2))
    queue.again(ask(trigger="command"), NOW + MINUTE)
    (found,) = queue.waiting()
    assert (found.trigger, found.serves) == ("command", NOW + 2 * MINUTE)


def test_pause_of_one_unit_lets_others_through():
    """A strong unit that may not run yet holds up nobody."""
    queue = queue_of(ask("weak", priority=500))
    queue.again(ask("strong", priority=1), NOW + MINUTE)
    assert queue.next_at(NOW) == NOW
    assert taken(queue) == ["weak"]
    assert taken(queue, NOW + MINUTE) == ["strong"]


def test_pause_that_a_wrong_clock_gave_does_not_hold():
    """Set back by a day, the clock would make a retry wait for a day."""
    queue = queue_of()
    queue.retry(ask(), NOW)
    back = NOW - timedelta(days=1)
    assert queue.next_at(back) == back
    assert queue.take(back) is not None


def test_dropped_unit_is_gone_and_dropping_nothing_is_harmless():
    """Only the one that was named."""
    queue = queue_of(ask("one"), ask("two"))
    queue.drop("one")
    queue.drop("none")
    assert ("one" in queue, "two" in queue) == (False, True)


# -- properties ------------------------------------------------------------------------------------

ASKS = st.builds(
    ask,
    st.sampled_from("abcdef"),
    st.integers(-100, 100),
    trigger=st.sampled_from(["schedule", "catch-up", "retry", "command"]),
    priority=st.integers(-1, 3),
)


@given(st.lists(ASKS, max_size=30))
def test_queue_never_gives_a_weaker_one_first(asks):
    """Each unit once, in order, with the best priority that it was asked with."""
    queue = queue_of(*asks)
    found = []
    while (each := queue.take(NOW)) is not None:
        found.append(each)
    assert sorted(each.unit for each in found) == sorted({each.unit for each in asks})
    assert found == sorted(found, key=lambda each: (each.priority, each.due, each.unit))
    for each in found:
        mine = [one for one in asks if one.unit == each.unit]
        scheduled = [one.due for one in mine if one.trigger != "command"]
        assert each.priority == min(one.priority for one in mine)
        assert each.since == min(one.since for one in mine)
        assert each.serves == max(scheduled, default=None)
        assert (each.trigger == "command") == (len(scheduled) < len(mine))


@given(
    st.lists(st.tuples(ASKS, st.integers(0, 60)), max_size=12, unique_by=lambda one: one[0].unit),
    st.integers(-2000, 80),
)
def test_next_at_is_the_first_moment_at_which_take_gives_something(pauses, minutes):
    """A loop that sleeps until then neither spins nor oversleeps."""
    queue = queue_of()
    for each, pause in pauses:
        queue.again(each, NOW + pause * MINUTE)
    now = NOW + minutes * MINUTE
    at = queue.next_at(now)
    if at is None:
        assert not pauses
        return
    if at > now:
        assert queue.take(at - timedelta(seconds=1)) is None
    assert queue.take(at) is not None
