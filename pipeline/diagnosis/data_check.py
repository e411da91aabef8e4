"""The check of the data: are they here, and if not, would they come?"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from ..config.compose import PARAMS, load
from ..config.schema.data import DataConfig
from ..core.errors import UserError
from ..core.paths import PREPARED, RAW
from ..data.build import source_of
from ..data.dataset import Dataset
from ..data.downloader import silence
from ..data.providers import addresses
from ..tracking.health import Mark

_ADVICE = "set data.mirror to a folder with the upstream files, or choose data=mnist_sample, which is bundled"


def data(config: DataConfig, root: Path) -> Iterator[tuple[Mark, str]]:
    """Yield whether the data set of the configuration is here, or the mirror or one of its hosts answers."""
    here = _here(config, root)
    if here:
        yield "ok", f"{config.name}: {here}"
    elif config.mirror and not config.mirror.startswith(("http://", "https://")):
        folder = Path(config.mirror.removeprefix("file://"))
        folder = folder if folder.is_absolute() else root / folder
        if folder.is_dir():
            yield "ok", f"data.mirror = {config.mirror}: {sum(1 for _ in folder.iterdir())} files"
        else:
            allowed = "allowed: a folder or URL with the upstream files"
            yield "FAIL", f"data.mirror = {config.mirror}: no such folder; {allowed}"
    elif config.mirror:
        reason = silence(config.mirror)
        yield "FAIL" if reason else "ok", f"data.mirror = {config.mirror}: {reason or 'answers'}"
    else:
        yield _asked(config)


def _asked(config: DataConfig) -> tuple[Mark, str]:
    """Ask the hosts of the data set in turn until one answers."""
    urls = addresses(config)
    if not urls:
        known = config.provider in ("bundled", "folder")
        return "ok", f"{config.name}: " + ("needs no network" if known else "its hosts are known at the download only")
    silent = []
    for url in urls:
        reason = silence(url)
        if not reason:
            return "ok", f"{config.name}: {urlsplit(url).netloc} answers"
        silent.append(f"{urlsplit(url).netloc}: {reason}")
    return "FAIL", f"{config.name} by {config.provider}: {'; '.join(silent)}; {_ADVICE}"


def _here(config: DataConfig, root: Path) -> str:
    """Say where the data are; empty if they must be fetched."""
    with suppress(UserError):
        dataset = Dataset.open(root / PREPARED)
        if dataset.facts.source == source_of(config) and config.provider != "folder":
            return f"prepared, {dataset.fingerprint[:8]}"
    with suppress(UserError):
        fetched = (root / RAW).exists() and any((root / RAW).iterdir())
        if fetched and source_of(load(root / PARAMS).data) == source_of(config) and config.provider != "folder":
            return f"files are in {RAW}"
    return ""
