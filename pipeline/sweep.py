"""`python -m pipeline.train` as a Hydra application: one run, or with `-m` a sweep, each job in its own process.

The processes of a sweep are forks of warm workers (see `workers`), which import what a job needs once.

A job that fails neither stops nor hides the others; the sweep ends with a ranking and with the failures.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from . import finished, workers
from .config import CONF, Config, compose, parse, write
from .config.compose import one_message, register
from .data.obtain import obtain
from .data.plan import require_visible
from .entry import main_root
from .errors import UserError
from .models.architecture import Architecture
from .tracking.store import ensure_store
from .tracking.views import view_link

_UNLABELLED = ("framework", "seeds")


@dataclass(frozen=True)
class SweepJob:
    """One combination of a sweep's values."""

    number: int
    overrides: tuple[str, ...]
    config: Config
    varied: Mapping[str, str]
    """The keys whose values differ between the jobs, but for framework and seeds, with this job's."""

    @property
    def label(self) -> str:
        """Those values."""
        return " ".join(self.varied.values())


class _Stack:
    """What a sweep keeps open; closed, with the error if there was one, when the application ends."""

    current: contextlib.ExitStack
    failed: bool = False
    done: Mapping[int, Path]
    """Folders with the results of the jobs that need not be trained, by number."""


def hydra_app(arguments: Sequence[str]) -> None:
    """Train once, or in a sweep as many jobs. Raises `UserError` before any work; ends with 1 if a job failed."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    codes: list[int] = []

    def run(composed: DictConfig) -> None:
        output, config = Path(HydraConfig.get().runtime.output_dir), parse(composed)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            if HydraConfig.get().job.num not in _Stack.done:
                _run_job(config, output)
            return
        codes.append(_run_job(config, output))
        if not codes[0]:
            print(f"{output}: models/, plots/, predictions.npz, history.csv, learning_curves.png")

    flags = {argument for argument in arguments if argument.startswith("-")}
    overrides = [argument for argument in arguments if argument not in flags]
    if flags <= {"-m", "--multirun"}:  # before Hydra creates a folder, and with messages that say what is allowed
        configs = [job.config for job in jobs_of(overrides)] if flags else [compose(overrides)]
        ensure_store(main_root())
        keys = [_checked(config) for config in configs]
        if flags and not any(override.startswith("hydra.sweep.dir=") for override in overrides):
            folder = None if configs[0].sweep.rerun else finished.latest(main_root(), keys)
            overrides += [f"hydra.sweep.dir={os.path.relpath(folder)}"] if folder else []
        arguments = [*flags, *overrides]  # a flag amid overrides is an error to Hydra
    register()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let its errors through to here
    sys.argv = ["pipeline.train", *arguments]
    with contextlib.ExitStack() as stack:
        _Stack.current = stack
        if flags & {"-m", "--multirun"}:
            stack.enter_context(workers.available())
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)()
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(one_message(error)) from error
    if codes and codes[0]:
        raise SystemExit(codes[0])
    if _Stack.failed:
        raise SystemExit(1)


class SweepCallback(Callback):
    """Called by Hydra (`hydra.callbacks` in conf/config.yaml) around a sweep."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse the sweep if any of its jobs is bad; open the sweep's MLflow run."""
        from .tracking import Tracker

        with _exit_2():
            swept = config.hydra.sweeper.get("params") or {}
            self.jobs = jobs_of([f"{key}={value}" for key, value in swept.items()] + list(config.hydra.overrides.task))
            self.folder = Path(str(config.hydra.sweep.dir))
            keys = [_checked(job.config) for job in self.jobs]
            rerun = self.jobs[0].config.sweep.rerun
            root, folders = main_root(), [self.folder / str(job.number) for job in self.jobs]
            self.done = {
                job.number: found
                for job, key, folder in zip(self.jobs, keys, folders, strict=True)
                if not rerun and (found := finished.find(root, folder, key))
            }
            _Stack.done = self.done
            self.tracker = Tracker(self.jobs[0].config.tracking, root)
            here = [found for found in self.done.values() if found.parent.resolve() == self.folder.resolve()]
            if len(here) == len(self.jobs):
                print(f"{self.folder}: all {len(self.jobs)} jobs are done; sweep.rerun=true trains them again")
                self.run = None
                return
        finished.begin(self.folder, keys)
        tags = {"stage": "sweep", "sweep": self.folder.name, "sweep.jobs": len(self.jobs)}
        slot = self.folder / "run"
        goes_on = slot.exists()
        self.run = _Stack.current.enter_context(self.tracker.run(f"sweep {self.folder.name[5:]}", tags=tags, slot=slot))
        if goes_on:
            print(f"{self.folder}: goes on", flush=True)
        else:
            varied = sorted({key for job in self.jobs for key in job.varied})
            self.run.show(sweeps={self.folder.name: varied})
            self.run.log_params({"overrides": list(config.hydra.overrides.task)})
        self.tracker.drain()  # so that the jobs can name their parent by the id that MLflow gave it
        for job, key in zip(self.jobs, keys, strict=True):
            folder = self.folder / str(job.number)
            folder.mkdir(parents=True, exist_ok=True)
            if job.number in self.done:
                self._take_over(self.done[job.number], key)
                continue
            finished.unmark(folder)
            facts = {"id": self.folder.name, "parent": self.run.reference, "job": job.number, "label": job.label}
            (folder / "job.json").write_text(json.dumps(facts | {"key": key}, indent=2) + "\n")
        if self.done:
            print(f"{len(self.done)} of {len(self.jobs)} jobs are done; sweep.rerun=true trains them again", flush=True)

    def _take_over(self, folder: Path, key: str) -> None:
        """What was done for an earlier sweep belongs to this one, too."""
        sweeps = finished.sweeps_of(folder)
        if self.folder.name in sweeps:
            return
        sweeps.append(self.folder.name)
        runs = json.loads((folder / "runs.json").read_text())
        for reference in filter(None, (runs["group"], *(seed["run"] for seed in runs["seeds"].values()))):
            self.tracker.add_tags(reference, {"sweep": " ".join(sweeps)})
        finished.mark_done(folder, key, sweeps)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print and log the ranking and the failures."""
        ranking, failures = [], []
        for job in self.jobs:
            folder = self.done.get(job.number, self.folder / str(job.number))
            if (folder / "failure.json").exists():
                failures.append((job, json.loads((folder / "failure.json").read_text())["reason"]))
            else:
                ranking.append((job, json.loads((folder / "summary.json").read_text())))
        ranking.sort(key=lambda entry: (-entry[1]["validation_accuracy"], entry[1]["validation_loss"]))
        _print(self.folder, ranking, failures)
        if not self.tracker.silence:
            view = view_link(self.tracker.experiment_id, f"sweep-{self.folder.name}", charts=True)
            print(f"MLflow (`make ui` serves it): {self.tracker.link(view)}")
        lines = ["| rank | job | validation accuracy | images/s |", "|---|---|---|---|"]
        for rank, (job, s) in enumerate(ranking, 1):
            accuracy, speed = s["validation_accuracy"], s["train_images_per_second"]
            lines.append(f"| {rank} | {' '.join(job.overrides)} | {accuracy:.4f} | {speed:,.0f} |")
        lines += [f"| failed | {' '.join(job.overrides)} | {reason} | |" for job, reason in failures]
        _Stack.failed = bool(failures)
        if self.run:
            self.run.describe("\n".join(lines))
            self.run.log_text("\n".join(lines) + "\n", "ranking.md")
            if not failures:  # else the same command goes on with it
                _Stack.current.callback(self.tracker.release, self.folder / "run")


def jobs_of(overrides: Sequence[str]) -> list[SweepJob]:
    """Every job that Hydra's own sweeper makes of these, composed and checked. Raises `UserError` for a bad one."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        combinations = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    except HydraException as error:
        raise UserError(one_message(error)) from error
    varying = {
        override.split("=", 1)[0]
        for combination in combinations
        for override in combination
        if any(override not in other for other in combinations)
    }
    jobs = []
    for number, combination in enumerate(combinations):
        pairs = (override.split("=", 1) for override in combination)
        shown = {key: value for key, value in pairs if key in varying and key not in _UNLABELLED}
        jobs.append(SweepJob(number, tuple(combination), compose(combination), shown))
    return jobs


def _checked(config: Config) -> str:
    """The job's key. Raises `UserError` where the network or the augmentation does not fit the data."""
    dataset = obtain(config.data, main_root())
    Architecture.of(config.model, dataset)
    require_visible(config.train.augment, dataset.image_shape)
    return finished.key_of(config, dataset)


def _run_job(config: Config, output: Path) -> int:
    """Train and evaluate in a process of its own, and return its exit code.

    A framework keeps its threads, its memory and its choice of GPU for as long as its process lives. It leaves
    `summary.json`, or `failure.json` with the last line it said.
    """
    write(config, output / "params.yaml")
    for name in ("summary.json", "failure.json"):
        (output / name).unlink(missing_ok=True)
    arguments = ("pipeline.single", "--params", str(output / "params.yaml"), "--output", str(output))
    command = [sys.executable, "-m", *arguments]
    last = ""
    running = workers.command(config.framework, *arguments)
    with subprocess.Popen(running, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                sys.stderr.write(line)
                last = line.strip() or last
        except (SystemExit, KeyboardInterrupt):  # it may have come to this process alone
            process.terminate()
            process.wait()
            raise
    if (code := process.returncode) < 0:  # it could say nothing itself
        last = f"error: its process was ended by {signal.Signals(-code).name}; the same command goes on"
        print(last, file=sys.stderr, flush=True)
        code = 1
    if code:
        (output / "summary.json").unlink(missing_ok=True)
        reason = last.removeprefix("error: ") or f"ended with code {code}"
        failure = {"reason": reason, "code": code, "command": " ".join(command)}
        (output / "failure.json").write_text(json.dumps(failure, indent=2) + "\n")
    if code in (130, 143):
        raise KeyboardInterrupt
    return code


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Each key's last part, or all of it where two keys share that."""
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: name if last[name := key.rpartition(".")[2]] == 1 else key for key in keys}


def _print(
    folder: Path,
    ranking: Sequence[tuple[SweepJob, dict[str, float]]],
    failures: Sequence[tuple[SweepJob, str]],
) -> None:
    from rich.markup import escape
    from rich.table import Table

    from .progress import console

    table = Table(title=f"{folder.name}: {len(ranking)} done, {len(failures)} failed", title_justify="left")
    varied = list(dict.fromkeys(key for job, *_ in (*ranking, *failures) for key in job.varied))
    short = _short(varied)
    for column in ("rank", "job", "framework", *short.values()):
        table.add_column(column, overflow="fold")
    for column in ("validation accuracy", "validation loss", "images/s"):
        table.add_column(column, justify="right")
    for rank, (job, s) in enumerate(ranking, 1):
        numbers = (s["validation_accuracy"], s["validation_loss"], s["train_images_per_second"])
        cells = (form.format(number) for form, number in zip(("{:.4f}", "{:.4f}", "{:,.0f}"), numbers, strict=True))
        values = [job.varied.get(key, "") for key in varied]
        table.add_row(str(rank), str(job.number), job.config.framework, *values, *cells)
    console.print(table)
    if failures:
        console.print("The same command again trains the failed ones alone.", highlight=False)
    for job, reason in failures:
        changed = " ".join(f"{short[key]}={value}" for key, value in job.varied.items())
        console.print(f"[red]failed[/]: job {job.number}: {job.config.framework} {changed}: {escape(reason)}")
    console.print(f"each job's files: {folder}/<job>/", highlight=False)
    if len({job.config.framework for job, _ in ranking}) > 1:
        console.print(f"TensorFlow against PyTorch: python -m pipeline.compare sweep={folder.name}", highlight=False)


@contextlib.contextmanager
def _exit_2() -> Any:
    """Hydra turns what a callback raises into a warning, but for `SystemExit`."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
