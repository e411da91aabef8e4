"""Which keys a section of the schema has, for messages."""

import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from .whole import Config


def allowed_keys(location: Sequence[int | str]) -> list[str]:
    """Return the keys of the section at `location` in the schema, such as `("train", "optimizer")`; sorted."""
    annotation: Any = Config
    for part in location:
        if (
            isinstance(part, str)
            and isinstance(annotation, type)
            and issubclass(annotation, BaseModel)
            and part in annotation.model_fields
        ):
            annotation = annotation.model_fields[part].annotation
        elif isinstance(part, str):  # the tag of a discriminated union
            annotation = next((model for model in _models(annotation) if part in _tags(model)), annotation)
    models = list(_models(annotation))
    return sorted({name for model in models for name in model.model_fields})


def _tags(model: type[BaseModel]) -> set[Any]:
    """Return the values of `name` or `type` that select this model in a union."""
    fields = (model.model_fields[name] for name in ("name", "type") if name in model.model_fields)
    return {value for field in fields for value in typing.get_args(field.annotation)}


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    """Yield the models that a type annotation contains."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
    else:
        for argument in typing.get_args(annotation):
            yield from _models(argument)
