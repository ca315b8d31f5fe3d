"""The argument lists."""

from __future__ import annotations

from pathlib import Path

from kopiwatch.kopia import argv


def test_snapshot_argv_is_exactly_the_measured_one():
    """Every option of the one launch that reads data."""
    assert argv.snapshot_argv(
        "/k/repository.config",
        "/mnt/shop",
        log_dir="/k/logs",
        tags={"run": "20260101T000000Z-ab", "mode": "stop"},
    ) == [
        "--config-file=/k/repository.config",
        "--log-dir=/k/logs",
        "--log-dir-max-files=200",
        "--log-dir-max-total-size-mb=64",
        "--disable-content-log",
        "--no-auto-maintenance",
        "--no-progress",
        "snapshot",
        "create",
        "/mnt/shop",
        "--json",
        "--json-verbose",
        "--flush-per-source",
        "--no-send-snapshot-report",
        "--force-enable-actions",
        "--tags=kopiwatch-mode:stop",
        "--tags=kopiwatch-run:20260101T000000Z-ab",
    ]


def test_snapshot_argv_with_force_hash_reads_everything():
    """Files that look unchanged are read as well."""
    made = argv.snapshot_argv("/c", "/mnt/u", log_dir="/l", tags={}, force_hash=True)
    assert "--force-hash=100" in made


def test_created_and_connected_alike_have_no_format_cache_and_no_stored_password():
    """The two options that guard against ghost repositories and leaked passwords."""
    for made in (
        argv.create_filesystem(Path("/r/kopia"), cache_dir=Path("/c"), host="h"),
        argv.connect_filesystem(Path("/r/kopia"), cache_dir=Path("/c"), host="h"),
    ):
        assert "--disable-repository-format-cache" in made
        assert "--no-persist-credentials" in made
        assert "--override-hostname=h" in made


def test_delete_really_deletes():
    """Without --delete Kopia only says what it would do, and exits 0."""
    assert argv.delete(["a", "b"]) == ["snapshot", "delete", "a", "b", "--delete"]


def test_restore_never_ignores_permission_errors():
    """Kopia's default gives everything to root and exits 0."""
    made = argv.restore("id/volumes", Path("/t.zip"))
    assert "--no-ignore-permission-errors" in made
    assert "--mode=local" in made
