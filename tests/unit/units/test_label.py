"""The table of labels, and the page rendered from it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kopiwatch.units.label import LABELS, NAMES, find, lookalike, nearest_name
from kopiwatch.units.page import render
from kopiwatch.units.retention import Retention
from kopiwatch.units.setting import MemberSettings, UnitSettings

ROOT = Path(__file__).parents[3]


def test_labels_page_equals_its_rendering():
    """labels.md is what the table renders to; mend with python -m kopiwatch.units.page."""
    assert (ROOT / "labels.md").read_text("utf-8") == render()


def test_every_name_belongs_to_one_row():
    """No label stands in the table twice."""
    assert len(NAMES) == len(set(NAMES))
    assert all(find(name) is not None for name in NAMES)


def test_every_field_exists_on_its_level():
    """A row fills a field of the settings of its own level, and each field has its row."""
    for level, settings in (("member", MemberSettings), ("unit", UnitSettings)):
        fields = {field.name for field in msgspec.structs.fields(settings)}
        rows = [row.field for row in LABELS if row.level == level and row.field]
        assert {field.partition(".")[0] for field in rows} == fields
    numbers = {row.field for row in LABELS if row.field.startswith("retention.")}
    assert numbers == {f"retention.{name}" for name in Retention().numbers}


def test_open_pattern_takes_any_volume_but_not_none():
    """kopi.ignore.<volume> is known for each volume, and only with one."""
    assert find("kopi.ignore.shop_db") is not None
    assert find("kopi.ignore.") is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("kopi.enabled", "kopi.enable"),
        ("kopi.Enable", "kopi.enable"),
        ("kopi.shedule", "kopi.schedule"),
        ("kopi.stop", "kopi.mode"),
        ("kopi.group", "kopi.unit"),
        ("kopi.retention.weeky", "kopi.retention.weekly"),
        ("kopi.zzzzzzzzz", ""),
    ],
)
def test_nearest_name_is_what_was_meant(written, meant):
    """Typing slips and other tools' words lead to the right label."""
    assert nearest_name(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "kopi_enable",
        "kopi-enable",
        "kopia.enable",
        "Kopi.Enable",
        "kopiwatch.enabled",
        "koppi.enable",
        "kopi/enable",
    ],
)
def test_lookalike_of_enable_is_recognised(written):
    """A wrong prefix, separator or case still shows what was meant."""
    assert lookalike(written) == "kopi.enable"


@pytest.mark.parametrize(
    "written",
    [
        "com.docker.compose.project",
        "traefik.enable",
        "kopia.version",
        "org.x.kopi.enable",
        "kopi",
        "k" * 9000,
        "",
    ],
)
def test_labels_of_others_are_no_lookalikes(written):
    """What belongs to other tools is left alone."""
    assert lookalike(written) == ""
