"""Work in a child: its life, its result, its end."""

from __future__ import annotations

import pytest

from kopiwatch.worker import child as module
from kopiwatch.worker.child import Child, show_life
from kopiwatch.worker.program import Errand
from kopiwatch.worker.speech import Refused


def result_of(child: Child) -> object:
    """Its result, once it has told all."""
    while not child.take():
        pass
    return child.result()


def test_child_that_shows_life_is_heard_before_its_result():
    """Each sign is something to read, so it wakes whoever waits; the result is what it was."""

    def work() -> object:
        for _ in range(3):
            module._Pipe.shown_at = 0.0
            show_life()
        return {"a": [1, " "]}

    child = Child(work)
    assert result_of(child) == {"a": [1, " "]}
    assert child._told.startswith(b"   {")


def test_child_that_dies_after_a_sign_of_life_is_refused():
    """Blanks alone are no result."""

    def work() -> object:
        show_life()
        raise SystemExit

    with pytest.raises(Refused, match="a child died"):
        result_of(Child(work))


def test_life_is_shown_in_a_child_alone():
    """Whoever walks in the foreground writes nowhere."""
    assert module._Pipe.writing == -1
    show_life()


def test_errand_that_shows_life_is_given_up_later(monkeypatch):
    """A large source may take hours; a silent one may not."""
    now = 100.0
    monkeypatch.setattr("kopiwatch.worker.program.time.monotonic", lambda: now)
    child = Child(lambda: None)
    errand = Errand(child, "surveyed", "walking the sources", 60)
    assert errand.give_up_at == 160
    now = 150.0
    errand.lives()
    assert errand.give_up_at == 210
    result_of(child)
