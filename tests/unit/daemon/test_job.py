"""Jobs and those who follow them."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from kopiwatch.backup.result import RunResult
from kopiwatch.daemon.job import Complete, Ended, Job, Jobs, Said

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def result(unit: str) -> RunResult:
    return RunResult(run=f"run-{unit}", unit=unit, verdict="success", began=NOW, ended=NOW)


async def test_follower_hears_all_and_is_let_go_at_the_end():
    """Events, one result per unit, then the word that it is complete."""
    job = Job(["db", "web"])
    async with job.follow() as news:
        job.say("phase", "stop", unit="db", number=3)
        job.end(result("db"))
        job.end(result("other"))
        job.end(result("web"))
        heard = [each async for each in news]
    assert heard == [
        Said("phase", "stop", {"unit": "db", "number": "3"}),
        Ended(result("db")),
        Ended(result("web")),
        Complete(),
    ]


async def test_late_follower_gets_the_results_so_far():
    """Whoever comes late misses events, never a result."""
    job = Job(["db"])
    job.end(result("db"))
    async with job.follow() as news:
        assert [each async for each in news] == [Ended(result("db")), Complete()]


async def test_follower_that_leaves_does_not_end_the_job():
    """A job is not for its follower."""
    job = Job(["db"])
    async with job.follow():
        pass
    job.say("phase", "stop")
    job.end(result("db"))
    assert job.done


async def test_closed_job_lets_its_followers_go_without_a_completion():
    """So that they can tell it from a job that is done."""
    jobs = Jobs()
    job = jobs.add(["db"])
    async with job.follow() as news:
        jobs.close()
        with anyio.fail_after(1):
            assert [each async for each in news] == []


async def test_jobs_are_found_by_unit_until_they_are_done():
    """And forgotten after that."""
    jobs = Jobs()
    job = jobs.add(["db"])
    assert (jobs.of("db"), jobs.of("web")) == ((job,), ())
    job.end(result("db"))
    jobs.sweep()
    assert not jobs
    assert jobs.of("db") == ()
