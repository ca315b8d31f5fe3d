"""Docker's JSON, recorded on API 1.41 (``data/``) and invented, becomes our values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.engine import decode, decode_host
from kopiwatch.engine.body import parse_time
from kopiwatch.engine.port import Healthcheck

DATA = Path(__file__).parent / "data"


def recorded(name: str) -> bytes:
    return (DATA / f"{name}.json").read_bytes()


def rows(*given_rows: object) -> bytes:
    return json.dumps(given_rows).encode()


def only(**fields: object):
    return decode.containers(rows({"Id": "a" * 64, **fields}))[0]


def inspect_with(**config: object):
    return decode.inspected(json.dumps({"Id": "a" * 64, "Config": config}).encode())


def test_recorded_rows_have_name_state_labels_and_time():
    found = {row.name: row for row in decode.containers(recorded("containers"))}
    assert set(found) == {"demo-peer", "demo-web", "demo-db", "demo-old"}
    db = found["demo-db"]
    assert (db.state, db.project, db.service) == ("running", "shop", "db")
    assert db.labels["kopi.enable"] == "true"
    assert db.created is not None
    assert db.created.utcoffset() == timedelta(0)
    assert [found[name].state for name in ("demo-web", "demo-old")] == ["paused", "created"]
    assert found["demo-peer"].network_mode == f"container:{found['demo-web'].id}"


def test_recorded_mounts_keep_kind_name_source_and_writability():
    db = next(row for row in decode.containers(recorded("containers")) if row.name == "demo-db")
    mounts = {mount.destination: mount for mount in db.mounts}
    assert mounts["/data"].volume == "demo-data"
    assert mounts["/data"].source.endswith("/demo-data/_data")
    assert (mounts["/anonymous"].anonymous, mounts["/anonymous"].source) == (True, "")
    assert (mounts["/host"].kind, mounts["/host"].source) == ("bind", "/tmp")
    assert (mounts["/host"].volume, mounts["/host"].writable) == ("", False)
    assert mounts["/fast"].kind == "tmpfs"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["/db"], "db"),
        (["/web/database", "/db"], "db"),
        (["db"], "db"),
        (["/web/database"], "web/database"),
        ([], "a" * 12),
        (None, "a" * 12),
    ],
)
def test_name_is_the_containers_own_and_not_a_link(names, expected):
    assert only(Names=names).name == expected


def test_bare_row_is_decoded_with_everything_unknown():
    row = only()
    assert (row.state, row.labels, row.mounts, row.created) == ("unknown", {}, (), None)


def test_null_fields_are_as_missing_fields():
    row = only(Labels=None, Mounts=None, HostConfig=None, State=None, Created=None, Image=None)
    assert (row.labels, row.mounts, row.network_mode, row.image) == ({}, (), "", "")


@pytest.mark.parametrize("state", ["improper", "stopped", "initialized", ""])
def test_state_that_docker_does_not_have_is_unknown(state):
    assert only(State=state).state == "unknown"


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        (1795483216, datetime(2026, 11, 24, 1, 20, 16, tzinfo=UTC)),
        ("2026-11-24T01:20:16.5+01:00", datetime(2026, 11, 24, 0, 20, 16, 500000, tzinfo=UTC)),
        (0, None),
        (-62135596800, None),
        (10**18, None),
        ("yesterday", None),
    ],
)
def test_created_is_utc_or_unknown(created, expected):
    assert only(Created=created).created == expected


@pytest.mark.parametrize(
    ("mount", "kind", "volume"),
    [
        ({"Type": "cluster", "Name": "c"}, "cluster", ""),
        ({"Type": "image", "RW": False}, "image", ""),
        ({"Type": "hologram"}, "other", ""),
        ({"Name": "v", "Source": "/x"}, "volume", "v"),
        ({"Source": "/x"}, "bind", ""),
        ({}, "other", ""),
    ],
)
def test_mount_of_odd_type_keeps_its_place(mount, kind, volume):
    found = only(Mounts=[{"Destination": "/d", **mount}]).mounts[0]
    assert (found.kind, found.volume, found.destination) == (kind, volume, "/d")


def test_mount_without_a_word_about_writing_counts_as_writable():
    """Taking it for read-only would leave a writer running."""
    assert only(Mounts=[{"Type": "volume", "Name": "v"}]).mounts[0].writable


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[{}]", b"<html>", b'[{"Id": null}]'])
def test_answer_that_is_no_list_of_containers_raises(body):
    """A failed list is never an empty list."""
    with pytest.raises(msgspec.DecodeError):
        decode.containers(body)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24T01:20:16.123456789Z", datetime(2026, 11, 24, 1, 20, 16, 123456, tzinfo=UTC)),
        ("2026-11-24T01:20:16Z", datetime(2026, 11, 24, 1, 20, 16, tzinfo=UTC)),
        ("2026-11-24T01:20:16.5+02:00", datetime(2026, 11, 23, 23, 20, 16, 500000, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+02:00", None),
        ("2026-11-24T01:20:16", None),
        ("2026-13-24T01:20:16Z", None),
        ("now", None),
        ("", None),
        (None, None),
    ],
)
def test_time_is_utc_or_unknown(text, expected):
    assert parse_time(text) == expected


@given(st.text(max_size=40))
def test_no_text_makes_the_time_parser_raise(text):
    found = parse_time(text)
    assert found is None or found.tzinfo is UTC


@given(st.datetimes(min_value=datetime(2, 1, 1)))  # noqa: DTZ001 - hypothesis wants it bare
def test_every_time_that_docker_writes_is_read_back(moment):
    text = moment.isoformat(timespec="microseconds") + "789Z"
    assert parse_time(text) == moment.replace(tzinfo=UTC)


def test_recorded_inspect_is_complete():
    found = decode.inspected(recorded("inspect"))
    assert (found.name, found.running, found.paused, found.exit_code) == ("demo-db", True, False, 0)
    assert found.started_at is not None
    assert (found.health, found.restart_policy) == ("starting", "unless-stopped")
    assert (found.image, found.networks) == ("kopiwatch-test/busybox:1", ("bridge",))
    assert found.image_id.startswith("sha256:")
    assert found.healthcheck == Healthcheck(
        ("/bin/sh", "-c", "test -e /data && echo ok"), timedelta(seconds=7)
    )
    assert found.definition == recorded("inspect")


def test_recorded_inspect_knows_paths_of_anonymous_volumes_and_hidden_tmpfs():
    mounts = {mount.destination: mount for mount in decode.inspected(recorded("inspect")).mounts}
    anonymous = mounts["/anonymous"]
    assert anonymous.source == f"/var/lib/docker/volumes/{anonymous.volume}/_data"
    assert mounts["/hidden"].kind == "tmpfs"
    assert mounts["/fast"].kind == "tmpfs"


def test_recorded_paused_container_runs_and_shares_a_pid_namespace():
    found = decode.inspected(recorded("inspect-paused"))
    assert (found.running, found.paused, found.health) == (True, True, "none")
    assert found.pid_mode.startswith("container:")
    assert found.volumes_from == ("demo-old",)


def test_recorded_created_container_never_started():
    found = decode.inspected(recorded("inspect-created"))
    assert (found.running, found.started_at, found.network_mode) == (False, None, "none")


@pytest.mark.parametrize(
    ("test", "argv"),
    [
        (["CMD", "pg_isready", "-q"], ("pg_isready", "-q")),
        (["CMD-SHELL", "a || b"], ("/bin/sh", "-c", "a || b")),
        (["NONE"], None),
        (["CMD"], None),
        (["CMD-SHELL"], None),
        (["WHAT", "x"], None),
        ([], None),
        (None, None),
    ],
)
def test_health_check_becomes_the_argv_that_docker_runs(test, argv):
    check = inspect_with(Healthcheck={"Test": test}).healthcheck
    assert (check.argv if check else None) == argv


def test_health_check_uses_the_images_own_shell():
    check = inspect_with(
        Shell=["/bin/bash", "-o", "pipefail", "-c"], Healthcheck={"Test": ["CMD-SHELL", "x"]}
    ).healthcheck
    assert check is not None
    assert check.argv == ("/bin/bash", "-o", "pipefail", "-c", "x")


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(0, 30), (None, 30), (1_500_000_000, 1.5), (1, 0.000001)]
)
def test_health_check_timeout_is_nanoseconds_and_zero_is_dockers_default(timeout, seconds):
    check = inspect_with(Healthcheck={"Test": ["CMD", "x"], "Timeout": timeout}).healthcheck
    assert check is not None
    assert check.timeout == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("config", "expected"),
    [({}, 10), ({"StopTimeout": 0}, 0), ({"StopTimeout": 3600}, 3600), ({"StopTimeout": -1}, None)],
)
def test_stop_timeout_is_the_containers_own(config, expected):
    found = decode.stop_timeout(json.dumps({"Id": "a", "Config": config}).encode())
    assert (found.total_seconds() if found is not None else None) == expected


@pytest.mark.parametrize(("body", "expected"), [({}, 0), ({"RestartCount": 3}, 3)])
def test_restart_count_is_that_of_the_policy(body, expected):
    found = decode.inspected(json.dumps({"Id": "a" * 64, "Config": {}, **body}).encode())
    assert found.restart_count == expected


def test_recorded_volume_keeps_its_definition():
    found = decode_host.volume(recorded("volume"))
    assert (found.name, found.driver, found.options) == ("demo-data", "local", {})
    assert found.mountpoint == "/var/lib/docker/volumes/demo-data/_data"
    assert found.definition == recorded("volume")


@pytest.mark.parametrize(
    ("options", "rootless"),
    [(["name=seccomp,profile=default", "name=rootless"], True), (["name=cgroupns"], False)],
)
def test_info_tells_whether_docker_is_rootless(options, rootless):
    body = json.dumps({"ID": "X", "Name": "h", "SecurityOptions": options}).encode()
    found = decode_host.info(body, "1.41")
    assert (found.id, found.name, found.api_version, found.rootless) == ("X", "h", "1.41", rootless)


@pytest.mark.parametrize(
    ("status", "backing"),
    [
        ([["Backing Filesystem", "extfs"], ["Supports d_type", "true"]], "extfs"),
        ([["driver-type", "io.containerd.snapshotter.v1"]], ""),
        (None, ""),
        ({"Backing Filesystem": "xfs"}, ""),
    ],
)
def test_info_tells_the_file_system_below_docker(status, backing):
    """Podman and the containerd store have other shapes: then nobody knows."""
    body = json.dumps({"ID": "X", "DriverStatus": status}).encode()
    assert decode_host.info(body, "1.41").backing == backing


def test_exec_has_no_exit_code_while_it_runs():
    assert decode.exec_exit_code(b'{"Running": true, "ExitCode": 0}') is None
    assert decode.exec_exit_code(b'{"Running": false, "ExitCode": null}') is None
    assert decode.exec_exit_code(b'{"Running": false, "ExitCode": 7}') == 7


def test_image_names_the_volumes_it_declares():
    body = b'{"Id": "sha256:1", "Config": {"Volumes": {"/data": {}}}}'
    assert decode_host.image(body) == ("sha256:1", ("/data",))
    assert decode_host.image(b'{"Id": "sha256:1"}') == ("sha256:1", ())
