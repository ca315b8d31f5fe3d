"""The environment of a Kopia process."""

from __future__ import annotations

from pathlib import Path

import pytest

from kopiwatch.config import Secret
from kopiwatch.errors import ConfigError
from kopiwatch.kopia.environment import SETTINGS, effective_password, environment


def test_environment_holds_nothing_but_what_is_needed():
    """Our own secrets and Kopia's switches do not pass."""
    ours = {
        "PATH": "/bin",
        "HOME": "/root",
        "KOPIWATCH_PASSWORD": "x",
        "KOPIA_PASSWORD": "y",
        "KOPIA_CONFIG_PATH": "/z",
        "AWS_SECRET_ACCESS_KEY": "k",
        "SSL_CERT_FILE": "/ca.pem",
        "https_proxy": "",
    }
    assert environment(ours, home=Path("/state/kopia")) == {
        "PATH": "/bin",
        "HOME": "/state/kopia",
        "SSL_CERT_FILE": "/ca.pem",
        **SETTINGS,
    }


def test_password_is_there_only_when_given():
    """A call that opens no repository gets none."""
    assert "KOPIA_PASSWORD" not in environment({}, home=Path("/"))
    env = environment({}, home=Path("/"), password=Secret(" geheim\n"))
    assert env["KOPIA_PASSWORD"] == "geheim"


@pytest.mark.parametrize("value", ["", " \n", "\u00a0", "a\0b"])
def test_password_that_cannot_be_passed_on_is_refused(value):
    """Empty to Kopia is no password."""
    with pytest.raises(ConfigError, match="password"):
        effective_password(Secret(value))


def test_password_keeps_what_only_python_calls_a_space():
    """Trimming more than Kopia does would make another password."""
    assert effective_password(Secret("\x1ca\x1f ")) == "\x1ca\x1f"
