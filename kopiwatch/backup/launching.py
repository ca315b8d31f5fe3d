"""From an empty worker to Kopia at its gate: what it gets, what it surveys, how it is started."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from kopiwatch import __version__
from kopiwatch.backup import survey
from kopiwatch.backup.access import WorkerPlan
from kopiwatch.backup.answer import failure
from kopiwatch.backup.course import Course
from kopiwatch.backup.gate import CONFIG_NAME, GatedKopia, Launch, SetUp
from kopiwatch.backup.plan import NO_EXTRA, Extra, worker_plan
from kopiwatch.backup.recipe_run import RunRecipe
from kopiwatch.backup.stage import places, written
from kopiwatch.backup.survey import Survey
from kopiwatch.backup.window import Window
from kopiwatch.kopia import argv
from kopiwatch.kopia.record import Snapshot
from kopiwatch.units.container import Container
from kopiwatch.units.group import hot_path, tree_path
from kopiwatch.units.unit import Unit

READY_SECONDS = 300.0


class Names(msgspec.Struct, frozen=True):
    """How Kopia knows a unit: ``root`` is its tree for the worker.

    ``source`` is the identity of its snapshots (``user@host:path``), ``hot`` that of the hot pass.
    """

    root: str
    source: str
    hot: str


def names_of(unit: str, *, host: str, instance: str) -> Names:
    """The names of a unit. ``host`` is the frozen name in the repository's identities."""
    root = tree_path(unit, instance)
    who = f"{argv.USER}@{host}"
    return Names(root, f"{who}:{root}", f"{who}:{hot_path(root)}")


class Launching:
    """What one run does before its window with the worker, and with Kopia in it.

    ``survey`` is what the walk of the sources found, empty before it has ended. ``launched`` says
    that there may be a manifest, so that the run owes a verdict. Call :meth:`plan`, then, with the
    worker there, :meth:`set_up`, :meth:`choose` and :meth:`ready`.
    """

    def __init__(
        self, course: Course, unit: Unit, window: Window, recipe: RunRecipe, names: Names
    ) -> None:
        self.course = course
        self.unit = unit
        self.window = window
        self.recipe = recipe
        self.names = names
        self.survey = Survey()
        self.launched = False

    def plan(self, recipe: Path, rows: Iterable[Container], *, dumps: str) -> WorkerPlan:
        """What the worker is to have in front of it, once the window knows whom it holds.

        ``recipe`` and ``dumps`` are our own folders (``dumps`` empty where there are none),
        ``rows`` are all containers of the host.
        """
        return worker_plan(
            self.unit,
            run=self.course.run,
            instance=self.course.house.instance,
            recipe=str(recipe),
            dumps=dumps,
            besides=self.recipe.besides,
            extra=self._extra(rows),
        )

    def _extra(self, rows: Iterable[Container]) -> Extra:
        """What the strategy may need; nothing where there is no window to be shortened."""
        unit, window = self.unit, self.window
        if not window.hold.held:
            return NO_EXTRA
        return Extra(
            hot=unit.settings.strategy in ("auto", "hot"),
            stages=places(unit, self.course.house, self.names.root),
            written=written(unit, rows, window.mountpoints),
        )

    async def set_up(self, kopia: GatedKopia, plan: WorkerPlan, *, last: Snapshot | None) -> bool:
        """The worker has all that it needs, and walks the sources.

        ``last`` is the last good restore point: the walk counts what has changed since. Returns
        whether a source lies in memory.
        """
        house, at = self.course.house, self.course.house.access.places
        with (
            self.course.timed("check"),
            self.course.deadline(READY_SECONDS, "the worker did not get ready"),
        ):
            files = await house.repository.worker_files(
                cache_dir=f"{at.cache}/kopia",
                storage_path=f"{at.repository}/kopia" if house.repository_is_folder else None,
            )
            own = [at.cache, at.attributes]
            own += [at.repository] if house.repository_is_folder else []
            volatile = await kopia.set_up(
                SetUp(
                    base=at.base,
                    files=files,
                    expect=tuple(f"{plan.root}/{entry.path}" for entry in plan.entries),
                    sources=self.window.paths,
                    probe=tuple(own),
                    lock=f"{at.locks}/kopia.lock",
                    owner=house.owner,
                )
            )
            await kopia.begin_survey(
                survey.order(
                    plan.root,
                    (source.path for source in self.unit.sources),
                    since=last.start_time.timestamp() if last else 0.0,
                    into=at.attributes,
                )
            )
            await self.recipe.complete(kopia, files.password)
        # A file system in memory tells nobody when a program writes by mmap.
        return bool(volatile)

    async def choose(self, kopia: GatedKopia, plan: WorkerPlan, *, rate: float) -> None:
        """The walk of the sources has ended, however long it took: its lists are on the disk.

        By its figures the strategy is chosen; ``rate`` is that of uploads, in bytes per second.
        """
        with self.course.timed("check"):
            self.survey = await kopia.surveyed()
            survey.refuse_names(self.unit.name, self.survey)
            if line := survey.kept_aside(self.survey):
                self.course.say("survey", line)
            held = bool(self.window.hold.held)
            choose = self.window.approach.choose
            await choose(kopia, plan, self.survey, held=held, rate=rate)

    def hot_pass(self, plan: WorkerPlan) -> Launch:
        """Without the tag of a run, so that it is a restore point for nobody."""
        return self._launch(plan, plan.hot, {"hot": self.course.run}, gate=False)

    async def ready(self, kopia: GatedKopia, plan: WorkerPlan, *, force_hash: bool) -> None:
        """Kopia has opened the repository and waits at the gate.

        ``force_hash`` has it read files that look unchanged, too.
        """
        with (
            self.course.timed("ready"),
            self.course.deadline(READY_SECONDS, "Kopia did not reach the gate"),
        ):
            tags = {
                "run": self.course.run,
                "mode": self.window.hold.reading,
                "scope": self.unit.settings.scope,
                "version": __version__,
            }
            launch = self._launch(plan, plan.root, tags, force_hash=force_hash)
            # From here on there may be a manifest, so the run owes a verdict.
            await self.course.journal((), early=True)
            self.launched = True
            said = await kopia.launch(launch)
            if said.say != "ready":
                raise failure(self.unit.name, said, "ready")
            if self.window.hold.reading != "stop":
                # Now, so that there is little left to be written in the window.
                await kopia.sync(self.window.paths, "ready")

    def _launch(
        self,
        plan: WorkerPlan,
        path: str,
        tags: dict[str, str],
        *,
        force_hash: bool = False,
        gate: bool = True,
    ) -> Launch:
        house, at = self.course.house, self.course.house.access.places
        arguments = argv.snapshot_argv(
            f"{at.base}/{CONFIG_NAME}",
            path,
            log_dir=f"{at.cache}/logs",
            tags=tags,
            force_hash=force_hash,
            gate=gate,
        )
        environment = house.environment | house.access.mark(plan) | {"HOME": at.base}
        return Launch((at.kopia, *arguments), environment)
