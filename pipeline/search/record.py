"""`search.json` in the folder of a search, from which any process on any machine takes part in it."""

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from ..config.hydra_compat import Source
from ..config.schema.search import SearchConfig
from ..config.schema.section import Section
from ..core.errors import UserError
from ..core.files import read_text, write_text
from .space import Space

FILE: Final = "search.json"


class SearchRecord(Section):
    """What a search is."""

    name: str
    """That of the sweep; also of Optuna's study."""
    parent: str
    """Reference of its MLflow run."""
    space: Space
    hydra: tuple[str, ...]
    """Overrides of Hydra's own settings."""
    config_name: str
    config_dir: str | None
    settings: SearchConfig
    epochs: int
    """Number of epochs, over all seeds, that a trial trains each framework for."""

    @property
    def steps(self) -> int:
        """Number of epochs of a whole trial."""
        return self.epochs * len(self.space.frameworks)

    @property
    def source(self) -> Source:
        """What Hydra composes, see `hydra_compat.Source`."""
        return Source(self.config_name, Path(self.config_dir) if self.config_dir else None)

    def write(self, folder: Path) -> None:
        """Write `search.json` atomically."""
        write_text(folder / FILE, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "SearchRecord":
        """Read `search.json`. Raises `UserError` naming the file if it is missing or cannot be read."""
        text = read_text(folder / FILE, "start the search again")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise UserError(f"{folder / FILE}: cannot be read ({error}); start the search again") from error
