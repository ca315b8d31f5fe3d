"""What Kopia's recorded last words are taken for."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from kopiwatch.config import Secret
from kopiwatch.errors import (
    EntriesUnreadable,
    KopiaMissing,
    NotConnected,
    RepositoryError,
    RepositoryExists,
    RepositoryFull,
    RepositoryNotFound,
    RepositoryUnreachable,
    WrongPassword,
)
from kopiwatch.kopia.failure import classify, last_lines, masker

DATA = Path(__file__).parents[2] / "contract" / "data" / "kopia"

RECORDED = {
    "connect-path-missing": RepositoryUnreachable,
    "delete-unknown": RepositoryError,
    "exists": RepositoryExists,
    "gate-missing": RepositoryError,
    "gate-refused": RepositoryError,
    "ghost": RepositoryNotFound,
    "no-password": WrongPassword,
    "no-space": RepositoryFull,
    "not-connected": NotConnected,
    "not-initialized": RepositoryNotFound,
    "path-missing": RepositoryUnreachable,
    "permission": RepositoryUnreachable,
    "pin-unknown": RepositoryError,
    "restore-unknown": RepositoryError,
    "show-file": RepositoryError,
    "unknown-command": KopiaMissing,
    "unknown-flag": KopiaMissing,
    "unreadable": EntriesUnreadable,
    "wrong-password": WrongPassword,
    "wrong-password-connect": WrongPassword,
}


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_failure_is_told_apart(name):
    """Each recorded output of Kopia 0.23.1 becomes exactly the error that it means."""
    error = classify((DATA / f"fail-{name}.txt").read_text(), 1, attempt="trying")
    assert type(error) is RECORDED[name]
    assert error.message.startswith("trying: ")
    assert error.tail


def test_every_recorded_failure_is_tested():
    """No recording is forgotten."""
    recorded = {path.stem.removeprefix("fail-") for path in DATA.glob("fail-*.txt")}
    assert recorded == set(RECORDED)


def test_newer_format_asks_for_a_newer_kopia():
    """A repository of a newer Kopia is not called damaged."""
    text = "ERROR This version of Kopia does not support feature 'x'"
    assert isinstance(classify(text, 1), KopiaMissing)


def test_unreachable_remote_is_unreachable():
    """The text after Kopia's last retry."""
    text = "unable to complete PutBlob despite 10 retries: dial tcp: connection refused"
    assert isinstance(classify(text, 1), RepositoryUnreachable)


def test_signal_is_named():
    """A process that was killed says so, and what may have killed it."""
    error = classify("", -9)
    assert "SIGKILL" in error.message
    assert "memory" in error.hint


def test_unknown_failure_quotes_the_last_line():
    """What we do not know is shown as it is."""
    assert classify("one\nERROR two\n", 3).message.endswith("exit code 3: two")
    assert "did not say why" in classify("\n \n", 3).message


def test_last_lines_keeps_the_end_of_progress_lines():
    """Progress overwrites itself by carriage returns; only its last states remain."""
    text = "\r".join(f"/ {n} hashing" for n in range(100)) + "\nlast"
    lines = last_lines(text).splitlines()
    assert len(lines) == 20
    assert lines[-2:] == ["/ 99 hashing", "last"]


def test_masker_hides_every_form_of_a_secret():
    """As it is, trimmed, in base64 and percent-encoded; the longest form goes first."""
    secret = Secret(" pass/word+ü ")
    mask = masker([secret, Secret("pass"), Secret("")])
    forms = [
        secret.reveal(),
        "pass/word+ü",
        base64.b64encode("pass/word+ü".encode()).decode(),
        "pass%2Fword%2B%C3%BC",
    ]
    masked = mask("|".join(forms))
    assert masked == "***|***|***|***"


def test_masker_without_secrets_changes_nothing():
    """No secret, no stars."""
    assert masker([])("text") == "text"
