"""The configuration: environment, file, and every problem at once."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.config import Config, HostHook, Secret, fault_of_own_program, load, nearest
from kopiwatch.config.page import render
from kopiwatch.config.setting import RETENTION_NUMBERS, SETTINGS
from kopiwatch.errors import ConfigError
from kopiwatch.units.retention import Retention

ROOT = Path(__file__).parents[2]
DEFAULT = "/etc/kopiwatch/config.toml"


def files(contents):
    """A reader of these files and no others; a value that is an error is raised."""

    def read(path):
        found = contents.get(str(path), FileNotFoundError(2, "No such file or directory"))
        if isinstance(found, Exception):
            raise found
        return found

    return read


def configured(contents=None, **environ):
    """The configuration of ``KOPIWATCH_<name>=value`` and these files."""
    return load({f"KOPIWATCH_{k}": v for k, v in environ.items()}, read=files(contents or {}))


def complaint(contents=None, **environ):
    """What is said about a configuration that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        configured(contents, **environ)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_configuration_page_equals_its_rendering():
    """docs/configuration.md is what the table renders to; python -m kopiwatch.config.page."""
    assert (ROOT / "docs/configuration.md").read_text("utf-8") == render()


def test_page_names_every_setting():
    """No setting is known to the program alone."""
    assert all(f"`{s.variable}`" in render() and f"`{s.key}`" in render() for s in SETTINGS)


def test_nothing_given_is_the_default():
    """Without environment and file there are only defaults."""
    assert load({}, read=files({})) == Config()


def test_environment_is_read():
    """Each variable reaches its setting."""
    found = configured(
        DOCKER="tcp://docker:2375",
        STATE_DIR="/state",
        CACHE_DIR="/cache",
        REPOSITORY="filesystem:/backup",
        PASSWORD="hunter2",
        HOSTNAME="Harbour-1",
        INSTANCE="two",
        KOPIA="/opt/kopia",
        ACCESS="worker",
        WORKER_IMAGE="kopiwatch:dev",
    )
    assert found == Config(
        docker_url="tcp://docker:2375",
        state_dir=Path("/state"),
        cache_dir=Path("/cache"),
        repository="filesystem:/backup",
        password=Secret("hunter2"),
        hostname="Harbour-1",
        instance="two",
        kopia="/opt/kopia",
        access="worker",
        worker_image="kopiwatch:dev",
    )


def test_docker_host_counts_where_nothing_of_ours_is_set():
    """Docker's own variable comes second, and empty it is unset."""
    assert load({"DOCKER_HOST": "tcp://a:1"}, read=files({})).docker_url == "tcp://a:1"
    assert load({"DOCKER_HOST": ""}, read=files({})).docker_url == Config().docker_url
    both = {"DOCKER_HOST": "tcp://a:1", "KOPIWATCH_DOCKER": "unix:///x"}
    assert load(both, read=files({})).docker_url == "unix:///x"


def test_bad_docker_host_is_named():
    """A value of another tool's variable is not passed over in silence."""
    with pytest.raises(ConfigError, match="DOCKER_HOST"):
        load({"DOCKER_HOST": "/var/run/docker.sock"}, read=files({}))


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        (":Europe/Berlin", "Europe/Berlin"),
        ("/usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin"),
        (":/etc/localtime", "Asia/Kathmandu"),
        ("/opt/zones/berlin", "/opt/zones/berlin"),
        ("UTC0", "UTC"),
        ("GMT-0", "UTC"),
        ("CET-1CEST", "CET-1CEST"),
        ("", ""),
        ("/circle", "/circle"),
    ],
)
def test_tz_is_taken_in_the_forms_that_the_c_library_knows(text, zone):
    """As far as they name a zone; what names none stays as it is, and is never UTC by itself."""

    def resolve(path):
        if str(path) == "/circle":
            raise OSError(40, "Too many levels of symbolic links")
        links = {"/etc/localtime": "/usr/share/zoneinfo/Asia/Kathmandu"}
        return Path(links.get(str(path), str(path)))

    found = load({"TZ": text}, read=files({}), resolve=resolve)
    assert found.timezone == zone
    assert found.defaults == ({"kopi.timezone": (zone, "environment TZ")} if zone else {})


def test_default_schedule_says_where_it_stands():
    """The variable, or the file."""
    assert configured({}).defaults == {}
    found = configured({}, SCHEDULE="@hourly").defaults
    assert found == {"kopi.schedule": ("@hourly", "environment KOPIWATCH_SCHEDULE")}
    found = configured({DEFAULT: 'schedule = "off"'}).defaults
    assert found == {"kopi.schedule": ("off", f"file {DEFAULT}")}
    found = configured({DEFAULT: 'schedule = "off"'}, SCHEDULE="@daily").defaults
    assert found == {"kopi.schedule": ("@daily", "environment KOPIWATCH_SCHEDULE")}


def test_forget_after_is_a_duration():
    """Given in the environment or in the file, and never if not."""
    assert configured({}, FORGET_AFTER="30d").forget_after == timedelta(days=30)
    assert configured({DEFAULT: 'forget_after = "12h"'}).forget_after == timedelta(hours=12)
    assert configured({}).forget_after is None
    assert "did you mean '30d'?" in complaint({}, FORGET_AFTER="30 days")


def test_environment_wins_over_the_file():
    """Where both speak, the environment counts; the rest of the file stays."""
    toml = 'instance = "file"\nhostname = "file"\n'
    found = configured({DEFAULT: toml}, INSTANCE="two")
    assert (found.instance, found.hostname) == ("two", "file")


def test_password_of_the_environment_replaces_the_files_pointer():
    """Ways to give a secret contradict each other only within one place."""
    found = configured({DEFAULT: 'password_file = "/p"'}, PASSWORD="env")
    assert found.password == Secret("env")
    found = configured({DEFAULT: 'password = "file"', "/p": "pointed\n"}, PASSWORD_FILE="/p")
    assert found.password == Secret("pointed")


def test_password_and_password_file_together_are_a_problem():
    """Nobody guesses which of the two is right."""
    said = complaint({"/p": "b"}, PASSWORD="hunter2", PASSWORD_FILE="/p")
    assert "KOPIWATCH_PASSWORD and KOPIWATCH_PASSWORD_FILE are both given" in said


def test_password_file_loses_its_line_end_only():
    """Blanks belong to a password, the line's end does not."""
    assert configured({"/p": " a b \r\n"}, PASSWORD_FILE="/p").password == Secret(" a b ")


@pytest.mark.parametrize("content", ["", "\n"])
def test_empty_password_file_is_a_problem(content):
    """An empty secret is a mistake, not a password."""
    assert "names an empty file" in complaint({"/p": content}, PASSWORD_FILE="/p")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (FileNotFoundError(2, "No such file"), "does not exist"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "not UTF-8"),
    ],
)
def test_file_that_cannot_be_read_is_a_problem(content, reason):
    """A file that is named must be there and readable, be it a secret or the configuration."""
    assert reason in complaint({"/p": content}, PASSWORD_FILE="/p")
    assert reason in complaint({"/c": content}, CONFIG="/c")


def test_default_file_may_be_missing_but_not_unreadable():
    """An unreadable file is an error, never "no configuration"."""
    assert configured({}) == Config()
    assert "Permission denied" in complaint({DEFAULT: PermissionError(13, "Permission denied")})
    assert "is not TOML" in complaint({DEFAULT: "instance = "})


def test_all_problems_come_at_once():
    """One mistake does not hide the next, in the environment or in the file."""
    said = complaint(
        {
            "/c": 'instnce = "x"\naccess = "workr"\nhostname = 3\n[notify]\nx = 1\n'
            "[retention]\nlatst = 1\ndaily = 1.5\nweekly = -1\nmonthly = true"
        },
        CONFIG="/c",
        STATE_DIR="state",
        FOO="1",
        REPOSITORI="x",
        FORGET_AFTER="30 days",
        CACHE_DIR="",
    )
    for part in (
        "/c: instnce is not a setting; did you mean instance?",
        "/c: access 'workr' is not one of auto, worker, namespace; did you mean 'worker'?",
        "/c: hostname is not a text",
        "/c: notify is not supported by this version",
        "/c: retention.latst is not a setting; did you mean retention.latest?",
        "/c: retention.daily is not a whole number from 0 on",
        "/c: retention.weekly is not a whole number from 0 on",
        "/c: retention.monthly is not a whole number from 0 on",
        "environment: KOPIWATCH_STATE_DIR is not an absolute path",
        "environment: KOPIWATCH_FOO is not a setting",
        "environment: KOPIWATCH_REPOSITORI is not a setting; did you mean KOPIWATCH_REPOSITORY?",
        "environment: KOPIWATCH_FORGET_AFTER is not a duration",
        "environment: KOPIWATCH_CACHE_DIR is empty",
    ):
        assert part in said


def test_retention_stands_in_the_environment_or_the_file():
    """By number; the environment wins, and each says where it stands."""
    assert configured({}).retention == {}
    found = configured({DEFAULT: '[retention]\ndaily = 14\nlatest = "3"\n'}, RETENTION_DAILY="0")
    assert found.retention == {
        "latest": ("3", f"file {DEFAULT}"),
        "daily": ("0", "environment KOPIWATCH_RETENTION_DAILY"),
    }
    assert found.defaults["kopi.retention.latest"] == ("3", f"file {DEFAULT}")
    assert "is not a table; write [retention]" in complaint({DEFAULT: "retention = 5"})
    assert "KOPIWATCH_RETENTION_WEEKLY is not a whole" in complaint(RETENTION_WEEKLY="x")


def test_retention_has_the_defaults_of_the_labels():
    """One page says 10, and so does the other."""
    assert {name: row[0] for name, row in RETENTION_NUMBERS.items()} == Retention().numbers


@pytest.mark.parametrize("name", ["DEMO_DIR", "TEST_WORKER_IMAGE", "PYTHON", "NO_INSTALL"])
def test_variables_of_the_scripts_are_ignored(name):
    """What the scripts around the program use does not disturb it."""
    assert configured({}, **{name: "x"}) == Config()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DOCKER", "/var/run/docker.sock"),
        ("DOCKER", "ssh://host"),
        ("DOCKER", "unix://"),
        ("INSTANCE", "Two"),
        ("INSTANCE", "../x"),
        ("HOSTNAME", "a@b"),
        ("KOPIA", "bin/kopia"),
        ("WORKER_IMAGE", "a b"),
        ("ACCESS", "host"),
        ("PASSWORD", ""),
        ("PASSWORD_FILE", "p"),
        ("CONFIG", ""),
        ("CONFIG", "c.toml"),
    ],
)
def test_value_that_cannot_be_used_is_a_problem(name, value):
    """A given value is understood or refused, never replaced."""
    assert f"KOPIWATCH_{name}" in complaint({}, **{name: value})


def test_profiles_become_label_texts():
    """Keys with and without prefix, dotted keys, booleans, numbers and lists."""
    toml = """
    [profile.db]
    mode = "stop"
    kopi.scope = "minimal"
    "kopi.stop-timeout" = "2m"
    binds = true
    exclude = ["a", "b"]
    retention.latest = 5
    """
    assert configured({DEFAULT: toml}).profiles == {
        "db": {
            "kopi.mode": "stop",
            "kopi.scope": "minimal",
            "kopi.stop-timeout": "2m",
            "kopi.binds": "true",
            "kopi.exclude": "a,b",
            "kopi.retention.latest": "5",
        }
    }


@pytest.mark.parametrize(
    "toml",
    [
        'profile = "x"',
        "[profile]\ndb = 1",
        "[profile.DB]",
        "[profile.none]",
        "[profile.a]\nx = 1.5",
        '[profile.a]\nx = ["a,b"]',
        '[profile.a]\nmode = "a"\n"kopi.mode" = "b"',
    ],
)
def test_profile_that_cannot_be_used_is_a_problem(toml):
    """A profile is a table of texts with a name of ours."""
    assert "profile" in complaint({DEFAULT: toml})


@given(st.text(min_size=8).filter(lambda text: text.strip()))
def test_secrets_are_in_no_text(secret):
    """Neither errors nor representations give a password away."""
    marked = f"s3cret-{secret}"
    found = configured({}, PASSWORD=marked)
    assert found.password is not None
    assert found.password.reveal() == marked
    assert "s3cret" not in repr(found) + str(found.password)
    said = complaint({"/p": marked}, PASSWORD=marked, PASSWORD_FILE="/p", ACCESS="x")
    assert "s3cret" not in said


@given(st.text(max_size=80))
def test_no_file_makes_loading_raise_anything_else(text):
    """Whatever a file holds, there is a configuration or one clear error."""
    with suppress(ConfigError):
        assert isinstance(configured({DEFAULT: text}), Config)


def test_nearest_ignores_case_and_gives_up_on_strangers():
    """A suggestion is close, or there is none."""
    assert nearest("Repositry", ["repository", "password"]) == "repository"
    assert nearest("zzz", ["repository"]) == ""
    assert nearest("x" * 100_000, ["repository"]) == ""


HOOKS = """
[[hooks.before_run]]
command = ["/opt/begin", "--now"]
timeout = "2m"
on_error = "continue"
units = ["shop*"]

[[hooks.before_run]]
command = ["/opt/second"]

[[hooks.after_restore]]
command = ["/opt/end"]
"""


def hooks(text: str, fault: str = ""):
    """The configuration whose file holds this; every program has that fault."""
    return load({"KOPIWATCH_CONFIG": "/etc/kw.toml"}, read=lambda _: text, vet=lambda _: fault)


def test_hooks_of_the_host_are_read_in_their_order():
    """With what they may take, what their failure means, and for which units they are."""
    found = hooks(HOOKS).hooks
    assert found == {
        "before_run": (
            HostHook(("/opt/begin", "--now"), timedelta(minutes=2), "continue", ("shop*",)),
            HostHook(("/opt/second",)),
        ),
        "after_restore": (HostHook(("/opt/end",)),),
    }
    assert [h.fits("shop2") for h in found["before_run"]] == [True, True]
    assert [h.fits("blog") for h in found["before_run"]] == [False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hooks = 1", "hooks is not a table"),
        ("[hooks]\nbefore_rum = []", "hooks.before_rum is not a setting; did you mean"),
        ("[hooks]\nbefore_run = ['/x']", "hooks.before_run is not a list of tables"),
        ("[[hooks.before_run]]", "hooks.before_run[1] has no command"),
        ("[[hooks.before_run]]\ncommand = '/x'", "[1].command is not an array of words"),
        ("[[hooks.before_run]]\ncommand = []", "[1].command is not an array of words"),
        ("[[hooks.before_run]]\ncommand = ['/x', 1]", "[1].command is not an array of words"),
        (
            "[[hooks.before_run]]\ncomand = ['/x']",
            "[1].comand is not a setting; did you mean command",
        ),
        ("[[hooks.before_run]]\ncommand = ['/x']\ntimeout = 5", "[1].timeout is not a text"),
        ("[[hooks.before_run]]\ncommand = ['/x']\ntimeout = '5'", "say the unit: 5s"),
        (
            "[[hooks.before_run]]\ncommand = ['/x']\non_error = 'stop'",
            "is not one of fail, continue",
        ),
        ("[[hooks.after_run]]\ncommand = ['/x']\non_error = 'fail'", "[1].on_error means nothing"),
        ("[[hooks.after_run]]\ncommand = ['/x']\nunits = 'shop'", "[1].units is not an array"),
        ("[[hooks.after_run]]\ncommand = ['/x']\nunits = []", "[1].units is not an array"),
    ],
)
def test_hook_of_the_host_that_is_not_understood_is_a_problem(text, words):
    """Told with its key, and what would be right."""
    with pytest.raises(ConfigError) as caught:
        hooks(text)
    assert words in caught.value.message
    assert "/etc/kw.toml: hooks" in caught.value.message


def test_program_of_a_hook_is_looked_at():
    """What is wrong with it is a problem of the configuration; all are told at once."""
    with pytest.raises(ConfigError) as caught:
        hooks(HOOKS, fault="is a fault")
    assert caught.value.message.count("is a fault") == 3
    assert "hooks.before_run[2].command is a fault" in caught.value.message


def test_program_that_others_may_change_is_refused(tmp_path):
    """It, the folder of it, a folder above, the end of a link; /tmp further up is none of those."""
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    program = folder / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(program)
    assert fault_of_own_program(program) == ""
    assert fault_of_own_program(link) == ""
    for place, mode, back in (
        (program, 0o775, 0o755),
        (folder, 0o757, 0o755),
        (tmp_path, 0o777, 0o700),
    ):
        place.chmod(mode)
        assert f"others may write {place}" in fault_of_own_program(program)
        assert f"others may write {place}" in fault_of_own_program(link)
        place.chmod(back)
    folder.chmod(0o1777)
    assert "others may write" in fault_of_own_program(program)
    folder.chmod(0o755)
    tmp_path.chmod(0o1777)
    assert fault_of_own_program(program) == ""
    tmp_path.chmod(0o700)
    program.chmod(0o644)
    assert "not executable" in fault_of_own_program(program)
    assert "not a file" in fault_of_own_program(folder)
    assert "does not exist" in fault_of_own_program(folder / "none")
    assert "not an absolute path" in fault_of_own_program(Path("tool"))


def test_program_of_somebody_else_is_refused(tmp_path, monkeypatch):
    """Neither root's nor ours."""
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    real = Path.stat

    def given_away(self, **more):
        found = real(self, **more)
        if self.name != "tool":
            return found
        return os.stat_result((*found[:4], 4711, *found[5:10]))

    monkeypatch.setattr(Path, "stat", given_away)
    assert "belongs to uid 4711" in fault_of_own_program(program)
    assert fault_of_own_program(program, uid=4711) == ""


def test_stage_paths_are_a_list_of_absolute_paths():
    """Blanks do not count; one that is not absolute is named."""
    given = configured(STAGE_PATHS="/ssd/stage, /data ,")
    assert given.stage_paths == (Path("/ssd/stage"), Path("/data"))
    assert "'data', which is not an absolute path" in complaint(STAGE_PATHS="/ssd,data")
