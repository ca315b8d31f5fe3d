"""What others do to the containers, and what happens to the world around kopiwatch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kopiwatch.engine.port import Healthcheck
from kopiwatch.testing.engine import volume_mount
from support.machine.oracle import Slot

if TYPE_CHECKING:
    from support.machine.world import World

AWAY_SECONDS = 90.0
BRIEF_SECONDS = 0.7


class Others:
    """Somebody, Docker, and the disks. Tells the oracle what is to be expected from then on."""

    def __init__(self, world: World) -> None:
        self.world = world

    def create(self, slot: Slot, state: str) -> None:
        spec = slot.spec
        labels = {
            "kopi.enable": "true",
            "kopi.start-timeout": "5s",
            **({"kopi.mode": spec.mode} if spec.mode != "stop" else {}),
        }
        if spec.hooks:
            labels |= {f"kopi.hook.{kind}.command": kind for kind in ("pre", "post")}
        if spec.unit == "shop":
            labels |= {
                "com.docker.compose.project": spec.unit,
                "com.docker.compose.service": spec.name,
                "com.docker.compose.container-number": "1",
                "com.docker.compose.depends_on": spec.needs,
            }
        health = {"good": "healthy", "sick": "healthy", "bad": "unhealthy"}.get(spec.health, "none")
        slot.id = self.world.engine.add_container(
            spec.name,
            labels=labels,
            state=state,  # type: ignore[arg-type]
            mounts=(volume_mount(spec.name, "/data"),),
            healthcheck=Healthcheck(("true",)) if spec.health != "none" else None,
            healthy_after=1 if spec.health == "good" else None,
            details={
                "restart_policy": "always" if spec.loops else spec.policy,
                "health": health,
            },
        )
        self.world.engine.stop_seconds[slot.id] = spec.stop_seconds
        if spec.loops:
            self.world.engine.loops.add(slot.id)
            if state == "running":
                self.world.engine.begin_loop(slot.id)

    def do(self, what: str, index: int) -> None:
        """Somebody, or Docker, does something to a slot."""
        slot = self.world.oracle.slots[index % len(self.world.oracle.slots)]
        getattr(self, f"_{what.replace('-', '_')}")(slot)

    def _running(self, slot: Slot) -> bool:
        return bool(slot.id) and self.world.engine.all[slot.id].row.running

    def _start(self, slot: Slot) -> None:
        if slot.id and not self._running(slot):
            self.world.engine.run_again(slot.id)
            self.world.oracle.started(slot)

    def _stop(self, slot: Slot) -> None:
        if self._running(slot):
            self.world.engine.by_hand.add(slot.id)
            self.world.engine.set_state(slot.id, "exited")
            self.world.oracle.stopped(slot)

    def _start_and_stop(self, slot: Slot) -> None:
        """Somebody takes it over while it is down, and in a while stops it again."""
        if slot.id and not self._running(slot):
            self._start(slot)
            self.world.time.later(BRIEF_SECONDS, partial(self._stop_this, slot, slot.id))

    def _stop_and_start(self, slot: Slot) -> None:
        """Somebody restarts it."""
        if self._running(slot):
            self._stop(slot)
            self.world.time.later(BRIEF_SECONDS, partial(self._start_this, slot, slot.id))

    def _stop_this(self, slot: Slot, container: str) -> None:
        if slot.id == container:
            self._stop(slot)

    def _start_this(self, slot: Slot, container: str) -> None:
        if slot.id == container:
            self._start(slot)

    def _crash(self, slot: Slot) -> None:
        ours = slot.id in self.world.engine.by_hand  # a stop is under way: that is what ends it
        if self._running(slot) and not self.world.engine.crash(slot.id) and not ours:
            self.world.oracle.stopped(slot)

    def _remove(self, slot: Slot) -> None:
        if slot.id:
            self.world.engine.remove(slot.id)
            self.world.oracle.removed(slot)

    def _recreate(self, slot: Slot) -> None:
        self._recreate_as(slot, "running")

    def _recreate_unstarted(self, slot: Slot) -> None:
        self._recreate_as(slot, "created")

    def _recreate_as(self, slot: Slot, state: str) -> None:
        former = slot.id
        if former:
            self.world.engine.remove(former)
        self.create(slot, state)
        was_held = self.world.oracle.held(slot.id) is not None  # it or its predecessor
        self.world.kopia.disturbed_by(self.world.engine.all[slot.id].row)
        self.world.oracle.recreated(slot, former, was_held=was_held, running=state == "running")

    def _dockerd(self, _: Slot) -> None:
        before = {s.id: self._running(s) for s in self.world.oracle.slots if s.id}
        self.world.engine.restart_daemon(away=2.0)
        for slot in self.world.oracle.slots:
            if slot.id and self._running(slot):
                self.world.oracle.started(slot)
            elif slot.id and before[slot.id]:
                self.world.oracle.stopped(slot)

    def _editor(self, _: Slot) -> None:
        """Somebody edits: a writer outside the unit, until this process is over."""
        if self.world.engine.state(self.world.editor) != "running":
            self.world.engine.run_again(self.world.editor)

    def _repository(self, _: Slot) -> None:
        """It goes away for a while."""
        self.world.repository.away = True
        self.world.time.later(AWAY_SECONDS, partial(setattr, self.world.repository, "away", False))

    def _disk(self, _: Slot) -> None:
        """The disk of the state folder is full for a while."""
        self.world.full = True
        self.world.time.later(AWAY_SECONDS, partial(setattr, self.world, "full", False))

    def _disk_lost(self, _: Slot) -> None:
        """The disk of the state folder takes nothing for a while, not even a removal."""
        self.world.read_only = True
        self.world.time.later(AWAY_SECONDS, partial(setattr, self.world, "read_only", False))

    def remove_by_id(self, target: str) -> None:
        """Somebody removes a container just before a call reaches it."""
        slot = self.world.oracle.slot(target)
        if slot is not None:
            self._remove(slot)
        elif target in self.world.engine.all and self.world.engine.all[target].worker is not None:
            self.world.engine.remove(target)
