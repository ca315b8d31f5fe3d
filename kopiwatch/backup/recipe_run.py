"""The recipe in the course of a run: begun in *check*, and completed there through the worker."""

from __future__ import annotations

import base64
from datetime import datetime
from pathlib import Path

import msgspec

from kopiwatch.backup.access import Beside
from kopiwatch.backup.compose.collect import Rules
from kopiwatch.backup.compose.project import projects_of
from kopiwatch.backup.host_look import FileReader, HostLook, besides_of
from kopiwatch.backup.house import House
from kopiwatch.backup.plausible import Terms
from kopiwatch.backup.recipe import Draft, complete_recipe, hosts_wanted, write_recipe
from kopiwatch.engine.port import Inspected
from kopiwatch.kopia.tree import RECIPE
from kopiwatch.units.unit import Unit


class RunRecipe:
    """The recipe of one run. ``missing`` are sentences on what it had to leave out."""

    def __init__(self, house: House, unit: Unit) -> None:
        self.house = house
        self.unit = unit
        self.projects = projects_of(member.container for member in unit.members)
        self.rules = Rules(
            paths=house.recipe.paths,
            redact=house.recipe.secrets == "redact",
            docker_root=house.info.root_dir,
        )
        self.missing: tuple[str, ...] = ()
        self._draft: Draft | None = None

    @property
    def _more(self) -> bool:
        """Whether there is anything that only a worker can read."""
        scope = self.unit.settings.scope
        return scope == "full" or (scope == "standard" and bool(self.projects))

    @property
    def besides(self) -> tuple[Beside, ...]:
        """What the worker must have before it beside the tree."""
        return besides_of(hosts_wanted(self.unit, self.projects, self.rules))

    async def begin(
        self,
        run: str,
        at: datetime,
        *,
        inspected: tuple[Inspected, ...],
        warnings: list[str],
        plausibility: Terms,
    ) -> Path:
        """Write what Docker tells; returns the recipe's folder. Raises as ``write_recipe`` does."""
        house = self.house
        self._draft = await write_recipe(
            house.engine,
            house.state,
            self.unit,
            run=run,
            at=at,
            host=house.host,
            info=house.info,
            expected=(RECIPE, *(source.path for source in self.unit.sources)),
            inspected=inspected,
            warnings=tuple(warnings),
            plausibility=plausibility,
            redact=self.rules.redact,
            more=self._more,
        )
        return self._draft.folder

    async def complete(self, reader: FileReader, password: bytes) -> None:
        """Add the files of the host. ``password`` is the repository's, as Kopia has it (base64).

        Raises as ``complete_recipe`` does.
        """
        draft = self._draft
        if draft is None or not self._more:
            return
        rules = msgspec.structs.replace(self.rules, password=base64.b64decode(password))
        look = HostLook(reader, self.besides, self.house.access.places)
        self.missing = await complete_recipe(self.house.engine, draft, self.projects, look, rules)
