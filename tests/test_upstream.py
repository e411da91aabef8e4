"""Upstream files: from a mirror or their own addresses, whole and as published, or not at all."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from libraries import ACCEPT, MNIST_FILES, PROVIDERS, Library, assert_refused, library, made_up_mnist, needs_mnist_files
from project_copy import clean_environment
from servers import answering, gate, nobody, served

from pipeline.config.compose import compose
from pipeline.core.errors import UserError
from pipeline.data import downloader as upstream
from pipeline.data.downloader import Upstream
from pipeline.data.providers.bundled_provider import FILES, SAMPLE

pytestmark = [
    pytest.mark.xdist_group("libraries"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]
BAD, LARGE = "t10k-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz"
HASHES = {"torchvision": "md5", "tfds": "sha256"}
WAYS = ("folder", "file URL", "http")


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Library:
    """The process of each provider in turn."""
    return library(request.param)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty folder for stages to run in."""
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of the form of MNIST's."""
    made_up_mnist(folder := tmp_path_factory.mktemp("upstream") / "files")
    return folder


@pytest.fixture
def taking(provider: Library, files: Path) -> Iterator[Library]:
    """The process of each provider in turn, which takes `files` for MNIST's."""
    with provider.accepting(files):
        yield provider


@contextmanager
def offered(folder: Path, way: str) -> Iterator[str]:
    """What `data.mirror` is to be."""
    if way == "http":
        with served(folder) as url:
            yield url
    else:
        yield folder.as_uri() if way == "file URL" else str(folder)


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_has(workspace: Path, files: Path) -> None:
    """All four files, and nothing else."""
    assert names_below(workspace) == sorted(f"data/raw/{name}" for name in FILES)
    for name in FILES:
        assert (workspace / "data/raw" / name).read_bytes() == (files / name).read_bytes()
    assert [path.name for path in (workspace / "data").iterdir()] == ["raw"]


# from a mirror, by either library -----------------------------------------------------------------


@needs_mnist_files
@pytest.mark.parametrize("way", WAYS)
def test_a_mirror_delivers_the_official_files(workspace: Path, provider: Library, way: str) -> None:
    folder = workspace.parent / "a mirror, é"
    folder.symlink_to(MNIST_FILES)
    with offered(folder, way) as mirror:
        done = provider.run(workspace, "download", "data=mnist", f"data.mirror='{mirror}'")
    assert done.code == 0, done.errors
    assert_has(workspace, MNIST_FILES)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "tampered": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "missing": lambda content: None,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_by_name_and_the_next_run_is_clean(
    workspace: Path, taking: Library, files: Path, damage: Callable[[bytes], bytes | None]
) -> None:
    folder = workspace.parent / "mirror"
    folder.mkdir()
    for name in set(FILES) - {BAD}:
        (folder / name).symlink_to(files / name)
    official = (files / BAD).read_bytes()
    content = damage(official)
    told = ["No such file", "data.mirror", "data=mnist_sample"]
    if content is not None:
        (folder / BAD).write_bytes(content)
        told = [hashlib.new(HASHES[taking.provider], bytes_).hexdigest() for bytes_ in (official, content)]
    for way in WAYS:
        with offered(folder, way) as mirror:
            done = taking.run(workspace, "download", "data=mnist", f"data.mirror={mirror}")
        assert_refused(done, BAD, mirror, *(["HTTP 404", *told[1:]] if way == "http" and content is None else told))
        assert list((workspace / "data").iterdir()) == []
    assert taking.run(workspace, "download", "data=mnist", f"data.mirror={files}").code == 0
    assert_has(workspace, files)


def test_a_connection_that_ends_too_early_leaves_nothing(workspace: Path, taking: Library, files: Path) -> None:
    asked: list[str] = []
    size = (files / LARGE).stat().st_size
    with served(files, cut=LARGE, asked=asked) as mirror:
        done = taking.run(workspace, "download", "data=mnist", f"data.mirror={mirror}")
    assert_refused(done, f"{mirror}/{LARGE}", f"only {size // 2:,} of {size:,} bytes came")
    assert list((workspace / "data").iterdir()) == []
    assert asked[-1] == LARGE
    assert taking.run(workspace, "download", "data=mnist", f"data.mirror={files}").code == 0
    assert_has(workspace, files)


def wait_for_a_part(workspace: Path) -> None:
    """Until something of a file has come."""
    until = time.monotonic() + 240
    while not any(workspace.rglob("*.part")):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_run_that_is_ended_meanwhile_leaves_nothing(workspace: Path, taking: Library, files: Path) -> None:
    def end() -> None:
        wait_for_a_part(workspace)
        os.kill(taking.pid, signal.SIGTERM)

    thread = threading.Thread(target=end)
    with served(files, stall=LARGE) as mirror:
        thread.start()
        done = taking.run(workspace, "download", "data=mnist", f"data.mirror={mirror}")
        thread.join()
    assert done.code == 143, done.errors
    assert done.seconds < 10
    assert list((workspace / "data").iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL], ids=lambda sent: sent.name)
def test_whatever_ends_a_run_the_next_one_is_clean(workspace: Path, files: Path, sent: signal.Signals) -> None:
    code = f"{ACCEPT['tfds']}accept({str(files)!r})\n"
    code += "import runpy\nrunpy.run_module('pipeline.download', run_name='__main__', alter_sys=True)"
    with served(files, stall=LARGE) as mirror:
        command = ["-c", code, "data=mnist", "data.provider=tfds", f"data.mirror={mirror}"]
        process = subprocess.Popen([sys.executable, *command], cwd=workspace, env=clean_environment())
        wait_for_a_part(workspace)
        process.send_signal(sent)
        assert process.wait(60) == (143 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert bool(list((workspace / "data").iterdir())) == (sent == signal.SIGKILL)
    with library("tfds").accepting(files):
        done = library("tfds").run(workspace, "download", "data=mnist", f"data.mirror={files}")
    assert done.code == 0, done.errors
    assert_has(workspace, files)


def test_files_that_are_not_the_official_ones_are_refused(workspace: Path, provider: Library) -> None:
    assert_refused(provider.run(workspace, "download", "data=mnist", f"data.mirror={SAMPLE}"), "-ubyte.gz")
    assert names_below(workspace) == []


def test_a_failed_download_leaves_the_earlier_files(workspace: Path, taking: Library, files: Path) -> None:
    assert taking.run(workspace, "download", "data=mnist", f"data.mirror={files}").code == 0
    assert_refused(taking.run(workspace, "download", "data=mnist"))
    assert_has(workspace, files)


@pytest.mark.parametrize("mirror", ["/no/such/folder", __file__, "ftp://127.0.0.1/mnist", "http://", "https://["])
def test_a_mirror_that_is_none_is_refused_at_once(workspace: Path, provider: Library, mirror: str) -> None:
    done = provider.run(workspace, "download", "data=mnist", f"data.mirror='{mirror}'")
    assert_refused(done, f"data.mirror = {mirror}: ", "allowed: a folder")
    assert done.seconds < 10
    assert names_below(workspace) == []


@pytest.mark.parametrize("damage", ["changed", "absent"])
def test_prepare_reads_what_was_downloaded_and_nothing_else(
    workspace: Path, taking: Library, files: Path, damage: str
) -> None:
    assert taking.run(workspace, "download", "data=mnist", f"data.mirror={files}").code == 0
    bad = workspace / "data/raw" / BAD
    content = bad.read_bytes()
    bad.unlink()
    if damage == "changed":
        bad.write_bytes(content[:-1])
    done = taking.run(workspace, "prepare", "data=mnist", f"data.mirror={files}")
    assert_refused(done, f"data/raw/{BAD}", "run `dvc repro --force download`")
    if damage == "changed":
        assert hashlib.new(HASHES[taking.provider], content[:-1]).hexdigest() in done.errors
    assert bad.exists() == (damage == "changed")
    assert [path.name for path in (workspace / "data").iterdir()] == ["raw"]


# without a network --------------------------------------------------------------------------------


def test_without_network_and_mirror_it_is_said_what_works(workspace: Path, provider: Library) -> None:
    done = provider.run(workspace, "download", "data=mnist")
    assert_refused(done, "Connection refused", "data.mirror=", "-ubyte.gz", "data=mnist_sample")
    assert done.seconds < 10
    assert names_below(workspace) == []


def test_a_mirror_that_nobody_serves_is_given_up(workspace: Path, provider: Library) -> None:
    mirror = nobody()
    done = provider.run(workspace, "download", "data=mnist", f"data.mirror={mirror}")
    assert_refused(done, f"data.mirror = {mirror}: ", "Connection refused", "data=mnist_sample")
    assert done.seconds < 10
    assert names_below(workspace) == []


def test_a_mirror_that_never_answers_is_given_up(workspace: Path, provider: Library) -> None:
    with answering(None) as mirror:
        done = provider.run(workspace, "download", "data=mnist", f"data.mirror={mirror}")
        assert_refused(done, f"data.mirror = {mirror}: ", "no answer within 4 s", "data=mnist_sample")
        assert done.seconds < 10
    assert names_below(workspace) == []


def test_an_address_that_fails_is_followed_by_the_next(workspace: Path, files: Path) -> None:
    torchvision = library("torchvision")
    own = "from torchvision.datasets import MNIST; MNIST.mirrors, MNIST.own = {}, MNIST.mirrors"
    with served(files, cut=BAD) as bad, served(files) as good, torchvision.accepting(files):
        torchvision.do(own.format([f"{url}/" for url in (nobody(), bad, good)]))
        done = torchvision.run(workspace, "download", "data=mnist")
        torchvision.do(own.format("MNIST.own"))
    assert done.code == 0, done.errors
    assert_has(workspace, files)


# the files themselves -----------------------------------------------------------------------------


def place(folder: Path, url: str = "http://127.0.0.1:9/a", *, checksum: str | None = None, **how: Any) -> bytes:
    """The content of the upstream file `a`, as it comes to a library."""
    Upstream(folder, **how).place(url, folder / "there" / "b", name="a", checksum=checksum)
    return (folder / "there" / "b").read_bytes()


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_is_fetched_once_and_checked_each_time(tmp_path: Path, kind: str) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "a").write_bytes(b"whole")
    checksum = hashlib.new(kind, b"whole").hexdigest()
    assert place(tmp_path, mirror=str(tmp_path / "mirror"), checksum=checksum) == b"whole"
    (tmp_path / "mirror" / "a").unlink()
    assert place(tmp_path, mirror=str(tmp_path / "mirror"), checksum=checksum) == b"whole"
    assert place(tmp_path, sealed=True, checksum=checksum) == b"whole"
    (tmp_path / "a").write_bytes(b"half")
    with pytest.raises(UserError, match=rf"a, which is another file: 4 bytes with the .*, not {checksum}"):
        place(tmp_path, sealed=True, checksum=checksum)


@pytest.mark.parametrize("name", ["", "../a", "a/b", "/a", ".."])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="not the name of an upstream file"):
        Upstream(tmp_path, mirror=str(tmp_path)).place("", tmp_path / "b", name=name, checksum=None)


REPLIES = {
    "not HTTP": b"220 mail.example.org\r\n",
    "nothing": b"",
    "chunks that stop": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "an error": b"HTTP/1.1 503 Busy\r\n\r\n",
    "an endless redirection": b"HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n",
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_server_that_talks_nonsense_is_a_bad_mirror(tmp_path: Path, reply: bytes) -> None:
    with answering(reply) as mirror, pytest.raises(UserError, match=rf"data\.mirror = {mirror}: .*allowed: a folder"):
        place(tmp_path, mirror=mirror)
    assert names_below(tmp_path) == []


def test_a_server_that_falls_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "SILENCE_SECONDS", 0.3)
    with served(SAMPLE, stall=BAD) as mirror, pytest.raises(UserError, match="timed out"):
        Upstream(tmp_path, mirror=mirror).place("", tmp_path / "b", name=BAD, checksum=None)
    assert names_below(tmp_path) == []


def test_a_name_that_no_server_has_is_given_up(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"data\.mirror = http://mirror\.invalid: .*data=mnist_sample"):
        place(tmp_path, mirror="http://mirror.invalid")
    assert time.monotonic() - began < 10


def test_a_network_that_swallows_everything_is_given_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.delenv("no_proxy", raising=False)
    with answering(None) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        began = time.monotonic()
        with pytest.raises(UserError, match=r"example\.org/a: no answer(.|\n)*holds a>(.|\n)*data=mnist_sample"):
            place(tmp_path, "http://example.org/a")
        assert time.monotonic() - began < 2


def test_what_breaks_after_all_has_been_fetched_is_not_put_down_to_the_network(tmp_path: Path) -> None:
    upstream_ = Upstream(tmp_path)
    with served(SAMPLE) as good:
        for url in (nobody(), good):
            with suppress(URLError):
                upstream_.place(f"{url}/{BAD}", tmp_path / "b", name=BAD, checksum=None)
    with (
        pytest.raises(UserError, match=r"^a set: cannot be read: ValueError: not as it was$"),
        upstream_.explained("a set"),
    ):
        raise ValueError("not as\n it was")


def test_credentials_of_a_mirror_are_those_of_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the URL, the configuration, MLflow and DVC would keep them."""
    with pytest.raises(UserError, match=r"data\.mirror: has credentials.*~/\.netrc") as refused:
        compose(["data=mnist", "data.mirror=https://ann:pw-1234@mirror.org/x"])
    assert "pw-1234" not in str(refused.value)
    (tmp_path / "upstream").mkdir()
    (tmp_path / "upstream/a").write_bytes(b"whole")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password pw-1234\n")
    with served(tmp_path / "upstream") as behind, gate(behind, user="ann:pw-1234") as mirror:
        with pytest.raises(UserError, match="HTTP 401"):
            place(tmp_path, mirror=mirror)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert place(tmp_path, mirror=mirror) == b"whole"


def test_a_relative_mirror_is_below_the_root_of_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "a").write_bytes(b"whole")
    for root in (tmp_path, workspace := tmp_path / ".dvc/tmp/exps/one"):  # what makes a folder this project's
        for name in ("conf/config.yaml", "pipeline/core/paths.py"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    monkeypatch.chdir(workspace)
    assert place(tmp_path, mirror="mirror") == b"whole"


def test_without_a_network_nothing_slow_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    unknown = ["a.invalid", "b.invalid"]
    upstream = Upstream(tmp_path)
    upstream.expect(["one.gz", "two.gz"])
    with pytest.raises(UserError, match=r"a\.invalid: (.|\n)*that holds one\.gz, two\.gz>, or data=mnist_sample"):
        upstream.require_any(unknown)
    Upstream(tmp_path).require_any([*unknown, "localhost"])
    Upstream(tmp_path, mirror="/a").require_any(unknown)
    Upstream(tmp_path, sealed=True).require_any(unknown)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    Upstream(tmp_path).require_any(unknown)
