"""`runs.json`: references to the MLflow runs and models of a training."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..core.errors import UserError
from ..core.files import read_json, write_json


class SeedReference(BaseModel):
    """The run and the model of one seed."""

    model_config = ConfigDict(frozen=True)

    run: str
    """MLflow's id; as long as MLflow has given none, the run's journal (see `journal.local`)."""
    model: str | None
    """MLflow's id; as long as MLflow has given none, the model's name. None: no model was logged."""


class RunReferences(BaseModel):
    """The runs of one framework under one configuration."""

    model_config = ConfigDict(frozen=True)

    group: str | None
    """The run that holds the means over the seeds; None for a single seed in a sweep, which needs no such run."""
    seeds: dict[int, SeedReference]
    """By seed."""

    @classmethod
    def read(cls, path: Path, advice: str) -> "RunReferences":
        """Read a file that `write` wrote. Raises `UserError`, which names the file and ends with `advice`."""
        content = read_json(path, advice)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}: cannot be read ({error.errors()[0]['msg']}); {advice}") from error

    def write(self, path: Path) -> None:
        """Write the references to `path` as JSON."""
        write_json(path, self.model_dump())

    @property
    def runs(self) -> list[str]:
        """References of all runs, the group first."""
        return [*([self.group] if self.group else []), *(seed.run for seed in self.seeds.values())]
