"""The policy of ``kopiwatch@<host>``: keep everything, leave nothing out, wait at the gate. Pure.

Shapes as ``policy import``, ``policy export`` and ``policy show --json`` of Kopia 0.23.1 have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import msgspec

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia.argv import USER
from kopiwatch.kopia.record import SourceIdentity

Json = dict[str, object]

GATE_TIMEOUT_SECONDS = 24 * 60 * 60
"""Longer than any wait; without a value Kopia kills an action after 3 minutes."""

_REFUSAL = "kopiwatch: only kopiwatch backs this source up; Kopia was started without its gate"


def _gate(said: str, wanted: str) -> str:
    """The script of one gate: says a line, waits for a line, and opens only for the right one."""
    return f"""\
if [ ! -p "${{KOPIWATCH_GATE:-}}/said" ] || [ ! -p "${{KOPIWATCH_GATE:-}}/word" ]; then
  echo "{_REFUSAL}" >&2
  exit 1
fi
echo {said} >"$KOPIWATCH_GATE/said" || exit 1
read -r word place <"$KOPIWATCH_GATE/word" || exit 1
[ "$word" = {wanted} ] || exit 1
case "$place" in
  "") ;;
  /*) echo "KOPIA_SNAPSHOT_PATH=$place" ;;
  *) exit 1 ;;
esac
"""


GATE_BEFORE = _gate("before", "go")
"""Runs when the repository is open, before the first file is read.

``KOPIWATCH_GATE`` comes from the environment of the Kopia process: a folder with two FIFOs. The
script writes the line ``before`` into ``said`` and then reads one line from ``word``. Anything but
``go``, the end of that FIFO included, refuses: Kopia exits 1 and leaves no manifest. A path behind
``go`` is what Kopia reads instead, by the line that it takes from an action's output: identity,
parents and policy stay those of the source (measured). Shell builtins only, so that it works in
every image with a ``/bin/sh``.
"""

GATE_AFTER = _gate("after", "flush")
"""Runs when all has been read, before the last blobs and the manifest are written.

It says ``after`` and waits for ``flush``, so that writing begins when the containers are up again
and does not compete with their start. Its exit code means nothing to Kopia, which saves a complete
snapshot either way: whoever does not want one kills Kopia.
"""


def _action(script: str) -> Json:
    return {
        "path": "/bin/sh",
        "args": ["-c", script],
        "timeout": GATE_TIMEOUT_SECONDS,
        "mode": "essential",
    }


ACTIONS: Json = {
    "beforeSnapshotRoot": _action(GATE_BEFORE),
    "afterSnapshotRoot": _action(GATE_AFTER),
}

HOST_POLICY: Json = {
    # Nothing from @<host> or the global policy reaches us: an ignore rule, a size limit or a
    # retention that somebody set there for other clients would silently cost data here. Kopia
    # does not add its defaults either, so what matters is spelt out below.
    "noParent": True,
    # Kopia prunes inside `snapshot create` and counts unreadable snapshots as good ones; all six
    # zero means that it keeps everything. kopiwatch deletes by id, after a success.
    "retention": {
        "keepLatest": 0,
        "keepHourly": 0,
        "keepDaily": 0,
        "keepWeekly": 0,
        "keepMonthly": 0,
        "keepAnnual": 0,
        "ignoreIdenticalSnapshots": False,
    },
    # No ignoreDotFiles: with noParent that means none, so that no container can hide its data by
    # a .kopiaignore. Every volume is a mount of its own: one file system would be an empty tree.
    "files": {"ignoreCacheDirs": False, "oneFileSystem": False},
    # Sockets, FIFOs and devices are left out (and listed by the worker); all else is an error.
    "errorHandling": {
        "ignoreFileErrors": False,
        "ignoreDirectoryErrors": False,
        "ignoreUnknownTypes": True,
    },
    # s2 costs no time on a first pass (5.1 s against 5.0 without) and saves a quarter;
    # zstd-fastest doubles the time, and with the gate that time is downtime.
    "compression": {"compressorName": "s2-default"},
    "metadataCompression": {"compressorName": "zstd-fastest"},
    # Kopia's own default, lost with noParent: larger files are read by several threads.
    "upload": {"parallelUploadAboveSize": 2 << 30},
    "actions": ACTIONS,
}


SECTIONS = ("actions", "files", "retention", "errorHandling", "noParent")
"""What of a policy could lose data, prune it, or run foreign code."""


def host_target(host: str) -> str:
    """The target of the host policy, ``kopiwatch@<host>``."""
    return f"{USER}@{host}"


def host_policy(host: str) -> bytes:
    """The input of ``policy import`` that sets the host policy and touches no other target."""
    return msgspec.json.encode({host_target(host): HOST_POLICY})


class PolicyTarget(msgspec.Struct, frozen=True, rename="camel"):
    """What a policy is defined on; empty fields widen it, all empty is the global policy."""

    host: str = ""
    user_name: str = ""
    path: str = ""

    def __str__(self) -> str:
        if not self.host:
            return "(global)"
        return f"{self.user_name}@{self.host}" + (f":{self.path}" if self.path else "")


class DefinedPolicy(msgspec.Struct, frozen=True):
    """One row of ``policy list --json``: a target and exactly what is defined on it."""

    target: PolicyTarget
    policy: Json


def decode_policies(rows: Iterable[Json]) -> tuple[DefinedPolicy, ...]:
    """The rows of ``policy list --json``. Raises msgspec.ValidationError."""
    return tuple(
        DefinedPolicy(
            msgspec.convert(row.get("target", {}), PolicyTarget),
            {key: value for key, value in row.items() if key not in ("id", "target")},
        )
        for row in rows
    )


def drift(current: Mapping[str, object] | None) -> list[str]:
    """What of a defined policy is not as ours, in words; empty if nothing. None: none is defined.

    More than ours is drift as well: a rule that we did not set may leave data out.
    """
    if current is None:
        return ["no policy is defined"]
    found, wanted = dict(_leaves(current)), dict(_leaves(HOST_POLICY))
    return [
        f"{name} is {_shown(found, name)}, should be {_shown(wanted, name)}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]


def check_defined(policies: Iterable[DefinedPolicy], source: SourceIdentity) -> None:
    """Raise RepositoryError unless nothing in effect on a source can lose data or run foreign code.

    ``policies`` are all that are defined. Ours stands on the host and ends all inheritance; what
    stands on the source, or on a folder above it, could only add to it (Kopia 0.23.1 merges from
    there up to the first with ``noParent``). A policy below it is refused as a whole.
    """
    who = (source.host, source.user_name)
    mine = [each for each in policies if (each.target.host, each.target.user_name) == who]
    host: Json = {}
    for each in mine:
        if not each.target.path:
            host = each.policy
        elif f"{source.path}/".startswith(each.target.path.rstrip("/") + "/"):
            _check_added(each.policy, str(source))
    check_host(host, str(source))
    check_below(mine, source)


def check_host(found: Mapping[str, object], source: str) -> None:
    """Raise RepositoryError unless a host policy lets each source have ours and nothing else."""
    have, want = _weighty(found), _weighty(HOST_POLICY)
    _refuse(source, (name for name in have.keys() | want if have.get(name) != want.get(name)))


def _check_added(found: Mapping[str, object], source: str) -> None:
    """Raise RepositoryError unless a policy adds nothing of weight. An action replaces ours."""
    have, ours = _weighty(found), _weighty({**HOST_POLICY, "actions": {}, "noParent": None})
    _refuse(source, (name for name in have if have[name] != ours.get(name)))


def check_below(policies: Iterable[DefinedPolicy], source: SourceIdentity) -> None:
    """Raise RepositoryError if a policy is defined below a source.

    Kopia 0.23.1 runs the folder actions of such a policy and, measured, lets it inherit nothing:
    whatever it does not set is Kopia's default again, tagged caches and ``.kopiaignore`` included.
    kopiwatch sets none.
    """
    below = source.path.rstrip("/") + "/"
    for policy in policies:
        target = policy.target
        ours = (target.host, target.user_name) == (source.host, source.user_name)
        if ours and target.path.startswith(below):
            raise RepositoryError(
                f"the policy of {target} is not ours and would change what is backed up",
                hint=f"Remove it: kopia policy delete {target}",
            )


def _weighty(found: Mapping[str, object]) -> dict[str, object]:
    """What of a policy is of weight, by its dotted name."""
    return dict(_leaves({name: found.get(name) for name in SECTIONS}))


def _refuse(source: str, names: Iterable[str]) -> None:
    if wrong := sorted(names):
        raise RepositoryError(
            f"the policy in effect on {source} is not ours: {', '.join(wrong)}",
            hint=f"Somebody changed it; look at `kopia policy show {source}` and remove what was "
            "added there. kopiwatch restores its own host policy by itself.",
        )


def _leaves(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Every value by its dotted name; what is empty or null does not count, Kopia adds such."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(cast("Mapping[str, object]", inner), f"{prefix}{key}.")
        elif inner is not None and inner != []:
            yield f"{prefix}{key}", inner


def _shown(values: Mapping[str, object], name: str) -> str:
    if name not in values:
        return "not set"
    text = msgspec.json.encode(values[name]).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
