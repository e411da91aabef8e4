"""`runs.json`: references to the MLflow runs and models of a training."""

from ..core.records import Record


class SeedReference(Record):
    """The run and the model of one seed."""

    run: str
    """MLflow's id; as long as MLflow has given none, the run's journal (see `journal.local`)."""
    model: str | None
    """MLflow's id; as long as MLflow has given none, the model's name. None: no model was logged."""


class RunReferences(Record):
    """The runs of one framework under one configuration."""

    group: str | None
    """The run that holds the means over the seeds; None for a single seed in a sweep, which needs no such run."""
    seeds: dict[int, SeedReference]
    """By seed."""

    @property
    def runs(self) -> list[str]:
        """References of all runs, the group first."""
        return [*([self.group] if self.group else []), *(seed.run for seed in self.seeds.values())]
