"""The labels of one container: typed settings, where each comes from, and every problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from kopiwatch.units.container import Container
from kopiwatch.units.dump import faults, read_settings
from kopiwatch.units.hook import hooks_of, without_command
from kopiwatch.units.label import (
    ENABLE,
    PREFIX,
    RESERVED,
    find,
    lookalike,
    nearest_name,
)
from kopiwatch.units.profile import RANK_LABEL, Layer, Profiles, layers
from kopiwatch.units.row import Label
from kopiwatch.units.setting import MemberSettings
from kopiwatch.units.table import LABELS
from kopiwatch.units.unit import Effective, Problem
from kopiwatch.units.value import Bad, read, read_boolean

Standing = Literal["absent", "stray", "off", "member"]

DROP = "!none"
"""As the value of a label: what a profile says here does not count, the default does."""

SHOWN = 200
"""How much of a value a problem repeats, in characters."""

_SECRET_WORDS = re.compile(r"pass|secret|token|credential|key", re.IGNORECASE)
_IDENTITY = ("kopi.unit", "kopi.instance", "kopi.profile")


class Given(msgspec.Struct, frozen=True):
    """A value that somebody gave: typed, as text, and with the place it stands in."""

    value: object
    text: str
    layer: Layer

    @property
    def origin(self) -> str:
        """``label``, ``profile NAME``, ``environment VARIABLE`` or ``file PATH``."""
        return self.layer.origin


class Labelled(msgspec.Struct, frozen=True):
    """What the labels of one container say.

    ``standing``: ``absent`` carries no label of ours; ``stray`` carries some but does not opt in;
    ``off`` opts out; ``member`` opts in, or tries to and fails, which the problems tell. ``ours``
    are the names of its labels that are ours or meant to be. ``unit`` is the explicit name, empty
    without one, and :attr:`misnamed` what it says where that is no name. ``instance`` is empty
    where it cannot be told. ``unit_wide`` holds values of level ``unit`` by label.
    """

    container: Container
    standing: Standing
    ours: tuple[str, ...] = ()
    unit: str = ""
    misnamed: str = ""
    instance: str = "default"
    settings: MemberSettings = MemberSettings()
    unit_wide: dict[str, Given] = msgspec.field(default_factory=dict)
    effective: tuple[Effective, ...] = ()
    problems: tuple[Problem, ...] = ()


def parse(container: Container, profiles: Profiles | None = None) -> Labelled:
    """Everything the labels of ``container`` say, with the profiles they name.

    Never raises. The result does not depend on the order of the labels. A value that is not
    understood leaves the default in the settings *and* a problem, so that the unit is disabled.
    """
    names = [name for name in sorted(container.labels) if name.startswith(PREFIX)]
    imitations = {
        name: meant
        for name in sorted(container.labels)
        if not name.startswith(PREFIX) and (meant := lookalike(name))
    }
    ours = (*names, *imitations)
    standing = _standing(container.labels, names, imitations)
    if standing != "member":
        return Labelled(container, standing, ours=ours)
    return _Reading(container, profiles or {}).result(ours, imitations)


def check_profiles(profiles: Profiles) -> tuple[Problem, ...]:
    """What is wrong with the profiles themselves, whether or not a container uses them."""
    problems: list[Problem] = []
    for name, texts in sorted(profiles.items()):
        reading = _Reading(Container(id="", name=f"profile {name}"), {})
        reading.apply(Layer("label", RANK_LABEL, texts), in_profile=True)
        problems += reading.problems
    return tuple(sorted(set(problems)))


def _standing(
    labels: Mapping[str, str], names: list[str], imitations: Mapping[str, str]
) -> Standing:
    if not names and not imitations:
        return "absent"
    if ENABLE in labels:
        return "off" if read(read_boolean, labels[ENABLE]) is False else "member"
    # Somebody who wrote kopi.enabled=true wants a backup; silence would be the worst answer.
    tries = [name for name in names if find(name) is None and nearest_name(name) == ENABLE]
    tries += [name for name, meant in imitations.items() if meant == ENABLE]
    if any(read(read_boolean, labels[name]) is not False for name in tries):
        return "member"
    return "stray"


class _Reading:
    """One container being read; collects values and problems."""

    def __init__(self, container: Container, profiles: Profiles) -> None:
        self.container = container
        self.profiles = profiles
        self.given: dict[str, Given] = {}
        self.dropped: set[str] = set()
        self.problems: list[Problem] = []

    def complain(self, label: str, value: str, reason: str, suggestion: str = "") -> None:
        """Note a problem; a value whose label sounds like a secret is not repeated."""
        secret = _SECRET_WORDS.search(label) and not label.endswith(("_env", "_file"))
        shown = "***" if secret else value
        if len(shown) > SHOWN:
            shown = shown[:SHOWN] + "…"
        self.problems.append(Problem(self.container.name, label, shown, reason, suggestion))

    def result(self, ours: tuple[str, ...], imitations: Mapping[str, str]) -> Labelled:
        """Read all layers, weakest first, and put together what they say."""
        labels = self.container.labels
        for name, meant in imitations.items():
            self.complain(name, labels[name], "is not a label of kopiwatch", _mean(meant))
        own = Layer(
            "label", RANK_LABEL, {n: text for n, text in labels.items() if n.startswith(PREFIX)}
        )
        for layer in self.profile_layers(own):
            self.apply(layer, in_profile=True)
        self.apply(own, in_profile=False)
        self.refuse_unsupported()
        self.refuse_lost_hooks(own)
        self.refuse_unfitting_dump(own)
        unit = self.given.get("kopi.unit")
        instance = self.given.get("kopi.instance")
        misnamed = own.texts.get("kopi.unit", "") if unit is None else ""
        unreadable_instance = instance is None and "kopi.instance" in own.texts
        return Labelled(
            self.container,
            "member",
            ours=ours,
            unit=str(unit.value) if unit else "",
            misnamed=misnamed,
            instance=str(instance.value) if instance else "" if unreadable_instance else "default",
            settings=self.settings(),
            unit_wide=self.unit_wide(),
            effective=self.effective(),
            problems=tuple(sorted(set(self.problems))),
        )

    def profile_layers(self, own: Layer) -> tuple[Layer, ...]:
        """The profiles that apply; unknown ones are problems."""
        label = "kopi.profile"
        text = own.texts.get(label)
        row = find(label)
        wanted = read(row.reader, text) if row is not None and text is not None else ()
        if isinstance(wanted, Bad) or not isinstance(wanted, tuple):
            wanted = ()  # Said when the label itself is read.
        found, faults = layers(wanted, self.profiles)
        for fault in faults:
            reason, _, suggestion = fault.partition("; ")
            self.complain(label, text or "", reason, suggestion)
        return found

    def apply(self, layer: Layer, *, in_profile: bool) -> None:
        """Let the texts of ``layer`` win over what was given before."""
        said = f"{layer.origin}: " if in_profile and layer.origin != "label" else ""
        for name, text in sorted(layer.texts.items()):
            row = find(name)
            if name in RESERVED:
                self.complain(name, text, f"{said}is reserved for kopiwatch's own containers")
            elif row is None:
                meant = nearest_name(name)
                self.complain(name, text, f"{said}is not a label of kopiwatch", _mean(meant))
            elif in_profile and not row.shareable:
                self.complain(name, text, f"{said}cannot stand in a profile", "set it as a label")
            elif row.shareable and text.strip() == DROP:
                self.given.pop(name, None)
                self.dropped.add(name)
            else:
                self.take(name, row, text, layer, said)

    def take(self, name: str, row: Label, text: str, layer: Layer, said: str) -> None:
        """Read one value; what is not understood leaves a problem and nothing else."""
        value = read(row.reader, text)
        self.dropped.discard(name)
        if isinstance(value, Bad):
            self.given.pop(name, None)
            self.complain(name, text, f"{said}{value.reason}", value.suggestion)
        else:
            self.given[name] = Given(value, text.strip(), layer)

    def refuse_unsupported(self) -> None:
        """A value whose feature is not built yet disables the unit; it is never ignored."""
        for name, given in self.given.items():
            row = find(name)
            if row is None or row.supports(given.value):
                continue
            said = "" if given.origin == "label" else f"{given.origin}: "
            ways = [repr(word) for word in row.supported or ()]
            hint = f"use {' or '.join(ways)}, or remove it" if ways else "remove it"
            self.complain(name, given.text, f"{said}is not supported by this version", hint)

    def refuse_lost_hooks(self, own: Layer) -> None:
        """Somebody who says when a hook ends, and not what it does, meant it to do something."""
        for name, missing in without_command({*self.given, *own.texts}).items():
            if find(name) and own.texts.get(name, DROP).strip() != DROP:
                reason = "says how a hook runs, and there is no command to run"
                self.complain(name, own.texts[name], reason, f"add {missing}, or remove it")

    def refuse_unfitting_dump(self, own: Layer) -> None:
        """Labels of a dump that contradict each other, or lack one that they need."""
        values = {name: given.value for name, given in self.given.items()}
        own_names = [name for name in own.texts if name in values]
        for name, reason, suggestion in faults(values, own_names):
            self.complain(name, self.given[name].text, reason, suggestion)

    def settings(self) -> MemberSettings:
        """The values of level ``member``; defaults for the rest."""
        fields: dict[str, Any] = {}
        for name, given in self.given.items():
            row = find(name)
            if row is not None and row.level == "member" and row.field and "." not in row.field:
                fields[row.field] = given.value
        values = {name: given.value for name, given in self.given.items()}
        return MemberSettings(hooks=hooks_of(values), dump=read_settings(values), **fields)

    def unit_wide(self) -> dict[str, Given]:
        """The values of level ``unit``."""
        rows = {name: find(name) for name in self.given}
        return {n: self.given[n] for n, row in rows.items() if row and row.level == "unit"}

    def effective(self) -> tuple[Effective, ...]:
        """Every setting that has an effect in this version, and every one that was given."""
        known = [name for row in LABELS for name in row.names]
        named = [name for name in sorted(self.given) if name not in known]
        lines = []
        for name in (*known, *named):
            given, row = self.given.get(name), find(name)
            if given is not None:
                lines.append(Effective(name, given.text, given.origin))
            elif row is not None and (row.field or name in _IDENTITY):
                origin = "label" if name in self.dropped else "default"
                lines.append(Effective(name, row.default or "none", origin))
        return tuple(lines)


def _mean(name: str) -> str:
    return f"did you mean {name!r}?" if name else ""
