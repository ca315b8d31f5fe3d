"""Docker's own configuration on its host, for the scope ``full``."""

from __future__ import annotations

import anyio.to_thread
import msgspec

from kopiwatch.backup.compose.collect import Look, Rules
from kopiwatch.backup.kept import (
    RESERVED,
    KeptFile,
    LeftOut,
    holds_only,
    keep,
    reserved,
    without,
)
from kopiwatch.backup.redact import redact_file, redact_json
from kopiwatch.engine.port import DaemonWords

FILES = (
    "/etc/docker/daemon.json",
    "/etc/default/docker",
    "/etc/sysconfig/docker",
    "/etc/systemd/system/docker.service",
)
DROP_INS = "/etc/systemd/system/docker.service.d"
HOSTS = ("/etc/docker", *FILES[1:], DROP_INS)
"""What is mounted for it: daemon.json is replaced when it is edited, so its folder."""


class DockerConfiguration(msgspec.Struct, frozen=True):
    """The daemon in the recipe: its own words (JSON), and its files. Those not there are usual."""

    info: msgspec.Raw
    version: msgspec.Raw
    files: tuple[KeptFile, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


async def collect_docker(
    look: Look, words: DaemonWords, rules: Rules
) -> tuple[DockerConfiguration, dict[str, bytes]]:
    """The configuration, and the copies of its files by their path in the recipe."""
    files: list[KeptFile] = []
    left_out: list[LeftOut] = []
    copies: dict[str, bytes] = {}
    for found in await look.read(HOSTS, FILES, (DROP_INS,)):
        if found.reason == "missing":
            continue
        reason, text = found.reason, found.text
        if not reason and holds_only(found.content, rules.password):
            reason, text = "own", "it holds the repository's password"
        if not reason and reserved(found.path):
            reason, text = "name", RESERVED
        if reason:
            by = "Docker's configuration"
            left_out.append(LeftOut("docker", found.path, by, reason, text, reason != "own"))
            continue
        content = without(found.content, rules.password)
        if rules.redact:
            content = await anyio.to_thread.run_sync(redact_file, "docker", content)
        kept = keep("docker", found, f"docker{found.path}", content)
        files.append(kept)
        copies[kept.stored] = content
    made = [redact_json(word) if rules.redact else word for word in (words.info, words.version)]
    info, version = (msgspec.Raw(word) for word in made)
    return DockerConfiguration(info, version, tuple(files), tuple(left_out)), copies
