"""Asking before something is done."""

from __future__ import annotations

import io
import os
import sys

import anyio
import pytest

from kopiwatch.cli.confirm import confirmed

pytestmark = pytest.mark.anyio


@pytest.fixture
def terminal(monkeypatch):
    """A terminal as standard input; gives the end at which somebody types."""
    ours, theirs = os.openpty()
    with open(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield ours
    os.close(ours)


@pytest.mark.parametrize(
    ("answer", "done"),
    [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False), ("\x04", False)],
)
async def test_only_yes_is_yes(terminal, capsys, answer, done):
    """Anything else, and the end of the input, leaves everything as it is, and says so."""
    os.write(terminal, answer.encode())
    assert await confirmed("Really?", yes=False) == done
    said = capsys.readouterr().err
    assert "Really? [y/N]" in said
    assert ("nothing was changed" in said) == (not done)


async def test_nobody_is_asked_who_said_yes(terminal, capsys):
    """--yes."""
    assert await confirmed("Really?", yes=True)
    assert capsys.readouterr().err == ""


async def test_nobody_is_asked_without_a_terminal(monkeypatch):
    """A script has nobody to answer."""
    for stdin in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert await confirmed("Really?", yes=False)


async def test_question_can_be_left(terminal):
    """A signal cancels it: waiting for an answer holds up nobody."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_soon, scope)
            await confirmed("Really?", yes=False)
    assert scope.cancelled_caught


async def _cancel_soon(scope: anyio.CancelScope) -> None:
    await anyio.lowlevel.checkpoint()
    scope.cancel()
