"""Typed records that cross rooms as JSON files."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import UserError
from .files import read_json, write_json


class Record(BaseModel):
    """The content of a JSON file, or a part of it. Instances are frozen."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def read(cls, path: Path, advice: str = "run `dvc repro`", outdated: str = "") -> Self:
        """Read what `write` wrote.

        Raises `UserError` that names the file, and the key that is missing or invalid. It ends with `advice`, or with
        `outdated`, if that is given, for a file of another version.
        """
        content = read_json(path, advice)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            wrong = f"has no {key}" if first["type"] == "missing" else f"{key}: {first['msg']}"
            raise UserError(f"{path}: {wrong}; {outdated or advice}") from error

    def write(self, path: Path) -> None:
        """Write as JSON, see `files.write_json`."""
        write_json(path, self.model_dump())
