"""`python tests/benchmark_composition.py [jobs]`: seconds before the first job of a large sweep is trained.

Prints what 1,000 jobs take: to be expanded, composed and checked; to be looked up; to be begun anew, until the first
can be trained; and started again, by the real command, when all are done. One job is trained; the others are copies
of it, with a run each.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the seconds of the body."""
    began = time.perf_counter()
    yield
    print(f"{what:<44} {time.perf_counter() - began:7.2f} s", flush=True)


def main(count: int) -> None:
    """Measure in a project of its own."""
    from project_copy import SHARED, TINY, clone_project, run, run_module

    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault(SHARED, folder)
        project = clone_project(Path(folder) / "own")
        rates = f"train.optimizer.learning_rate=range(0.001,{0.001 + (count - 0.5) * 1e-6:.8f},1e-6)"
        sweep = ["seeds=[0]", "train.epochs=1", *TINY, rates]
        first = run_module(project, "pipeline.train", "-m", *sweep[:-1], "train.optimizer.learning_rate=0.001")
        assert first.returncode == 0, first.stderr
        measured = run(project, sys.executable, __file__, *sweep, PYTHONPATH=str(project))
        assert measured.returncode == 0, measured.stderr
        print(measured.stdout, end="", flush=True)
        with timed("second start, all are done"):
            again = run_module(project, "pipeline.train", "-m", *sweep, cold=True)
        assert "jobs are done" in again.stdout, again.stderr


def measure(sweep: list[str]) -> None:
    """Measure what is done before the first job is trained, and leave all jobs finished."""
    jobs = planned(sweep)
    begun_anew(sweep)
    finish(jobs, next(Path("multirun").iterdir()))
    looked_up(jobs)


def planned(sweep: list[str]) -> list[Any]:
    """Compose and check the jobs."""
    from pipeline.config.hydra_compat import Source
    from pipeline.sweeps.plan import SweepPlan, expand

    with timed("expanded"):
        combinations = expand(sweep, Source())
    with timed(f"{len(combinations)} jobs composed and checked"):
        return SweepPlan(combinations).jobs()


def begun_anew(sweep: list[str]) -> None:
    """Start the sweep, until its first job can be trained."""
    from pipeline import train
    from pipeline.sweeps.sweep import Sweep

    class FirstJob(BaseException):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise FirstJob

    original, Sweep.make_ready = Sweep.make_ready, stop  # type: ignore[method-assign]
    with (
        timed("begun, until the first can be trained"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(FirstJob),
    ):
        train.main(["-m", *sweep, "hydra.sweep.dir=multirun/stopped", "train.batch_size=64"])
    Sweep.make_ready = original  # type: ignore[method-assign]
    shutil.rmtree("multirun/stopped")


def finish(jobs: list[Any], sweep: Path) -> None:
    """Make copies of the first job, each with a run of its own in the store, as if they had been trained."""
    from pipeline.core.paths import main_root
    from pipeline.sweeps import cache
    from pipeline.tracking.tracker import Tracker

    tracker = Tracker(jobs[0].config.tracking, main_root())
    references = json.loads((sweep / "0/runs.json").read_text())
    run = tracker.client.get_run(references["seeds"]["0"]["run"])
    for job in jobs[1:]:
        folder = sweep / str(job.number)
        shutil.copytree(sweep / "0", folder, copy_function=os.link)
        tags = run.data.tags | {"sweep.key": job.key}
        references["seeds"]["0"]["run"] = tracker.client.create_run(tracker.experiment_id, tags=tags).info.run_id
        tracker.client.set_terminated(references["seeds"]["0"]["run"])
        (folder / "runs.json").unlink()
        (folder / "runs.json").write_text(json.dumps(references))
        (folder / "done.json").unlink()
        cache.mark_done(folder, job.key, [sweep.name])
    cache.begin(sweep, sweep.name, [job.key for job in jobs], [job.owner for job in jobs])


def looked_up(jobs: list[Any]) -> None:
    """Look up where the results of the jobs are."""
    from pipeline.core.paths import main_root
    from pipeline.sweeps import cache

    with timed("looked up"):
        finished = cache.FinishedJobs(main_root())
        assert all(finished.find(Path("nowhere"), job.key) for job in jobs)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(sys.argv[1:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
