"""Upstream files: from a mirror or from their own addresses, verified, kept under their own names in one folder."""

import base64
import errno
import hashlib
import netrc
import os
import queue
import shutil
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlparse

from ..core.errors import UserError
from ..core.paths import main_root
from ..core.progress import steps

ANSWER_SECONDS = 4.0
"""A server that does not begin to answer for so long is given up, and with it all others: there is no network."""
SILENCE_SECONDS = 10.0
"""A server that falls silent for so long is given up."""
_CHUNK = 1 << 20
_HASHES = {32: "MD5", 64: "SHA-256"}
AGAIN = "run `dvc repro --force download` (outside of DVC: `python -m pipeline.download` with the same `data`)"
_NO_ANSWER = (401, 407, 502, 503, 504)
"""Codes of HTTP that say: log in, log in at the proxy; the proxy, or a gateway, does not reach the server."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


class Upstream:
    """The folder `data/raw`: every upstream file by its own name.

    `mirror`: a folder, or the URL of one, that holds the files under the same names; a relative one is below the
    repository's root; None: their own addresses.
    `sealed`: take what is in the folder and fetch nothing, as `prepare` does.
    """

    def __init__(self, folder: Path, *, mirror: str | None = None, sealed: bool = False) -> None:
        self.folder, self.mirror, self.sealed = folder, mirror, sealed
        self.names: list[str] = []
        """Of all files that are wanted, as far as it is known."""
        self._failures: list[str] = []
        self._failed_seconds = 0.0
        if mirror is not None and "://" in mirror and not mirror.startswith(("http://", "https://", "file://")):
            raise UserError(f"data.mirror = {mirror}: allowed: a folder, or a URL of http://, https:// or file://")

    def expect(self, names: Iterable[str]) -> None:
        """These files are going to be asked for."""
        self.names += [name for name in names if name not in self.names]

    def place(self, url: str, target: Path, *, name: str, checksum: str | None) -> None:
        """Have the upstream file `name` at `target`; `checksum`: MD5 or SHA-256 in hexadecimal digits, or None.

        Raises `UserError` where the file cannot be had or is another; URLError where its own address does not deliver,
        so that the library tries the next one.
        """
        if Path(name).name != name or name in ("", ".."):
            raise UserError(f"{name!r}: not the name of an upstream file")
        self.expect([name])
        kept = self.folder / name
        if not kept.exists():
            self._fetch(url, kept)
        self._verify(kept, checksum)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(kept, target)
        except OSError:
            shutil.copyfile(kept, target)

    def require_any(self, hosts: Sequence[str]) -> None:
        """Raise `UserError` if files are to be fetched and none of these hosts is known here: before what is slow."""
        if self.mirror is not None or self.sealed or {"http", "https"} & urllib.request.getproxies().keys():
            return
        asked = [(host, _begun(partial(socket.getaddrinfo, host, 443))) for host in hosts]
        for host, box in asked:
            try:
                _answer(box)
            except OSError as error:
                self._failures.append(f"{host}: {_reason(error)}")
            else:
                return
        raise UserError(self._no_network())

    @contextmanager
    def unpacking(self) -> Iterator[Path]:
        """An empty folder near the files, for as long as the context lasts; a killed run's is cleared away."""
        scratch = self.folder.with_name(f"{self.folder.name}.unpacked")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield Path(tempfile.mkdtemp(dir=scratch))  # never the same: tensorflow-datasets remembers what it has made
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Turn what a library raises while it opens `what` into one `UserError`."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of torchvision, tensorflow-datasets and all that they call: no common base
            if self._failures:
                raise UserError(self._no_network()) from error
            said = " ".join(str(error).split())
            raise UserError(f"{what}: cannot be read: {type(error).__name__}: {said}") from error

    def _fetch(self, url: str, kept: Path) -> None:
        if self.sealed:
            raise UserError(f"{kept}: missing; {AGAIN}")
        part = kept.with_name(f"{kept.name}.part")
        source = self._source(url, kept.name)
        began = time.monotonic()
        try:
            with _opened(source) as (stream, size):
                _copy(stream, size, part)
        except (OSError, HTTPException) as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in _DISK and error.filename in (None, str(part)):
                raise UserError(f"{part}: {error.strerror}") from error
            said = f"{source}: {_reason(error)}"
            if self.mirror is not None:
                raise UserError(
                    f"data.mirror = {self.mirror}: {said}; allowed: a folder or URL with {', '.join(self.names)}; "
                    "data=mnist_sample needs none (bundled)"
                ) from error
            self._failures.append(said)
            self._failed_seconds += time.monotonic() - began
            if self._failed_seconds > 0.9 * ANSWER_SECONDS:
                raise UserError(self._no_network()) from error
            raise URLError(said) from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(kept)
        self._failures.clear()

    def _source(self, url: str, name: str) -> str | Path:
        if self.mirror is None:
            return url
        if self.mirror.startswith("file://"):
            return Path(unquote(urlparse(self.mirror).path)) / name
        if "://" in self.mirror:
            return f"{self.mirror.rstrip('/')}/{quote(name)}"
        return main_root() / Path(self.mirror).expanduser() / name

    def _verify(self, kept: Path, checksum: str | None) -> None:
        if checksum is None:
            return
        kind = _HASHES[len(checksum)]
        with kept.open("rb") as file:
            found = hashlib.file_digest(file, "md5" if kind == "MD5" else "sha256").hexdigest()
        if found != checksum:
            size = kept.stat().st_size
            if not self.sealed:
                kept.unlink()
            where = f"from data.mirror = {self.mirror}" if self.mirror else "as it came"
            told = f"{kept}, which is another file" if self.sealed else f"{kept.name} {where}"
            way_out = AGAIN if self.sealed else "get it again, whole and as published (files of other sets share names)"
            raise UserError(f"{told}: {size:,} bytes with the {kind} {found}, not {checksum}; {way_out}")

    def _no_network(self) -> str:
        wanted = ", ".join(self.names)
        return (
            "; ".join(dict.fromkeys(self._failures))
            + f"\nNo network? data.mirror=<folder or URL that holds {wanted}>, or data=mnist_sample (bundled)"
        )


def silence(url: str) -> str:
    """Return why a server would not deliver, asked as for a file: by the proxy of the environment, with its login.

    Empty if it answers, whatever it says of this address, which it need not serve.
    """
    try:
        _answer(_begun(partial(_ask, url, "HEAD"))).close()
    except HTTPError as error:
        return _reason(error) if error.code in _NO_ANSWER else ""
    except (OSError, HTTPException) as error:
        return _reason(error)
    return ""


def _reason(error: OSError | HTTPException) -> str:
    if isinstance(error, HTTPException):
        said = f"talks no HTTP ({type(error).__name__}: {error})"
    else:
        code = f"HTTP {error.code} " if isinstance(error, HTTPError) else ""
        said = f"{code}{getattr(error, 'reason', None) or error.strerror or error}"
    return " ".join(said.split())


def _copy(stream: BinaryIO, size: int | None, part: Path) -> None:
    with steps(f"download {part.stem}", size, "bytes") as advance, part.open("wb") as file:
        come = 0
        while block := stream.read(_CHUNK):
            file.write(block)
            come += len(block)
            advance(len(block))
        if size is not None and come != size:
            raise OSError(f"only {come:,} of {size:,} bytes came")


@contextmanager
def _opened(source: str | Path) -> Iterator[tuple[BinaryIO, int | None]]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file, source.stat().st_size
        return
    with _answer(_begun(partial(_ask, source))) as response:
        length = response.headers.get("Content-Length")
        yield response, int(length) if length and length.isdecimal() else None


def _ask(url: str, method: str = "GET") -> Any:
    request = urllib.request.Request(
        url, method=method, headers={"User-Agent": "Mozilla/5.0 (experiment-tracking-pipeline)"}
    )
    if login := _login(urlparse(url).hostname or ""):
        request.add_unredirected_header("Authorization", login)  # to this host, and no other
    return urllib.request.urlopen(request, timeout=SILENCE_SECONDS)


def _login(host: str) -> str | None:
    """Return the value of the header `Authorization` for a host that `~/.netrc`, or the file `NETRC`, names."""
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except FileNotFoundError:
        return None
    except netrc.NetrcParseError as error:
        raise OSError(str(error)) from error
    return f"Basic {base64.b64encode(f'{entry[0]}:{entry[2]}'.encode()).decode()}" if entry else None


def _begun(call: Callable[[], Any]) -> "queue.SimpleQueue[Any]":
    """Where the result will be, or the error: in a thread of its own, as the look-up of a name knows no time limit."""
    box: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            box.put(call())
        except Exception as error:
            box.put(error)

    threading.Thread(target=run, daemon=True).start()
    return box


def _answer(box: "queue.SimpleQueue[Any]") -> Any:
    try:
        answer = box.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} s") from None
    if isinstance(answer, ValueError):  # not a URL
        raise OSError(str(answer))
    if isinstance(answer, Exception):
        raise answer
    return answer
