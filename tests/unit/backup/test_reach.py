"""Asking whether a path answers, without touching it ourselves."""

from __future__ import annotations

import os

import pytest
from support.hanging import hanging_folder

from kopiwatch.backup import reach
from kopiwatch.backup.reach import SILENT, unreachable

pytestmark = pytest.mark.anyio


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_path_that_is_there_answers(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert await unreachable(str(tmp_path / "link")) == ""


async def test_path_that_is_missing_says_why(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert await unreachable(str(tmp_path / "link")) == "No such file or directory"


async def test_path_that_hangs_does_not_hang_us(tmp_path, monkeypatch):
    """The child is left to the kernel; we hold nothing of it."""
    monkeypatch.setattr(reach, "ANSWER_SECONDS", 0.5)
    held = descriptors()
    with hanging_folder(tmp_path / "dead") as folder:
        folder.hang("look")
        assert await unreachable(str(folder.path)) == SILENT
        assert folder.hung
        assert descriptors() == held + 1  # the helper's own pipe
