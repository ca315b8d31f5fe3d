"""The host policy: what is ours, what is drift, what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia import policy
from kopiwatch.kopia.record import SourceIdentity

DATA = Path(__file__).parents[2] / "contract" / "data" / "kopia"
SOURCE = "kopiwatch@harbour:/mnt/shop"


def exported():
    return json.loads((DATA / "policy-export.json").read_text())["kopiwatch@harbour"]


def effective():
    return json.loads((DATA / "policy-show.json").read_text())


def rows():
    return policy.decode_policies(json.loads((DATA / "policy-list.json").read_text()))


def test_recorded_policy_is_without_drift():
    """Kopia gives back exactly what was imported, scripts included, with empty sections added."""
    assert policy.drift(exported()) == []
    listed = {str(row.target): row.policy for row in rows()}
    assert set(listed) == {"(global)", "kopiwatch@harbour"}
    assert policy.drift(listed["kopiwatch@harbour"]) == []


def test_recorded_effective_policy_is_accepted():
    """With noParent the effective policy of a source is ours and nothing else."""
    policy.check_effective(effective(), SOURCE)


def test_imported_policy_names_the_host_only():
    """No other target is touched."""
    assert list(json.loads(policy.host_policy("harbour"))) == ["kopiwatch@harbour"]


def test_missing_policy_is_drift():
    """A new repository has none."""
    assert policy.drift(None) == ["no policy is defined"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("retention", "keepLatest", 10),
        ("files", "ignore", ["*.db"]),
        ("files", "oneFileSystem", True),
        ("files", "maxFileSize", 1),
        ("files", "ignoreDotFiles", [".kopiaignore"]),
        ("errorHandling", "ignoreFileErrors", True),
        ("compression", "compressorName", "none"),
        ("actions", "beforeSnapshotRoot", {"path": "/bin/true"}),
        ("actions", "beforeFolder", {"path": "/bin/true"}),
    ],
)
def test_change_is_drift_and_named(section, key, value):
    """More, less or other than ours is drift."""
    changed = exported()
    changed[section][key] = value
    assert any(f"{section}.{key}" in text for text in policy.drift(changed))


def test_missing_no_parent_is_drift():
    """Without it the global policy would have a say."""
    changed = exported()
    del changed["noParent"]
    assert policy.drift(changed) == ["noParent is not set, should be true"]


@pytest.mark.parametrize("where", ["beforeSnapshotRoot", "afterSnapshotRoot"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", "/bin/bash"),
        ("args", ["-c", "true"]),
        ("timeout", 300),
        ("mode", "optional"),
        ("script", "rm -rf /"),
    ],
)
def test_foreign_action_is_refused(where, key, value):
    """An action that is ours but for one detail is not ours."""
    changed = effective()
    changed["actions"][where][key] = value
    with pytest.raises(RepositoryError, match=f"actions.{where}.{key}"):
        policy.check_actions(changed, SOURCE)


@pytest.mark.parametrize("actions", [None, {}])
def test_missing_actions_are_refused(actions):
    """Without a gate nothing would wait for the stop."""
    with pytest.raises(RepositoryError, match="actions"):
        policy.check_actions({"actions": actions}, SOURCE)


def test_additional_action_is_refused():
    """A folder action is foreign code, too."""
    changed = copy.deepcopy(policy.ACTIONS) | {"beforeFolder": {"path": "/bin/x"}}
    with pytest.raises(RepositoryError, match="beforeFolder"):
        policy.check_actions({"actions": changed}, SOURCE)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("files", {"ignore": ["*"], "ignoreCacheDirs": False, "oneFileSystem": False}),
        ("files", {"oneFileSystem": True, "ignoreCacheDirs": False}),
        ("retention", {"keepLatest": 1}),
        ("errorHandling", {"ignoreFileErrors": True}),
    ],
)
def test_effective_policy_that_loses_data_is_refused(section, value):
    """A policy on the source itself can add to ours."""
    changed = effective() | {section: value}
    with pytest.raises(RepositoryError, match=section):
        policy.check_effective(changed, SOURCE)


def test_policy_below_the_source_is_refused():
    """Kopia lets it inherit nothing, so it changes more than it says."""
    source = SourceIdentity("harbour", "kopiwatch", "/mnt/shop")
    fine = [
        policy.PolicyTarget(),
        policy.PolicyTarget("harbour", "kopiwatch", "/mnt/shop"),
        policy.PolicyTarget("harbour", "kopiwatch", "/mnt/shopping"),
        policy.PolicyTarget("harbour", "other", "/mnt/shop/volumes"),
        policy.PolicyTarget("other", "kopiwatch", "/mnt/shop/volumes"),
    ]
    policy.check_below([policy.DefinedPolicy(target, {}) for target in fine], source)
    below = policy.PolicyTarget("harbour", "kopiwatch", "/mnt/shop/volumes/db")
    with pytest.raises(RepositoryError, match="kopiwatch@harbour:/mnt/shop/volumes/db"):
        policy.check_below([policy.DefinedPolicy(below, {})], source)
