"""A redacted recipe: what goes, and that everything else stays as it was."""

from __future__ import annotations

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.backup.redact import is_secret, redact_file, redact_json


@pytest.mark.parametrize(
    "name", ["DB_PASSWORD", "PGPASS", "api-token", "SECRET", "AWS_ACCESS_KEY_ID", "Auth", "APIKEY"]
)
def test_names_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["AUTHOR", "PASSENGERS", "POSTGRES_PASSWORD_FILE", "MONKEYS", "PIPELINE", "HOME"]
)
def test_other_names(name):
    assert not is_secret(name)


def test_an_environment_file_keeps_its_form():
    text = (
        b"# c\nexport A_TOKEN=\"x y\" # t\nURL=postgres://u:hunter2@h/d\nB=1\nPW_KEY=\nK_PIN='1'\n"
    )
    assert redact_file("env_file", text) == (
        b"# c\nexport A_TOKEN=*** # t\nURL=postgres://u:***@h/d\nB=1\nPW_KEY=\nK_PIN=***\n"
    )


def test_a_compose_file_keeps_all_but_the_values():
    text = """# head
services:
  a:
    environment: {PASSWORD: hunter2, B: 1}   # tail
    command: [x, --token=hunter2, "ö", -p]
    labels:
      - API_KEY=hunter2
      - url=https://u:hunter2@h/
    build:
      args:
        SECRET: |
          hunter2
          hunter2
        OTHER: x
secrets: {db_password: {file: ./db}}
"""
    found = redact_file("compose", text.encode()).decode()
    assert "hunter2" not in found
    assert "# tail" in found
    document = yaml.safe_load(found)
    service = document["services"]["a"]
    assert service["environment"] == {"PASSWORD": "***", "B": 1}
    assert service["command"] == ["x", "--token=***", "ö", "-p"]
    assert service["labels"] == ["API_KEY=***", "url=https://u:***@h/"]
    assert service["build"]["args"] == {"SECRET": "***", "OTHER": "x"}
    assert document["secrets"] == {"db_password": {"file": "./db"}}


def test_secrets_and_what_cannot_be_understood_go_whole():
    assert redact_file("secret", b"hunter2") == b"***"
    assert redact_file("env_file", b"not = an env\n??") == b"***"
    assert redact_file("include", b"a: [hunter2") == b"***"
    assert redact_file("config", b"\xff\xfe") == b"\xff\xfe"


def test_lines_of_dockers_own_configuration():
    text = b'Environment="HTTP_PROXY=http://u:hunter2@p/"\nEnvironment=X_TOKEN=hunter2\nA=1\n'
    text += b'Environment=A=1 "K_KEY=hunter2"\npassword = hunter2 hunter2\n'
    found = redact_file("docker", text)
    assert b"hunter2" not in found
    assert b"A=1" in found
    assert redact_file("docker", b'{"a": {"token": "hunter2"}}') == b'{"a":{"token":"***"}}'
    assert redact_file("docker", b'{ "a": 1 }') == b'{ "a": 1 }'


def test_definitions_of_docker():
    definition = {
        "Config": {"Env": ["A_PASSWORD=hunter2", "B=1"], "Cmd": ["--key=hunter2"]},
        "Options": {"o": "username=u,password=hunter2,vers=3.0", "type": "cifs"},
        "State": {"Pid": 1},
    }
    found = msgspec.json.decode(redact_json(msgspec.json.encode(definition)))
    assert found == {
        "Config": {"Env": ["A_PASSWORD=***", "B=1"], "Cmd": ["--key=***"]},
        "Options": {"o": "username=u,password=***,vers=3.0", "type": "cifs"},
        "State": {"Pid": 1},
    }


values = st.text(st.characters(codec="utf-8", exclude_characters="\r\x85\u2028\u2029"), max_size=30)


@given(st.dictionaries(st.text("abK_", min_size=1, max_size=6), values, max_size=5), st.booleans())
def test_a_redacted_compose_file_is_the_same_document_but_for_secrets(variables, flow):
    document = {"services": {"a": {"environment": {**variables, "X_SECRET": "hunter2"}}}}
    text = yaml.safe_dump(document, allow_unicode=True, default_flow_style=flow)
    found = yaml.safe_load(redact_file("compose", text.encode()))
    environment = found["services"]["a"]["environment"]
    assert environment["X_SECRET"] == "***"
    assert set(environment) == {*variables, "X_SECRET"}
