"""The choice of strategy: what it is from figures and probes, and what it can never be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.backup.strategy import (
    DEFAULT_RATE,
    GIB,
    MIB,
    SMALL_BYTES,
    Choice,
    Impossible,
    SourceFacts,
    StageFacts,
    choose,
    clone_seconds,
    gate_seconds,
    spare_bytes,
    worth_a_clone,
)

LABELS = ("auto", "gate", "hot", "clone", "copy")
BIG = SourceFacts("volumes/db", files=20_000, size=GIB, changed_files=200, changed_size=GIB // 2)
QUIET = SourceFacts("volumes/db", files=1_000, size=GIB, changed_files=3, changed_size=MIB)
SMALL = SourceFacts("volumes/conf", files=10, size=SMALL_BYTES, changed_files=1, changed_size=10)
ROOMY = StageFacts("/mnt/.stage/0/shop", "kopiwatch-stage-shop", 100 * GIB, 200 * GIB)


def without_reflinks(*paths: str) -> StageFacts:
    refused = dict.fromkeys(paths, "Operation not supported")
    return StageFacts(ROOMY.root, ROOMY.name, ROOMY.free, ROOMY.total, refused)


def chosen(label, sources, stages=(), **more) -> Choice:
    choice = choose(label, sources, stages, **({"held": True} | more))
    assert isinstance(choice, Choice), choice
    return choice


amounts = st.integers(0, 50 * GIB)


@st.composite
def facts(draw):
    sources = []
    for number in range(draw(st.integers(0, 4))):
        size = draw(amounts)
        files = draw(st.integers(0, 1_000_000))
        sources.append(
            SourceFacts(
                f"volumes/v{number}",
                files=files,
                size=size,
                changed_files=draw(st.integers(0, files)),
                changed_size=draw(st.integers(0, size)),
                written=draw(st.booleans()),
            )
        )
    return tuple(sources)


@st.composite
def stages(draw, sources):
    found = []
    for number in range(draw(st.integers(0, 3))):
        refused = {s.path: "no" for s in sources if draw(st.booleans())}
        total = draw(amounts)
        free = draw(st.integers(0, total))
        found.append(StageFacts(f"/mnt/.stage/{number}", f"s{number}", free, total, refused))
    return tuple(found)


@st.composite
def situations(draw):
    sources = draw(facts())
    rate = draw(st.floats(1e3, 1e10))
    return sources, draw(stages(sources)), draw(st.booleans()), rate


@given(situations())
def test_auto_is_never_a_failure(situation):
    """It asks for nothing, so nothing can be missing."""
    sources, places, held, rate = situation
    choice = chosen("auto", sources, places, held=held, rate=rate)
    assert choice.reason
    assert choice.warning == ""
    assert choice.strategy in ("plain", "gate", "hot", "clone")


@given(st.sampled_from(LABELS), situations())
def test_stage_is_complete_and_roomy(label, situation):
    """All that is written, and nothing else, is staged, in a place that was probed for it."""
    sources, places, held, rate = situation
    choice = choose(label, sources, places, held=held, rate=rate)
    if isinstance(choice, Impossible):
        assert label in ("clone", "copy")
        assert choice.reason
        assert choice.hint
        return
    staged = choice.strategy in ("clone", "copy")
    assert bool(choice.stage) is staged
    if not staged:
        assert (choice.cloned, choice.copied) == ((), ())
        return
    written = {s.path: s for s in sources if s.written}
    assert sorted((*choice.cloned, *choice.copied)) == sorted(written)
    (place,) = [stage for stage in places if stage.root == choice.stage]
    assert not set(choice.cloned) & set(place.refused)
    if choice.strategy == "clone":
        assert all(written[path].size <= SMALL_BYTES for path in choice.copied)
        assert place.free >= 2 * sum(s.changed_size for s in written.values())


@given(st.sampled_from(LABELS), situations())
def test_label_is_obeyed_or_said(label, situation):
    """Another strategy than the label's comes with a warning, or there was no window at all."""
    sources, places, held, rate = situation
    choice = choose(label, sources, places, held=held, rate=rate)
    if isinstance(choice, Choice) and label not in ("auto", choice.strategy):
        assert choice.strategy == "plain" if not held else choice.warning


@given(situations())
def test_auto_clones_only_for_a_gain(situation):
    sources, places, held, rate = situation
    choice = chosen("auto", sources, places, held=held, rate=rate)
    if choice.strategy == "clone":
        assert gate_seconds(sources, rate) - clone_seconds(sources) > 0.3
        assert worth_a_clone("auto", sources, rate)
        (place,) = [stage for stage in places if stage.root == choice.stage]
        changed = sum(s.changed_size for s in sources if s.written)
        assert place.free >= max(place.total // 10, 2 * GIB, 2 * changed)


@given(situations())
def test_probe_is_left_out_only_where_it_changes_nothing(situation):
    sources, places, held, rate = situation
    if not worth_a_clone("auto", sources, rate):
        with_probe = chosen("auto", sources, places, held=held, rate=rate)
        assert with_probe == chosen("auto", sources, (), held=held, rate=rate)


def test_auto_clones_where_it_pays():
    choice = chosen("auto", [BIG], [ROOMY])
    assert (choice.strategy, choice.stage, choice.cloned) == ("clone", ROOMY.root, ("volumes/db",))
    assert "instead of" in choice.reason


def test_auto_goes_hot_without_reflinks():
    """Half a GiB takes 5 s to upload, and says why it is no clone."""
    choice = chosen("auto", [BIG], [without_reflinks("volumes/db")])
    assert choice.strategy == "hot"
    assert "volumes/db cannot be cloned (Operation not supported)" in choice.reason


def test_auto_goes_hot_without_room():
    tight = StageFacts(ROOMY.root, ROOMY.name, 2 * GIB - 1, 10 * GIB)
    assert spare_bytes(tight, 0) == 2 * GIB
    choice = chosen("auto", [BIG], [tight])
    assert choice.strategy == "hot"
    assert "2.0 GiB are wanted" in choice.reason


def test_auto_takes_the_gate_for_little():
    choice = chosen("auto", [QUIET], [ROOMY])
    assert choice.strategy == "gate"
    assert "no clone" not in choice.reason


def test_auto_goes_hot_on_a_slow_link():
    """The same little takes long where the link is slow."""
    assert chosen("auto", [QUIET], rate=1e5).strategy == "hot"
    assert chosen("auto", [QUIET], rate=DEFAULT_RATE).strategy == "gate"


def test_small_source_elsewhere_is_copied():
    choice = chosen("auto", [BIG, SMALL], [without_reflinks("volumes/conf")])
    assert (choice.strategy, choice.cloned, choice.copied) == (
        "clone",
        ("volumes/db",),
        ("volumes/conf",),
    )


def test_what_nobody_writes_needs_no_clone():
    read_only = SourceFacts("volumes/media", files=9, size=90 * GIB, written=False)
    choice = chosen("auto", [BIG, read_only], [without_reflinks("volumes/media")])
    assert (choice.strategy, choice.cloned, choice.copied) == ("clone", ("volumes/db",), ())


def test_named_place_is_taken_where_docker_has_none():
    other = StageFacts("/mnt/.stage/1/shop", "/ssd/stage", 100 * GIB, 200 * GIB)
    choice = chosen("clone", [BIG], [without_reflinks("volumes/db"), other])
    assert choice.stage == other.root


def test_clone_by_label_is_impossible_without_reflinks():
    """The sentence names the source, the place and the way out."""
    outcome = choose("clone", [BIG], [without_reflinks("volumes/db")], held=True)
    assert isinstance(outcome, Impossible)
    assert outcome.reason == (
        "volumes/db cannot be cloned into kopiwatch-stage-shop: Operation not supported"
    )
    assert "KOPIWATCH_STAGE_PATHS" in outcome.hint


def test_label_without_room_is_the_gate_with_a_warning():
    """Room comes and goes: that is no mistake in a label."""
    full = StageFacts(ROOMY.root, ROOMY.name, MIB, 10 * GIB)
    for label in ("clone", "copy"):
        choice = chosen(label, [BIG], [full])
        assert choice.strategy == "gate"
        assert "1.0 MiB are free" in choice.warning


def test_copy_needs_no_reflinks():
    choice = chosen("copy", [BIG], [without_reflinks("volumes/db")])
    assert (choice.strategy, choice.cloned, choice.copied) == ("copy", (), ("volumes/db",))


def test_nobody_held_is_plain_whatever_the_label():
    for label in LABELS:
        assert chosen(label, [BIG], [ROOMY], held=False).strategy == "plain"
