"""The host policy: what is ours, what is drift, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia import policy
from kopiwatch.kopia.record import SourceIdentity

DATA = Path(__file__).parents[2] / "contract" / "data" / "kopia"
SOURCE = SourceIdentity("harbour", "kopiwatch", "/mnt/shop")


def exported():
    return json.loads((DATA / "policy-export.json").read_text())["kopiwatch@harbour"]


def rows():
    return policy.decode_policies(json.loads((DATA / "policy-list.json").read_text()))


def test_recorded_policy_is_without_drift():
    """Kopia gives back exactly what was imported, scripts included, with empty sections added."""
    assert policy.drift(exported()) == []
    listed = {str(row.target): row.policy for row in rows()}
    assert set(listed) == {"(global)", "kopiwatch@harbour"}
    assert policy.drift(listed["kopiwatch@harbour"]) == []


def defined(host, **others):
    """All policies of a repository: ours, changed or not, and others by path."""
    return [
        policy.DefinedPolicy(policy.PolicyTarget("harbour", "kopiwatch", path), value)
        for path, value in (("", host), *((f"/{name}", value) for name, value in others.items()))
    ]


def test_recorded_policy_is_accepted():
    """With noParent what is in effect on a source is ours and nothing else."""
    policy.check_defined(rows(), SOURCE)


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
    changed = exported()
    changed["actions"][where][key] = value
    with pytest.raises(RepositoryError, match=f"actions.{where}.{key}"):
        policy.check_defined(defined(changed), SOURCE)


@pytest.mark.parametrize("actions", [None, {}])
def test_missing_actions_are_refused(actions):
    """Without a gate nothing would wait for the stop."""
    with pytest.raises(RepositoryError, match="actions"):
        policy.check_defined(defined(exported() | {"actions": actions}), SOURCE)


def test_missing_host_policy_is_refused():
    """Where none of ours is defined, anybody's would be in effect."""
    with pytest.raises(RepositoryError, match="noParent"):
        policy.check_defined([], SOURCE)
    foreign = policy.DefinedPolicy(policy.PolicyTarget("other", "kopiwatch"), exported())
    with pytest.raises(RepositoryError, match="actions"):
        policy.check_defined([foreign], SOURCE)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("files", {"ignore": ["*"], "ignoreCacheDirs": False, "oneFileSystem": False}),
        ("files", {"oneFileSystem": True, "ignoreCacheDirs": False}),
        ("retention", {"keepLatest": 1}),
        ("errorHandling", {"ignoreFileErrors": True}),
        ("noParent", None),
    ],
)
def test_host_policy_that_loses_data_is_refused(section, value):
    """Whatever of weight is not as ours, is named."""
    changed = exported() | {section: value}
    with pytest.raises(RepositoryError, match=section):
        policy.check_defined(defined(changed), SOURCE)


@pytest.mark.parametrize("path", ["mnt/shop", "mnt"])
@pytest.mark.parametrize(
    "added",
    [
        {"files": {"ignore": ["*"]}},
        {"retention": {"keepLatest": 1}},
        {"actions": {"beforeFolder": {"path": "/bin/x"}}},
        {"actions": policy.ACTIONS},
        {"noParent": True},
    ],
)
def test_policy_on_or_above_the_source_must_add_nothing(path, added):
    """Kopia merges it with ours, and lets it win; one that ends inheritance takes ours away."""
    with pytest.raises(RepositoryError, match=next(iter(added))):
        policy.check_defined(defined(exported(), **{path: added}), SOURCE)


def test_policy_that_adds_nothing_of_weight_is_accepted():
    """A schedule of Kopia's own, or a policy elsewhere, changes nothing here."""
    harmless = {"scheduling": {"manual": True}, "files": {"oneFileSystem": False}, "actions": {}}
    others = {"mnt/shop": harmless, "mnt/shopping": {"files": {"ignore": ["*"]}}}
    policy.check_defined(defined(exported(), **others), SOURCE)


def test_policy_below_the_source_is_refused():
    """Kopia lets it inherit nothing, so it changes more than it says."""
    fine = [
        policy.PolicyTarget(),
        policy.PolicyTarget("harbour", "kopiwatch", "/mnt/shop"),
        policy.PolicyTarget("harbour", "kopiwatch", "/mnt/shopping"),
        policy.PolicyTarget("harbour", "other", "/mnt/shop/volumes"),
        policy.PolicyTarget("other", "kopiwatch", "/mnt/shop/volumes"),
    ]
    policy.check_below([policy.DefinedPolicy(target, {}) for target in fine], SOURCE)
    below = policy.PolicyTarget("harbour", "kopiwatch", "/mnt/shop/volumes/db")
    with pytest.raises(RepositoryError, match="kopiwatch@harbour:/mnt/shop/volumes/db"):
        policy.check_below([policy.DefinedPolicy(below, {})], SOURCE)
