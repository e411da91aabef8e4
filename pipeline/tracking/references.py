"""`runs.json`: which runs and models of MLflow hold what a training left."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..core.errors import UserError
from ..core.files import read_json, write_json


class SeedReference(BaseModel):
    """Of one seed: ids, or, as long as MLflow has given none, the journal of the run and the name of the model."""

    model_config = ConfigDict(frozen=True)

    run: str
    model: str | None
    """None: no model was logged."""


class RunReferences(BaseModel):
    """Of one framework under one configuration."""

    model_config = ConfigDict(frozen=True)

    group: str | None
    """The run that holds the means over the seeds; None: of one seed in a sweep, which needs none."""
    seeds: dict[int, SeedReference]

    @classmethod
    def read(cls, path: Path, advice: str) -> "RunReferences":
        """Read what `write` wrote. Raises `UserError` that names the file and ends with `advice`."""
        content = read_json(path, advice)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}: cannot be read ({error.errors()[0]['msg']}); {advice}") from error

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump())

    @property
    def runs(self) -> list[str]:
        """All of them."""
        return [*([self.group] if self.group else []), *(seed.run for seed in self.seeds.values())]
