"""``KOPIWATCH_REPOSITORY`` as a typed place, and Kopia's configuration for another place. Pure."""

from __future__ import annotations

import posixpath
from difflib import get_close_matches
from pathlib import Path

import msgspec

from kopiwatch.errors import ConfigError, RepositoryError

EXAMPLE = "filesystem:/repository"
LATER = ("s3", "b2", "azure", "gcs", "sftp", "tailscale", "rclone", "webdav", "server")
MARKER = "kopia.repository.f"
"""The file in every filesystem repository that holds its format (Kopia 0.23.1)."""


class StorageIdentity(msgspec.Struct, frozen=True):
    """Where a repository is, as far as it tells one from another. Holds no secret."""

    type: str
    path: str

    def __str__(self) -> str:
        return f"{self.type}:{self.path}"


class FilesystemBackend(msgspec.Struct, frozen=True):
    """A repository below a mounted folder.

    ``mount`` is the configured folder. The repository is a sub-directory of it, so that an
    unmounted disk, whose bare mount point is an ordinary empty folder, is told from a repository.
    """

    mount: Path

    @property
    def path(self) -> Path:
        """Kopia's own path."""
        return self.mount / "kopia"

    @property
    def marker(self) -> Path:
        """The file that exists if and only if the repository does."""
        return self.path / MARKER

    @property
    def identity(self) -> StorageIdentity:
        """Type and path."""
        return StorageIdentity("filesystem", str(self.path))

    def __str__(self) -> str:
        return f"filesystem:{self.mount}"


def parse_repository(url: str) -> FilesystemBackend:
    """The backend that ``KOPIWATCH_REPOSITORY`` names. Raises ConfigError."""
    scheme, colon, rest = url.partition(":")
    hint = f"For example {EXAMPLE}: an absolute path to a mounted folder."
    if not url or not colon:
        guess = f"filesystem:{url}" if url.startswith("/") else EXAMPLE
        raise ConfigError(
            f"KOPIWATCH_REPOSITORY={url!r} does not say what kind of place it is",
            hint=f"Did you mean {guess}?",
        )
    if scheme in LATER:
        # The rest may hold a key, so it is not repeated.
        raise ConfigError(
            f"KOPIWATCH_REPOSITORY: {scheme!r} repositories are not supported by this version",
            hint=hint,
        )
    if scheme != "filesystem":
        near = get_close_matches(scheme.lower(), ("filesystem", *LATER), 1)
        raise ConfigError(
            f"KOPIWATCH_REPOSITORY: {scheme!r} is no kind of repository",
            hint=f"Did you mean {near[0]!r}? {hint}" if near else hint,
        )
    if not rest.startswith("/") or "\0" in rest or ".." in rest.split("/"):
        raise ConfigError(
            f"KOPIWATCH_REPOSITORY={url!r} must name an absolute path without '..'", hint=hint
        )
    if rest.startswith("//"):
        raise ConfigError(
            f"KOPIWATCH_REPOSITORY={url!r}: a filesystem repository has no host part",
            hint=f"Did you mean filesystem:/{rest.lstrip('/')}?",
        )
    path = posixpath.normpath(rest)
    if path == "/":
        raise ConfigError("KOPIWATCH_REPOSITORY: '/' cannot be a repository", hint=hint)
    return FilesystemBackend(Path(path))


def worker_config(
    config: bytes, *, cache_dir: Path | str, storage_path: Path | str | None = None
) -> bytes:
    """Kopia's configuration file, moved to another place.

    ``cache_dir`` is the absolute path of the cache there. ``storage_path`` is the path of a
    filesystem repository there (of the repository itself, the folder ``kopia``), None to leave it.
    All else stays as Kopia wrote it. Raises RepositoryError if it is not such a file.
    """
    try:
        data = msgspec.json.decode(config, type=dict[str, msgspec.Raw])
        storage = msgspec.json.decode(data["storage"], type=dict[str, object])
        caching = msgspec.json.decode(data.get("caching") or b"{}", type=dict[str, object])
    except (msgspec.DecodeError, KeyError) as error:
        raise RepositoryError(
            f"Kopia's configuration cannot be read: {error}",
            hint="Remove it and run `kopiwatch repo connect`.",
        ) from error
    caching["cacheDirectory"] = str(cache_dir)
    if storage_path is not None:
        place = storage.get("config")
        if storage.get("type") != "filesystem" or not isinstance(place, dict):
            raise RepositoryError(
                f"a repository of type {storage.get('type')!r} has no path that could be moved"
            )
        storage["config"] = {**place, "path": str(storage_path)}
    return msgspec.json.encode({**data, "storage": storage, "caching": caching})
