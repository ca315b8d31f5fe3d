"""``KOPIWATCH_REPOSITORY`` and the worker's configuration."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.errors import ConfigError, RepositoryError
from kopiwatch.kopia.backend import (
    LATER,
    FilesystemBackend,
    StorageIdentity,
    parse_repository,
    worker_config,
)

CONFIG = json.dumps(
    {
        "storage": {"type": "filesystem", "config": {"path": "/a/kopia", "dirShards": None}},
        "caching": {"cacheDirectory": "../cache", "maxCacheSize": 5},
        "hostname": "h",
        "formatBlobCacheDuration": -1,
        "future": {"x": [1]},
    }
).encode()


def test_filesystem_repository_is_a_folder_below_its_mount():
    """So that an unmounted disk is told from a repository."""
    backend = parse_repository("filesystem:/srv/backup/")
    assert backend == FilesystemBackend(Path("/srv/backup"))
    assert backend.path == Path("/srv/backup/kopia")
    assert backend.marker == Path("/srv/backup/kopia/kopia.repository.f")
    assert backend.identity == StorageIdentity("filesystem", "/srv/backup/kopia")


@pytest.mark.parametrize("scheme", LATER)
def test_backend_of_a_later_version_is_refused_without_its_parameters(scheme):
    """The design's other kinds are known, refused by name, and what may be a key is not shown."""
    with pytest.raises(ConfigError, match="not supported by this version") as caught:
        parse_repository(f"{scheme}://bucket/prefix?key=geheim")
    assert scheme in caught.value.message
    assert "geheim" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "filesystem:/repository"),
        ("/srv/backup", "filesystem:/srv/backup"),
        ("filesytem:/srv", "'filesystem'"),
        ("S3://x", "'s3'"),
        ("ftp://x", "filesystem:/repository"),
        ("filesystem:", "filesystem:/repository"),
        ("filesystem:relative", "filesystem:/repository"),
        ("filesystem:/a/../b", "filesystem:/repository"),
        ("filesystem://host/a", "filesystem:/host/a"),
        ("filesystem:/", "filesystem:/repository"),
    ],
)
def test_malformed_repository_is_refused_with_an_example(url, hint):
    """Whatever is wrong, the hint shows what would be right."""
    with pytest.raises(ConfigError) as caught:
        parse_repository(url)
    assert hint in caught.value.hint


@given(st.text())
def test_no_repository_makes_the_parser_raise_anything_else(url):
    """Every text is a backend or a ConfigError."""
    with suppress(ConfigError):
        assert parse_repository(url).path.is_absolute()


def test_worker_config_moves_cache_and_repository_and_nothing_else():
    """All that Kopia wrote besides stays, known or not."""
    moved = json.loads(worker_config(CONFIG, cache_dir="/c", storage_path="/r/kopia"))
    wanted = json.loads(CONFIG)
    wanted["caching"]["cacheDirectory"] = "/c"
    wanted["storage"]["config"]["path"] = "/r/kopia"
    assert moved == wanted


def test_worker_config_without_storage_path_leaves_the_storage():
    """A remote repository is at the same place for everybody."""
    moved = json.loads(worker_config(CONFIG, cache_dir="/c"))
    assert moved["storage"] == json.loads(CONFIG)["storage"]


def test_worker_config_of_a_remote_repository_has_no_path():
    """A path for a bucket is a mistake of ours."""
    config = b'{"storage":{"type":"s3","config":{"bucket":"b"}}}'
    with pytest.raises(RepositoryError, match="s3"):
        worker_config(config, cache_dir="/c", storage_path="/r")


@pytest.mark.parametrize("config", [b"", b"[]", b"{}", b'{"storage":3}', b"\xff"])
def test_worker_config_of_rubbish_is_an_error(config):
    """An unreadable configuration is no configuration."""
    with pytest.raises(RepositoryError):
        worker_config(config, cache_dir="/c")
