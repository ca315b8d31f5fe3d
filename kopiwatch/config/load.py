"""Environment and TOML file in, one :class:`Config` or one error with every problem out."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec

from kopiwatch.config.duration import duration_of
from kopiwatch.config.hook import HostHooks, read_hooks
from kopiwatch.config.name import nearest
from kopiwatch.config.program import fault_of_own_program
from kopiwatch.config.setting import (
    FOREIGN_PREFIXES,
    FOREIGN_VARIABLES,
    LATER_TABLES,
    PREFIX,
    RETENTION,
    RETENTION_NUMBERS,
    SETTINGS,
    fault_of_docker,
    fault_of_name,
    fault_of_path,
    read_folders,
    read_listen,
    variable_of,
)
from kopiwatch.config.value import Access, Config, LogFormat, LogLevel, RecipeSecrets, Secret
from kopiwatch.errors import ConfigError

ENVIRONMENT = "environment"
CONFIG_VARIABLE = "KOPIWATCH_CONFIG"
DEFAULT_CONFIG = Path("/etc/kopiwatch/config.toml")

_UTC = re.compile(r"(UTC|GMT)[+-]?0{0,2}")
_BY_KEY = {setting.key: setting for setting in SETTINGS}
_SECRET_FILES = {f"{setting.key}_file": setting for setting in SETTINGS if setting.secret}
_KEYS = (*_BY_KEY, *_SECRET_FILES)


class _Given(msgspec.Struct, frozen=True):
    """A value and where it stands: ``environment`` or the file's path, and the name used there."""

    value: str
    where: str
    name: str


def load(
    environ: Mapping[str, str],
    *,
    read: Callable[[Path], str] | None = None,
    resolve: Callable[[Path], Path] | None = None,
    vet: Callable[[Path], str] | None = None,
) -> Config:
    """The configuration that ``environ`` and the file it names add up to.

    ``read`` returns the text of a file or raises :class:`OSError` or :class:`UnicodeDecodeError`;
    ``resolve`` follows the links of a path; ``vet`` says what is wrong with a program to be run.
    Raises one :class:`ConfigError` that lists every problem, each with its place, its name, the
    reason and the nearest valid name; no secret is ever part of it.
    """
    loader = _Loader(environ, read or _read, resolve or Path.resolve, vet or fault_of_own_program)
    config = loader.config()
    if loader.problems:
        count = len(loader.problems)
        head = "the configuration has a problem" if count == 1 else f"{count} problems"
        raise ConfigError(
            f"{head}:\n" + "\n".join(f"  {problem}" for problem in loader.problems),
            hint="docs/configuration.md lists every setting",
        )
    return config


def _read(path: Path) -> str:
    return path.read_text("utf-8")


class _Loader:
    """Collects values and problems; nothing it meets makes it stop early."""

    def __init__(
        self,
        environ: Mapping[str, str],
        read: Callable[[Path], str],
        resolve: Callable[[Path], Path],
        vet: Callable[[Path], str],
    ) -> None:
        self.environ = environ
        self.read = read
        self.resolve = resolve
        self.vet = vet
        self.hooks: HostHooks = {}
        self.problems: list[str] = []

    def complain(self, where: str, name: str, reason: str) -> None:
        """Note that ``name``, standing in ``where``, ``reason``."""
        self.problems.append(f"{where}: {name} {reason}")

    def config(self) -> Config:
        """All settings; meaningful only if no problem was noted."""
        in_file, profiles = self.from_file()
        in_environment = self.from_environment()
        given = {**in_file, **in_environment}
        # A secret of the environment replaces the file's, whichever way each of them is given.
        for file_key, setting in _SECRET_FILES.items():
            if setting.key in in_environment or file_key in in_environment:
                for key in (setting.key, file_key):
                    if key not in in_environment:
                        given.pop(key, None)
        good = {key: item.value for key, item in given.items() if self.sound(key, item)}
        default = Config()
        self.pairs(given)
        return Config(
            docker_url=good.get("docker") or self.docker_host() or default.docker_url,
            state_dir=Path(good.get("state_dir", default.state_dir)),
            cache_dir=Path(good.get("cache_dir", default.cache_dir)),
            repository=good.get("repository", default.repository),
            password=self.secret("password", given),
            hostname=good.get("hostname", default.hostname),
            instance=good.get("instance", default.instance),
            kopia=good.get("kopia", default.kopia),
            access=cast("Access", good.get("access", default.access)),
            worker_image=good.get("worker_image", default.worker_image),
            schedule=good.get("schedule", default.schedule),
            schedule_origin=_origin(given.get("schedule")) or default.schedule_origin,
            timezone=self.timezone(),
            forget_after=duration_of(good.get("forget_after", "")),
            run_timeout=duration_of(good.get("run_timeout", "")) or default.run_timeout,
            stage_paths=tuple(Path(path) for path in read_folders(good.get("stage_paths", ""))),
            recipe_secrets=cast(
                "RecipeSecrets", good.get("recipe_secrets", default.recipe_secrets)
            ),
            recipe_paths=read_folders(good.get("recipe_paths", "")),
            listen=read_listen(good.get("listen", "")),
            metrics_user=good.get("metrics_user", ""),
            metrics_password=self.secret("metrics_password", given),
            metrics_token=self.secret("metrics_token", given),
            tls_cert=_path(good.get("tls_cert")),
            tls_key=_path(good.get("tls_key")),
            log_format=cast("LogFormat", good.get("log_format", default.log_format)),
            log_level=cast("LogLevel", good.get("log_level", default.log_level)),
            retention={
                name: (good[key], _origin(given[key]))
                for name in RETENTION_NUMBERS
                if (key := f"{RETENTION}.{name}") in good
            },
            profiles=profiles,
            hooks=self.hooks,
        )

    def pairs(self, given: Mapping[str, _Given]) -> None:
        """Complain of settings that mean nothing without each other."""
        for one, other in (("tls_cert", "tls_key"), ("metrics_user", "metrics_password")):
            keys = {key.removesuffix("_file") for key in given}
            for key, missing in ((one, other), (other, one)):
                if key in keys and missing not in keys:
                    item = given.get(key) or given[f"{key}_file"]
                    self.complain(item.where, item.name, f"needs {missing}, too")

    def sound(self, key: str, item: _Given) -> bool:
        """Whether the value can be used; if not, say why."""
        setting = _BY_KEY.get(key) or _SECRET_FILES[key]
        if not item.value.strip():
            fault = "is empty; give it a value or remove it"
        elif not setting.supported:
            fault = "is not supported by this version; remove it"
        else:
            fault = (fault_of_path if key in _SECRET_FILES else setting.fault)(item.value)
        if fault:
            self.complain(item.where, item.name, fault)
        return not fault

    def docker_host(self) -> str:
        """``DOCKER_HOST``, which Docker's own tools also take as unset when it is empty."""
        value = self.environ.get("DOCKER_HOST", "")
        fault = fault_of_docker(value) if value else ""
        if fault:
            self.complain(ENVIRONMENT, "DOCKER_HOST", fault)
        return value

    def timezone(self) -> str:
        """``TZ`` as the name of a zone, where it can be told; else as it stands there.

        The C library also takes a path, and ``UTC0`` is how scripts write UTC. Whether what is left
        is a zone is asked where it is used: ``TZ`` is not ours alone.
        """
        value = self.environ.get("TZ", "").strip().removeprefix(":")
        if value.startswith("/"):
            with suppress(OSError, RuntimeError):  # links in a circle: it stays as it stands
                value = str(self.resolve(Path(value))).rpartition("/zoneinfo/")[2]
        return "UTC" if _UTC.fullmatch(value) else value

    def secret(self, key: str, given: Mapping[str, _Given]) -> Secret | None:
        """The secret itself or what stands in its file, without the line's end."""
        direct, pointer = given.get(key), given.get(f"{key}_file")
        if direct and pointer:
            reason = f"and {pointer.name} are both given; keep one of them"
            self.complain(direct.where, direct.name, reason)
            return None
        if direct:
            return Secret(direct.value)
        if pointer is None or fault_of_path(pointer.value):
            return None
        text = self.text_of(Path(pointer.value), pointer.where, pointer.name)
        value = text.rstrip("\r\n") if text is not None else None
        if value == "":
            self.complain(pointer.where, pointer.name, f"names an empty file, {pointer.value}")
        return Secret(value) if value else None

    def text_of(self, path: Path, where: str, name: str, *, optional: bool = False) -> str | None:
        """What the file holds; None, with a problem noted, if that cannot be told.

        An ``optional`` file may be missing; nothing else about it is forgiven.
        """
        try:
            return self.read(path)
        except FileNotFoundError:
            if not optional:
                self.complain(where, name, f"names {path}, which does not exist")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self.complain(where, name, f"names {path}, which cannot be read: {reason}")
        except UnicodeDecodeError:
            self.complain(where, name, f"names {path}, which is not UTF-8 text")
        return None

    def from_environment(self) -> dict[str, _Given]:
        """The settings among the variables."""
        by_variable = {variable_of(key): key for key in _KEYS}
        given: dict[str, _Given] = {}
        for name, value in sorted(self.environ.items()):
            foreign = name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_VARIABLES
            if foreign or not name.startswith(PREFIX):
                continue
            if name in by_variable:
                given[by_variable[name]] = _Given(value, ENVIRONMENT, name)
            elif name != CONFIG_VARIABLE:
                near = nearest(name, [*by_variable, CONFIG_VARIABLE], cutoff=0.8)
                self.complain(ENVIRONMENT, name, _unknown(near))
        return given

    def from_file(self) -> tuple[dict[str, _Given], dict[str, dict[str, str]]]:
        """The settings and the profiles of the file; nothing if there is none and need be none."""
        named = self.environ.get(CONFIG_VARIABLE)
        path = DEFAULT_CONFIG if named is None else Path(named)
        if named is not None and not named.startswith("/"):
            self.complain(ENVIRONMENT, CONFIG_VARIABLE, "is not an absolute path")
            return {}, {}
        where, name = (str(path), "it") if named is None else (ENVIRONMENT, CONFIG_VARIABLE)
        text = self.text_of(path, where, name, optional=named is None)
        try:
            document = tomllib.loads(text or "")
        except (ValueError, RecursionError) as error:
            self.complain(str(path), "it", f"is not TOML: {error}")
            return {}, {}
        return self.from_document(str(path), document)

    def from_document(
        self, where: str, document: Mapping[str, Any]
    ) -> tuple[dict[str, _Given], dict[str, dict[str, str]]]:
        """The settings and the profiles of a decoded TOML document."""
        given: dict[str, _Given] = {}
        profiles: dict[str, dict[str, str]] = {}
        for key, value in document.items():
            if key == "profile" and isinstance(value, dict):
                profiles = self.profiles(where, value)
            elif key == "profile":
                self.complain(where, key, "is not a table; write [profile.NAME]")
            elif key == RETENTION and isinstance(value, dict):
                given |= self.retention(where, value)
            elif key == RETENTION:
                self.complain(where, key, "is not a table; write [retention]")
            elif key == "hooks":
                self.hooks, faults = read_hooks(value, self.vet)
                for name, reason in faults:
                    self.complain(where, name, reason)
            elif key in LATER_TABLES:
                self.complain(where, key, "is not supported by this version; remove it")
            elif key not in _KEYS:
                self.complain(where, key, _unknown(nearest(key, [*_KEYS, "profile", "hooks"])))
            elif isinstance(value, str):
                given[key] = _Given(value, where, key)
            else:
                self.complain(where, key, "is not a text; put it in quotes")
        return given, profiles

    def retention(self, where: str, table: Mapping[str, Any]) -> dict[str, _Given]:
        """The numbers of ``[retention]``, as numbers or as texts."""
        given = {}
        for name, value in table.items():
            key = f"{RETENTION}.{name}"
            if key not in _BY_KEY:
                self.complain(where, key, _unknown(nearest(key, _BY_KEY)))
            elif isinstance(value, (str, int)) and not isinstance(value, bool):
                given[key] = _Given(str(value), where, key)
            else:
                self.complain(where, key, "is not a whole number from 0 on")
        return given

    def profiles(self, where: str, tables: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """Profiles with full label names; whether those exist is the labels' own table to say."""
        profiles: dict[str, dict[str, str]] = {}
        for name, table in tables.items():
            place = f"[profile.{name}]"
            fault = "is 'none', which means no profile" if name == "none" else fault_of_name(name)
            if fault or not isinstance(table, dict):
                self.complain(where, place, fault or "is not a table")
                continue
            profile = profiles[name] = {}
            for key, value in _flatten(table):
                label = key if key.startswith("kopi.") else f"kopi.{key}"
                text = _text(value)
                if label in profile:
                    self.complain(where, place, f"gives {label} twice")
                elif text is None:
                    self.complain(where, place, f"gives {label} no text, boolean, number or list")
                else:
                    profile[label] = text
        return profiles


def _origin(item: _Given | None) -> str:
    if item is None:
        return ""
    return f"environment {item.name}" if item.where == ENVIRONMENT else f"file {item.where}"


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _unknown(near: str) -> str:
    return f"is not a setting; did you mean {near}?" if near else "is not a setting"


def _flatten(table: Mapping[str, Any], head: str = "") -> Iterable[tuple[str, object]]:
    # Bare TOML keys with dots (kopi.mode = "stop") arrive as nested tables.
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{head}{key}.")
        else:
            yield f"{head}{key}", value


def _text(value: object) -> str | None:
    """A TOML value as the text that a label would hold; None if a label cannot hold it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < 10**9:
        return str(value)
    if isinstance(value, list) and all(isinstance(v, str) and "," not in v for v in value):
        return ",".join(value)
    return None
