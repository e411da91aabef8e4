"""The ranking of a sweep: finished jobs, best first, and failed ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..core.frameworks import FRAMEWORKS
from ..core.progress import console
from ..training.results import TrainingSummary
from .plan import SweepJob
from .processes import Failure


@dataclass
class Ranking:
    """The finished and failed jobs of the sweep in `folder`."""

    folder: Path
    name: str
    """The name of the sweep."""
    failures: list[tuple[SweepJob, Failure]] = field(default_factory=list)
    _done: list[tuple[SweepJob, TrainingSummary]] = field(default_factory=list)

    def add(self, job: SweepJob, summary: TrainingSummary) -> None:
        """Add a finished job."""
        self._done.append((job, summary))

    @property
    def done(self) -> list[tuple[SweepJob, TrainingSummary]]:
        """Finished jobs by falling validation accuracy, then by rising validation loss."""
        return sorted(self._done, key=lambda entry: (-entry[1].validation_accuracy, entry[1].validation_loss))

    @property
    def markdown(self) -> str:
        """The ranking and the failures as a Markdown table, for MLflow."""
        lines = ["| rank | job | validation accuracy | images/s |", "|---|---|---|---|"]
        for rank, (job, summary) in enumerate(self.done, 1):
            accuracy, speed = summary.validation_accuracy, summary.train_images_per_second
            lines.append(f"| {rank} | {' '.join(job.overrides)} | {accuracy:.4f} | {speed:,.0f} |")
        lines += [f"| failed | {' '.join(job.overrides)} | {failure.reason} | |" for job, failure in self.failures]
        return "\n".join(lines)

    def show(self) -> None:
        """Print the table, the failures, the folder, and the command that compares the frameworks."""
        from rich.markup import escape
        from rich.table import Table

        counts = f"{len(self._done)} done, {len(self.failures)} failed"
        table = Table(title=f"{self.name}: {counts}", title_justify="left")
        varied = list(dict.fromkeys(key for job, _ in (*self.done, *self.failures) for key in job.varied))
        short = _short(varied)
        for column in ("rank", "job", "framework", *short.values()):
            table.add_column(column, overflow="fold")
        for column in ("validation accuracy", "validation loss", "images/s"):
            table.add_column(column, justify="right")
        for rank, (job, s) in enumerate(self.done, 1):
            numbers = f"{s.validation_accuracy:.4f}", f"{s.validation_loss:.4f}", f"{s.train_images_per_second:,.0f}"
            values = [job.varied.get(key, "") for key in varied]
            table.add_row(str(rank), str(job.number), job.config.framework, *values, *numbers)
        console.print(table)
        if self.failures:
            console.print("Run the same command again to train only the failed jobs.", highlight=False)
        for job, failure in self.failures:
            changed = " ".join(f"{short[key]}={value}" for key, value in job.varied.items())
            console.print(
                f"[red]failed[/]: job {job.number}: {job.config.framework} {changed}: {escape(failure.reason)}"
            )
        console.print(f"files of each job: {self.folder}/<job>/", highlight=False)
        trained = {job.config.framework for job, _ in self.done}
        if len(trained) > 1:
            titles = " against ".join(FRAMEWORKS[name].style.title for name in FRAMEWORKS if name in trained)
            console.print(f"{titles}: python -m pipeline.compare sweep={self.name}", highlight=False)


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted key, or the full key if two keys share their last part."""
    counts = Counter(key.rpartition(".")[2] for key in keys)
    return {key: name if counts[name := key.rpartition(".")[2]] == 1 else key for key in keys}
