"""Reports of training to MLflow and the terminal: a run for each seed, and a parent run (the group) for their means."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ..core import provenance
from ..core.errors import PrunedError, TrainingDivergedError
from ..core.files import read_json
from ..core.frameworks import find
from ..core.machine import cpu_features, machine, packages, peak_memory_bytes, steering_variables
from ..core.paths import PREPARED
from ..core.progress import Steps, steps
from ..core.redaction import redacted
from ..data.dataset import Dataset
from ..data.inventory import INVENTORY, inventory_of
from ..data.loader import BatchLoader
from ..evaluation.summary import percent, summarise
from ..models.backend import Classifier, EpochResult
from ..ranks.classifier import RankedClassifier
from ..search.report import Reporter
from ..tracking.flavours import model_name
from ..tracking.references import RunReferences, SeedReference
from ..tracking.runs import Run
from ..tracking.tracker import Tracker
from . import console
from .checkpoint import Progress
from .result_files import manifest_of
from .results import METRICS, SPLITS, HistoryRow, SeedResult, history_csv, mean, rows_of
from .run_tags import tags_of
from .spec import RunSpec


class RunRecorder:
    """The `recorder.Recorder` that writes to MLflow and to the terminal."""

    group_link: Path
    """The file that names the group's run, see `Tracker.run`."""

    def __init__(self, spec: RunSpec, classifier: Classifier, root: Path) -> None:
        self._spec, self._classifier, self._root = spec, classifier, root
        self._tracker = Tracker(spec.tracking, root)
        self._group: Run | None = None
        self._progress: Steps
        self._compile_seconds = 0.0
        self._reporter = Reporter.of(spec.output, spec.seeds, spec.train.epochs)

    def begin(self, loader: BatchLoader, compile_seconds: float, *, left_over: int) -> None:
        """Print what is about to be trained; `left_over`: bytes of checkpoints of other trainings."""
        self._compile_seconds = compile_seconds
        console.tell_start(self._spec, self._classifier, loader, compile_seconds)
        console.tell_left_over(self._root, left_over)
        console.tell_missing_code(self._spec, provenance.missing())

    @property
    def watched(self) -> bool:
        """See `Recorder.watched`."""
        return self._progress.watched

    @contextmanager
    def training(self, images: int) -> Iterator[None]:
        """See `Recorder.training`. A sweep's job with one seed has no group: the run would hold nothing new."""
        spec = self._spec
        if spec.alone:
            with steps(f"train {spec.label}", images, "images") as self._progress:
                yield
            return
        parent, tags = spec.sweep.parent if spec.sweep else None, tags_of(spec, self._classifier, None)
        with self._open(spec.label, parent, tags, self.group_link) as self._group:
            _log_setup(self._group, spec, self._classifier, None)
            with steps(f"train {spec.label}", images, "images") as self._progress:
                yield

    @contextmanager
    def seed(self, seed: int, run_link: Path) -> Iterator["SeedRun"]:
        """See `Recorder.seed`."""
        spec = self._spec
        parent = self._group.reference if self._group else spec.sweep.parent if spec.sweep else None
        name, tags = f"{spec.label} s{seed}", tags_of(spec, self._classifier, seed)
        with self._open(name, parent, tags, run_link) as run:
            _log_setup(run, spec, self._classifier, seed)
            run.log_metrics({"time/compile_seconds": self._compile_seconds}, step=0)
            with run.system_metrics(spec.tracking.system_metrics_seconds), self._machines_of_ranks(run):
                yield SeedRun(spec, self._classifier, run, self._progress, self._reporter)

    @contextmanager
    def _machines_of_ranks(self, run: Run) -> Iterator[None]:
        """Log the use of the other ranks' machines while the body runs."""
        if not isinstance(self._classifier, RankedClassifier):
            yield
            return
        first = run.next_step("system/rank_")
        steps_by_metric: dict[str, Iterator[int]] = defaultdict(lambda: count(first))

        def log(values: Mapping[str, float]) -> None:
            for name, value in values.items():
                run.log_metrics({name: value}, step=next(steps_by_metric[name]))

        with self._classifier.machines(self._spec.tracking.system_metrics_seconds, log):
            yield

    @contextmanager
    def _open(self, name: str, parent: str | None, tags: dict[str, Any], run_link: Path) -> Iterator[Run]:
        """Open a run. If its trial is pruned, the run ends FINISHED all the same, and the error goes on."""
        reporter, pruned = self._reporter, None
        tags |= reporter.tags if reporter else {}
        with self._tracker.run(name, parent=parent, tags=tags, run_link=run_link) as run:
            try:
                yield run
                state = "complete"
            except PrunedError as error:
                state, pruned = "pruned", error
            except TrainingDivergedError as error:
                if reporter:
                    run.set_tags({"search.state": "diverged"})
                    reporter.diverged(str(error))
                raise
            run.set_tags({"search.state": state} if reporter else {})
        if pruned:
            raise pruned

    def advance(self, images: int) -> None:
        """See `Recorder.advance`."""
        self._progress(images)

    def continued(self, seed: int, position: Progress, images: int) -> None:
        """See `Recorder.continued`."""
        self._progress.skip(images)
        console.tell_continued(self._progress, self._spec, seed, position)

    def interrupted(self, position: Progress) -> None:
        """See `Recorder.interrupted`."""
        console.tell_interrupted(self._progress, self._spec, position)

    def results(self, results: Sequence[SeedResult]) -> None:
        """Log means over the seeds under the metric names of the seeds, with standard deviation and 95 % interval."""
        console.tell_unlearned(self._progress, self._spec, results)
        if self._group is None:
            return
        group, epochs, rows = self._group, self._spec.train.epochs, rows_of(results)
        for split in SPLITS:
            for name in METRICS:
                means = [mean(rows, split, name, epoch) for epoch in range(1, epochs + 1)]
                group.log_series({f"{split}/{name}": means}, first_step=1)
                if len(results) > 1:
                    s = summarise([result.last(split, name) for result in results])
                    spread = {"std": s.std, "ci95_low": s.low, "ci95_high": s.high}
                    group.log_metrics({f"{split}/{name}_{k}": v for k, v in spread.items()}, step=epochs)
        validation = percent(mean(rows, "validation", "accuracy", epochs))
        group.log_metrics({"validation/accuracy_percent": validation}, step=epochs)
        speed = summarise([result.images_per_second for result in results]).mean
        group.log_metrics(
            {"throughput/train_images_per_second": round(speed), "time/compile_seconds": self._compile_seconds}, step=0
        )
        group.describe(_description(self._spec, results))
        group.log_file(self._spec.output / "history.csv")

    def finish(self, results: Sequence[SeedResult], run_links: Sequence[Path], checkpoint_seconds: float) -> None:
        """Write `runs.json`: references to runs and models, MLflow ids where it has assigned them. Print costs."""
        tracker, seeds = self._tracker, {}
        for link in run_links:
            tracker.restore(link)  # a seed that an earlier process ended
        tracker.drain()
        for result, link in zip(results, run_links, strict=True):
            model = tracker.model_reference(link, result.model) if result.model else None
            seeds[result.seed] = SeedReference(run=tracker.reference(link), model=model)
        group = tracker.reference(self.group_link) if self._group else None
        RunReferences(group=group, seeds=seeds).write(self._spec.output / "runs.json")
        console.tell_costs(self._spec, results, tracker.costs, checkpoint_seconds)

    def release(self, run_link: Path) -> None:
        """See `Recorder.release`."""
        self._tracker.release(run_link)


@dataclass(frozen=True)
class SeedRun:
    """The `recorder.SeedRecorder` that writes to one MLflow run and to the terminal."""

    spec: RunSpec
    classifier: Classifier
    run: Run
    progress: Steps
    reporter: Reporter | None = None

    def steps(self, trained: EpochResult, first_step: int) -> None:
        """See `SeedRecorder.steps`."""
        self.run.log_series({"train/step_loss": trained.loss}, first_step=first_step)

    def epoch(self, train: HistoryRow, validation: HistoryRow, learning_rate: float) -> None:
        """See `SeedRecorder.epoch`."""
        assert train.seconds
        assert train.examples
        scores = {f"{row.split}/{name}": getattr(row, name) for row in (train, validation) for name in METRICS}
        speed = {
            "time/epoch_seconds": train.seconds,
            "throughput/train_images_per_second": round(train.examples / train.seconds),
            "train/learning_rate": learning_rate,
        }
        self.run.log_metrics(scores | speed, step=train.epoch)
        console.tell_epoch(self.progress, self.spec, train, validation)
        if self.reporter:
            self.reporter.epoch(train.seed, train.epoch, validation.accuracy)

    def model(self, result: SeedResult, directory: Path) -> None:
        """See `SeedRecorder.model`. Also write the run's description and `history.csv`."""
        spec, run, flavour = self.spec, self.run, find(self.spec.framework).flavour
        run.flush()
        run.set_tags({"weights.digest": read_json(directory / "classifier.json", "")["weights"]})
        run.log_metrics({"system/peak_memory_mebibytes": peak_memory_bytes() / 2**20}, step=0)
        validation = percent(result.last("validation", "accuracy"))
        run.log_metrics({"validation/accuracy_percent": validation}, step=spec.train.epochs)
        if (peak := self.classifier.peak_gpu_bytes()) is not None:
            run.log_metrics({"system/peak_gpu_memory_mebibytes": peak / 2**20}, step=0)
        if spec.tracking.log_model and flavour:
            examples = spec.dataset.facts.examples["train"]
            result.model = run.log_model(
                flavour,
                self.classifier.export(),
                name=model_name(spec.framework, spec.model.name, result.seed),
                step=spec.train.epochs * -(-examples // spec.train.batch_size),
                example=np.zeros((2, *spec.dataset.image_shape), spec.train.precision),
                classes=len(spec.dataset.classes),
                files=[directory / "classifier.json", directory / "weights.safetensors"],
                metrics=[f"{split}/{name}" for split in SPLITS for name in METRICS],
                note=_description(spec, [result]),
            )
        run.describe(_description(spec, [result]))
        run.log_text(history_csv(result.history), "history.csv")


def _log_setup(run: Run, spec: RunSpec, classifier: Classifier, seed: int | None) -> None:
    """Log settings, machine, code and data before the first step; `seed` None: those of the group."""
    resolved = spec.resolved() | ({} if seed is None else {"seed": seed})
    resolved |= {"seeds": list(spec.seeds)} if seed is None or spec.alone else {}
    run.log_params(resolved | {"parameters": classifier.architecture.parameter_count})
    facts = asdict(machine()) | {
        "device": asdict(classifier.device) | {"execution": classifier.execution},
        "cpu_features": cpu_features(),
        "variables": steering_variables(),
        "git": provenance.facts(),
        "dvc": provenance.dvc(),
        "command": provenance.command(),
    }
    if isinstance(classifier, RankedClassifier):
        facts["ranks"] = classifier.ranks
    run.log_text(json.dumps(facts, indent=2), "environment.json")
    run.log_text("".join(f"{package}\n" for package in packages()), "packages.txt")
    run.log_text(json.dumps(resolved, indent=2), "config.json")
    log_configuration(run, spec)
    if seed is None or spec.alone:  # a list of files may be long, and is the same for all
        _log_data_files(run, spec.dataset)
    run.log_text(json.dumps(manifest_of(spec, classifier).model_dump(), indent=2), "manifest.json")
    log_code(run)
    source = provenance.data_source(str(PREPARED), spec.dataset.name)
    run.log_dataset(name=spec.dataset.name, fingerprint=spec.dataset.fingerprint, context="training", source=source)


def log_configuration(run: Run, spec: RunSpec) -> None:
    """Log every section of the configuration as `params.yaml`, as far as the caller knows it."""
    if spec.snapshot:
        run.log_text(redacted(spec.snapshot), "params.yaml")


def _log_data_files(run: Run, dataset: Dataset) -> None:
    """Log the digest of each of a user's own images, if the data were made of such."""
    if (path := inventory_of(dataset.folder)).exists():
        run.log_text(path.read_text(encoding="utf-8"), INVENTORY)


def log_code(run: Run) -> None:
    """Log what makes the code that runs from its commit as `git.diff`: bytes, as the files may be in any encoding."""
    code = provenance.git()
    if code and code.diff:
        with tempfile.TemporaryDirectory() as folder:
            diff = Path(folder) / "git.diff"
            diff.write_bytes(code.diff)
            run.log_file(diff)


def _description(spec: RunSpec, results: Sequence[SeedResult]) -> str:
    optimizer = spec.train.optimizer
    ranks = f", {spec.train.world} ranks" if spec.train.world > 1 else ""
    rows = {
        "network": f"{spec.model.name} ({spec.architecture.parameter_count:,} parameters)",
        "data": f"{spec.dataset.name} (`{spec.dataset.fingerprint[:8]}`)",
        "training": f"{spec.train.epochs} epochs, batch {spec.train.batch_size}, {optimizer.name} "
        f"{optimizer.learning_rate:g}, {spec.train.precision}{ranks}",
        "seeds": ", ".join(str(result.seed) for result in results),
        "validation accuracy": f"**{summarise([r.last('validation', 'accuracy') for r in results]).mean:.4f}**",
        "training speed": f"{summarise([r.images_per_second for r in results]).mean:,.0f} images/s",
    }
    head = f"**{spec.framework}**\n\n| what | value |\n|---|---|\n"
    return head + "\n".join(f"| {name} | {value} |" for name, value in rows.items())
