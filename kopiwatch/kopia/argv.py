"""The argument list of every Kopia command, without the program's name. Pure.

Several of these options are hidden in ``kopia --help`` (``--auto-maintenance``,
``--flush-per-source``, ``--force-enable-actions``, ``--json-verbose``, ``--override-*``,
``--disable-repository-format-cache``, ``--log-dir-max-*``): they are known for Kopia 0.23.1 and
proved by the contract tests. No secret ever stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

USER = "kopiwatch"
"""The user in every identity ``kopiwatch@<host>:<path>``; the real one would change."""

TAG_PREFIX = "kopiwatch-"


def common(config_file: Path | str, *, log_dir: Path | str) -> list[str]:
    """What stands before every command.

    Maintenance is never a side effect of another command. Kopia's own log files are bounded: at
    most 200 files and 64 MB (its defaults are 1,000 and 1 GB), without the content log.
    """
    return [
        f"--config-file={config_file}",
        f"--log-dir={log_dir}",
        "--log-dir-max-files=200",
        "--log-dir-max-total-size-mb=64",
        "--disable-content-log",
        "--no-auto-maintenance",
        "--no-progress",
    ]


def create_filesystem(path: Path, *, cache_dir: Path, host: str) -> list[str]:
    """``repository create filesystem``. The two algorithms hold for the repository's life.

    pbkdf2 opens in 137 ms instead of scrypt's 240 and needs 64 MiB less; BLAKE3 hashes 2.6 times
    as fast as the default.
    """
    return [
        "repository",
        "create",
        "filesystem",
        f"--path={path}",
        "--block-hash=BLAKE3-256-128",
        "--format-block-key-derivation-algorithm=pbkdf2-sha256-600000",
        *_client(cache_dir, host),
    ]


def connect_filesystem(path: Path, *, cache_dir: Path, host: str) -> list[str]:
    """``repository connect filesystem``."""
    return ["repository", "connect", "filesystem", f"--path={path}", *_client(cache_dir, host)]


def _client(cache_dir: Path, host: str) -> list[str]:
    return [
        f"--cache-directory={cache_dir}",
        f"--override-username={USER}",
        f"--override-hostname={host}",
        # With it, an unmounted disk takes snapshots into the bare mount point and says success,
        # and an unreachable remote hangs without end.
        "--disable-repository-format-cache",
        "--no-persist-credentials",
        "--no-check-for-updates",
    ]


def status() -> list[str]:
    """``repository status`` as JSON."""
    return ["repository", "status", "--json"]


def snapshot_list(source: str = "") -> list[str]:
    """``snapshot list`` as JSON: always with incomplete ones, and all hosts without a source."""
    return ["snapshot", "list", "--json", *([source] if source else [])]


def show(obj: str) -> list[str]:
    """``show`` of one object."""
    return ["show", obj]


def pin(snapshot: str, name: str, *, instead_of: str = "") -> list[str]:
    """``snapshot pin``; changes the id.

    Both in one call is one change of the manifest (measured: a Kopia that is killed leaves the old
    manifest or the new one, never both or none).
    """
    removed = [f"--remove={instead_of}"] if instead_of else []
    return ["snapshot", "pin", snapshot, f"--add={name}", *removed]


def move_history(source: str, target: str) -> list[str]:
    """``snapshot move-history`` of one full identity to another (``user@host:path``).

    Start times, tags, pins and content stay; the ids change. One change of the repository: all
    manifests or none (measured with Kopia killed half-way). A source without any exits 0.
    """
    return ["snapshot", "move-history", source, target]


def delete(snapshots: Sequence[str]) -> list[str]:
    """``snapshot delete``; without ``--delete`` it would only say what it would do, and exit 0."""
    return ["snapshot", "delete", *snapshots, "--delete"]


def restore(path: str, target: Path) -> list[str]:
    """``snapshot restore`` of ``<id>[/sub/path]``, with owners, or not at all.

    ``--mode=local``, because a target that ends in .zip or .tar would become an archive; ignored
    permission errors (the default) would give everything to root and exit 0.
    """
    return [
        "snapshot",
        "restore",
        path,
        str(target),
        "--mode=local",
        "--no-ignore-permission-errors",
        "--write-sparse-files",
        "--parallel=8",
    ]


def outline(snapshot: str, target: Path) -> list[str]:
    """``snapshot restore`` of the root's folders, with placeholders for what is in them.

    Nothing of the attributes is set: it is thrown away as soon as it was read.
    """
    return [
        "snapshot",
        "restore",
        snapshot,
        str(target),
        "--mode=local",
        "--shallow=1",
        "--skip-owners",
        "--skip-permissions",
        "--skip-times",
    ]


def policy_import() -> list[str]:
    """``policy import`` from standard input: one call, however many targets."""
    return ["policy", "import"]


def policy_list() -> list[str]:
    """``policy list`` as JSON: each target with exactly what is defined on it."""
    return ["policy", "list", "--json"]


def snapshot_argv(
    config_file: Path | str,
    source: str,
    *,
    log_dir: Path | str,
    tags: Mapping[str, str],
    force_hash: bool = False,
    gate: bool = True,
) -> list[str]:
    """``snapshot create`` of one path, as the worker runs it, waiting at the gate if there is one.

    ``tags`` by their short names: ``{"run": id}`` is stored as ``kopiwatch-run`` and read back by
    :meth:`kopiwatch.kopia.record.Snapshot.tag`. With ``force_hash`` every file is read, also those
    that look unchanged. With ``--flush-per-source`` the line on standard output means durable;
    without it, it can name a snapshot that never comes to exist.
    """
    return [
        *common(config_file, log_dir=log_dir),
        "snapshot",
        "create",
        source,
        "--json",
        "--json-verbose",
        "--flush-per-source",
        "--no-send-snapshot-report",
        *(["--force-enable-actions"] if gate else []),
        *(["--force-hash=100"] if force_hash else []),
        *(f"--tags={TAG_PREFIX}{name}:{tags[name]}" for name in sorted(tags)),
    ]
