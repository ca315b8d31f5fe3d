"""What `status` calls wrong."""

from __future__ import annotations

import pytest
from support.boards import NOW

from kopiwatch.report.board import Board, RepositoryBoard, WatcherBoard
from kopiwatch.report.trouble import troubles


def of(repository: RepositoryBoard) -> list[str]:
    board = Board(at=NOW, units=(), repository=repository, watcher=WatcherBoard(connected=True))
    return [f"{each.kind}: {each.message}" for each in troubles(board, daemon=True)]


@pytest.mark.parametrize(
    ("repository", "said"),
    [
        (RepositoryBoard(backend="filesystem"), []),
        (RepositoryBoard(backend="filesystem", up=True), []),
        (RepositoryBoard(backend="filesystem", up=False, trouble="gone"), ["repository: gone"]),
        (RepositoryBoard(backend="filesystem", up=True, trouble="full"), ["repository: full"]),
    ],
)
def test_repository_is_told_of_when_something_is_wrong_with_it(repository, said):
    """A full one can be reached, and takes nothing all the same."""
    assert of(repository) == said


def test_open_breaker_is_told_of_though_the_repository_answers():
    (said,) = of(RepositoryBoard(backend="filesystem", up=True, breaker=True))
    assert "runs wait" in said
