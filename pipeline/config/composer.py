"""Compose the jobs of a sweep, which differ in a few values, from one composition for each choice of files."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from omegaconf import OmegaConf

from ..core.errors import UserError
from . import hydra_compat
from .compose import CONF, compose_job, readable_errors, task_part
from .hydra_compat import Source
from .override_form_compat import require_form
from .schema.whole import Config

_MISSING: Final = "???"
_DIGEST: Final = "${conf_digest:}"  # the same for all jobs
_NAMED: Final = re.compile(r"\$\{hydra[.:]job\.(num|override_dirname)\}")


@dataclass(frozen=True)
class ComposedJob:
    """A job of a sweep as Hydra will compose it, checked."""

    config: Config
    subdir: str
    """`hydra.sweep.subdir`, resolved."""
    fixed: bool
    """Whether Hydra is known to compose the same again: `${now:%f}` and its like are not in it."""


class Composer:
    """Composes one job of a sweep after the other, with the results and the errors of `compose_job`.

    A plain value, as in `train.epochs=2`, chooses no file: it is set in what was composed without it, which takes a
    hundredth of the time. Whatever is not so plain goes to `compose_job`: interpolations, a dictionary, a key that
    there is not, a value that is refused.
    """

    def __init__(self, source: Source) -> None:
        """Compose from this source."""
        self._source = source
        self._bases: dict[tuple[str, ...], _Base | None] = {}
        self._groups: dict[str, bool] = {}
        self._formed: set[str] = set()
        self._hydra: Any = None

    def compose(self, overrides: Sequence[str], number: int) -> ComposedJob:
        """Compose and check job `number`. Raises `UserError` listing every problem."""
        if quickly := self._quickly(overrides, number):
            return quickly
        config, folders = compose_job(overrides, self._source, number)
        return ComposedJob(config, folders["sweep.subdir"], fixed=False)

    def _quickly(self, overrides: Sequence[str], number: int) -> ComposedJob | None:
        """Return what `compose_job` does; None: that takes more than values, or fails."""
        if any("${" in override for override in overrides if not override.startswith("hydra.")):
            return None
        try:
            with readable_errors(overrides):
                parsed = [hydra_compat.parsed(override) for override in overrides]
                plain = self._plain(parsed)
                chosen = [each.text for each, is_plain in zip(parsed, plain, strict=True) if not is_plain]
                self._require_form(chosen)
                base = self._base(chosen)
                if base is None or (folder := base.folder(parsed, number)) is None:
                    return None
                values, missing = base.values, set(base.missing)
                for each in (each for each, is_plain in zip(parsed, plain, strict=True) if is_plain):
                    changed = _changed(values, each.key.split("."), each.value)
                    if changed is None:
                        return None
                    values = changed
                    missing.discard(each.key)
                return None if missing else ComposedJob(Config.model_validate(values), folder, fixed=True)
        except UserError:  # `compose_job` says what is wrong
            return None

    def _plain(self, parsed: Sequence[hydra_compat.Parsed]) -> list[bool]:
        """Return which overrides are to be set in what the others give.

        Hydra applies groups first, whatever their place, and the rest from left to right. So a value to the left of
        `+a=1`, `~a` or `a={b: 1}` is not set after it.
        """
        kinds = [self._kind(each) for each in parsed]
        first = next((place for place in range(len(kinds), 0, -1) if kinds[place - 1] == "other"), 0)
        return [kind == "plain" and place >= first for place, kind in enumerate(kinds)]

    def _require_form(self, overrides: Sequence[str]) -> None:
        """Check what no job before had, each by itself; a plain value has nothing wrong with its form."""
        if new := [override for override in overrides if override not in self._formed]:
            require_form(self._started(), self._source, new)
            self._formed |= set(new)

    def _started(self) -> Any:
        if self._hydra is None:
            with hydra_compat.started(CONF, self._source) as self._hydra:
                pass
        return self._hydra

    def _kind(self, override: hydra_compat.Parsed) -> str:
        if override.of_hydra:
            return "hydra"
        if override.key not in self._groups:
            self._groups[override.key] = hydra_compat.is_group(self._started(), override.key)
        if self._groups[override.key] and not isinstance(override.value, dict):
            return "group"
        sets = override.sets and re.fullmatch(r"\w+(\.\w+)*", override.key)
        return "plain" if sets and _is_plain(override.value) and not isinstance(override.value, dict) else "other"

    def _base(self, chosen: Sequence[str]) -> "_Base | None":
        if tuple(chosen) not in self._bases:
            self._bases[tuple(chosen)] = None  # if it raises
            self._bases[tuple(chosen)] = _Base.of(chosen, self._source)
        return self._bases[tuple(chosen)]


@dataclass(frozen=True)
class _Base:
    """What jobs have in common: a composition in which the values of a job are set."""

    values: Mapping[str, Any]
    missing: frozenset[str]
    """Keys without a value (`???`)."""
    subdir: str
    """`hydra.sweep.subdir` as text and interpolations that `folder` knows."""
    naming: Mapping[str, Any]
    """How `hydra.job.override_dirname` is built."""

    @classmethod
    def of(cls, chosen: Sequence[str], source: Source) -> "_Base | None":
        """Compose these overrides. None: a value of a job may change others, or what is composed."""
        with hydra_compat.started(CONF, source) as hydra:
            composed = hydra_compat.compose(hydra, source, chosen)
        subdir, naming, elsewhere = hydra_compat.names_of_jobs(composed)
        task = task_part(composed)
        raw = OmegaConf.to_container(task, resolve=False)
        interpolated = any("${" in text and text != _DIGEST for text in _texts(raw))
        if elsewhere or interpolated or re.search(r"[$\\]", _NAMED.sub("", subdir)) or subdir == _MISSING:
            return None
        values: Any = OmegaConf.to_container(task, resolve=True, throw_on_missing=False)
        return cls(values, frozenset(OmegaConf.missing_keys(task)), subdir, naming)

    def folder(self, parsed: Sequence[hydra_compat.Parsed], number: int) -> str | None:
        """Return `hydra.sweep.subdir` of job `number`; None: an interpolation is in what it consists of."""
        dirname = hydra_compat.override_dirname(parsed, self.naming)
        if "${" in "".join((dirname, *_texts(dict(self.naming)))):
            return None
        parts = {"num": str(number), "override_dirname": dirname}
        return _NAMED.sub(lambda found: parts[found[1]], self.subdir)


def _is_plain(value: Any) -> bool:
    """Return whether OmegaConf keeps this value as it is."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(type(key) is str and _is_plain(inner) for key, inner in value.items())
    if type(value) is str:
        return "${" not in value and value != _MISSING
    return value is None or type(value) in (bool, int, float)


def _changed(values: Mapping[str, Any], path: Sequence[str], value: Any) -> Mapping[str, Any] | None:
    """Return a copy of `values` with another value at `path`; None: that takes more than a replacement."""
    if path[0] not in values:
        return None
    inner = values[path[0]]
    if len(path) > 1:
        value = _changed(inner, path[1:], value) if isinstance(inner, dict) else None
        return None if value is None else {**values, path[0]: value}
    replaceable = not isinstance(inner, dict | list) or (isinstance(inner, list) and isinstance(value, list))
    return {**values, path[0]: value} if replaceable else None


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a tree of dictionaries and lists, keys left out."""
    if isinstance(value, dict | list):
        inner: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for each in inner:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value
