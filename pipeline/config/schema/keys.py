"""Which keys a section of the schema has, for messages."""

import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from .whole import Config


def allowed_keys(location: Sequence[int | str]) -> list[str]:
    """Return the keys of the section at `location` in the schema, such as `("train", "optimizer")`; sorted."""
    return sorted({name for model in _sections(location) for name in model.model_fields})


def bounds(location: Sequence[int | str]) -> str:
    """Return how the schema bounds the number at `location`: `greater than or equal to 1`; empty: not at all.

    The words are pydantic's.
    """
    fields = [model.model_fields.get(str(location[-1])) for model in _sections(location[:-1])]
    found = [entry for field in fields if field for entry in (*field.metadata, *_annotated(field.annotation))]
    words = {"gt": "greater than", "ge": "greater than or equal to", "lt": "less than", "le": "less than or equal to"}
    text = " and ".join(f"{words[n]} {getattr(entry, n):g}" for n in words for entry in found if hasattr(entry, n))
    optional = any(type(None) in typing.get_args(field.annotation) for field in fields if field)
    return f"{text}{' or null' * optional}".strip()


def _annotated(annotation: Any) -> Iterable[Any]:
    """Yield what is noted at the types of a union."""
    for argument in typing.get_args(annotation):
        for noted in getattr(argument, "__metadata__", ()):
            yield from noted.metadata


def _sections(location: Sequence[int | str]) -> list[type[BaseModel]]:
    """Return the models that the section at `location` may have."""
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
    return list(_models(annotation))


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
