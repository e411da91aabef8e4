"""The space of a search, in Hydra's grammar of overrides: choices, ranges and intervals of keys."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Final, Literal

from ..config import hydra_compat
from ..config.compose import CONF, readable_errors
from ..config.hydra_compat import Source, Swept
from ..config.schema.section import Section
from ..core.errors import UserError

Value = int | float | str
_SEARCHED: Final = ("model", "train")
"""Sections, and groups, that may be searched over: the others change what is measured, or nothing."""
_MOST_STEPS: Final = 10_000


class Dimension(Section):
    """A key, and the values that it may take."""

    key: str
    kind: Literal["choice", "int", "float"]
    choices: tuple[str, ...] = ()
    """Values of a choice, as in an override."""
    low: int | float = 0
    """Smallest and largest value of an interval or a range, both included."""
    high: int | float = 0
    step: int | float | None = None
    """Distance between the values of a range; None: any value of the interval."""
    log: bool = False
    """Whether the logarithm is drawn evenly."""

    @property
    def ends(self) -> tuple[Value, ...]:
        """The outermost values, or all choices."""
        return self.choices or (self.low, self.high)

    @property
    def size(self) -> int | None:
        """How many values it has; None: as many as there are numbers."""
        if self.kind == "choice":
            return len(self.choices)
        if self.kind == "float" and not self.step:
            return None
        return round((self.high - self.low) / (self.step or 1)) + 1

    def values(self) -> list[Value]:
        """Return all of its values, of which there must be finitely many."""
        if self.kind == "choice":
            return list(self.choices)
        assert self.size
        if self.kind == "int":
            return list(range(int(self.low), int(self.high) + 1, int(self.step or 1)))
        return [self.low + i * (self.step or 0.0) for i in range(self.size)]

    @property
    def in_words(self) -> str:
        """Its values, for the user."""
        if self.kind == "choice":
            return ", ".join(self.choices)
        step = f" in steps of {self.step}" if self.step else ""
        whole = ", whole numbers" if self.kind == "int" and not self.step else ""
        return f"{self.low} to {self.high}{step}{whole}{', logarithmic' if self.log else ''}"

    def override(self, value: Value) -> str:
        """Return `key=value`."""
        return f"{self.key}={value}"


class Space(Section):
    """What a command line searches over."""

    fixed: tuple[str, ...]
    """Overrides of keys with one value."""
    frameworks: tuple[str, ...]
    """Those that every point is trained in."""
    dimensions: tuple[Dimension, ...]

    def overrides(self, point: Mapping[str, Value]) -> list[str]:
        """Return the overrides of a point, the fixed ones first."""
        return [*self.fixed, *(each.override(point[each.key]) for each in self.dimensions)]

    @property
    def size(self) -> int | None:
        """How many points it has; None: a dimension is an interval of real numbers."""
        sizes = [each.size for each in self.dimensions]
        return None if None in sizes else math.prod(size for size in sizes if size)

    def points(self) -> Iterator[dict[str, Value]]:
        """Yield all points of a finite space."""
        keys = [each.key for each in self.dimensions]
        for values in product(*(each.values() for each in self.dimensions)):
            yield dict(zip(keys, values, strict=True))

    def corners(self) -> Iterator[dict[str, Value]]:
        """Yield points that together have every end and every choice of each dimension."""
        first = {each.key: each.ends[0] for each in self.dimensions}
        yield first
        for each in self.dimensions:
            yield from (first | {each.key: value} for value in each.ends[1:])


def parse(overrides: Sequence[str], source: Source, default: str) -> Space:
    """Return the space of these overrides; `default`: the framework if none is named.

    Raises `UserError` naming a space that cannot be searched, or if there is none.
    """
    with readable_errors(overrides), hydra_compat.started(CONF, source) as hydra:
        fixed, swept = hydra_compat.spaces(hydra, overrides)
    for each in swept:
        if each.key != "framework":
            _require_searchable(each)
    given = {override.lstrip("+").partition("=")[0]: override for override in fixed}
    if twice := [each for each in swept if each.key.lstrip("+") in given]:
        key = twice[0].key.lstrip("+")
        raise UserError(f"{twice[0].text}: {key} is given twice, also as {given[key]}; leave one of them out")
    named = [override.partition("=")[2] for override in fixed if override.lstrip("+").partition("=")[0] == "framework"]
    frameworks: tuple[str, ...] = (named[-1] if named else default,)
    dimensions: dict[str, Dimension] = {}
    for each in swept:
        if each.key == "framework":
            frameworks = tuple(dict.fromkeys(each.choices))
            if not each.choices:
                raise UserError(f"{each.text}: allowed: names, such as framework=tensorflow,pytorch")
            continue
        if each.key in dimensions:
            raise UserError(f"{each.text}: {each.key} has two spaces; give it one")
        dimensions[each.key] = dimension(each)
    if not dimensions:
        raise UserError(
            "hydra/sweeper = search: no key has a space; allowed: a=1,2,3, 'a=range(1,9,2)', 'a=interval(0,1)', "
            "'a=tag(log,interval(1e-4,1e-1))'"
        )
    kept = [override for override in fixed if override.lstrip("+").partition("=")[0] != "framework"]
    return Space(fixed=tuple(kept), frameworks=frameworks, dimensions=tuple(dimensions.values()))


def dimension(swept: Swept) -> Dimension:
    """Return the dimension that an override asks for. Raises `UserError` if there is none."""
    if unknown := swept.tags - {"log", "int"}:
        raise UserError(f"{swept.text}: the tag {min(unknown)!r} is unknown; allowed: log, int")
    if swept.choices:
        if swept.tags:
            raise UserError(f"{swept.text}: choices have no order; tags are allowed for interval and range")
        return Dimension(key=swept.key, kind="choice", choices=tuple(dict.fromkeys(swept.choices)))
    if swept.values:
        return _range(swept)
    low, high, log = swept.low, swept.high, "log" in swept.tags
    if low == high == 0 and "interval" not in swept.text:
        raise UserError(f"{swept.text}: has no values")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"{swept.text}: allowed: interval(low,high) with low < high")
    if log and low <= 0:
        raise UserError(f"{swept.text}: {low} has no logarithm; allowed: a first end above 0")
    if "int" in swept.tags or (isinstance(low, int) and isinstance(high, int)):
        if low != int(low) or high != int(high):
            raise UserError(f"{swept.text}: allowed with the tag int: whole ends")
        return Dimension(key=swept.key, kind="int", low=int(low), high=int(high), log=log)
    return Dimension(key=swept.key, kind="float", low=float(low), high=float(high), log=log)


def _range(swept: Swept) -> Dimension:
    values = sorted(swept.values)
    if len(values) > _MOST_STEPS:
        raise UserError(f"{swept.text}: {len(values):,} values; allowed: {_MOST_STEPS:,}, or an interval")
    whole = all(isinstance(value, int) for value in values)
    step = values[1] - values[0] if len(values) > 1 else 1
    if "log" in swept.tags:
        if not whole or step != 1 or values[0] <= 0:
            raise UserError(f"{swept.text}: allowed with the tag log: an interval, or a range of whole numbers from 1")
        return Dimension(key=swept.key, kind="int", low=values[0], high=values[-1], log=True)
    if whole:
        return Dimension(key=swept.key, kind="int", low=values[0], high=values[-1], step=step)
    if "int" in swept.tags:
        raise UserError(f"{swept.text}: allowed with the tag int: whole numbers")
    texts = tuple(dict.fromkeys(f"{value:.12g}" for value in values))
    low, high, step = float(texts[0]), float(texts[-1]), float(f"{step:.12g}")
    return Dimension(key=swept.key, kind="float", low=low, high=high, step=step)


def _require_searchable(swept: Swept) -> None:
    key = swept.key.lstrip("+")
    if key == "seeds":
        raise UserError(f"{swept.text}: every point is trained with the same seeds; allowed: one list, such as [0,1]")
    if key.partition("@")[0].replace("/", ".").partition(".")[0] not in _SEARCHED:
        raise UserError(f"{swept.text}: not searched over; allowed: keys and groups of {' and '.join(_SEARCHED)}")
    if key == "train.epochs":
        raise UserError(f"{swept.text}: every point has the same budget; allowed: one value")
