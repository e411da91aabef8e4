"""What several files of tests stand on."""

import contextlib
import json
import logging.config
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from project_copy import SHARED, clean_environment, clone_project, once, run

from pipeline.core import frameworks
from pipeline.sweeps import workers
from pipeline.tracking.store import ensure_store

_OPEN = contextlib.ExitStack()
_DURATIONS = Path(__file__).with_name("durations.json")
_SKIPS = Path(__file__).with_name("skips.txt")
_seconds: dict[str, float] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--keep-durations`: see `pytest_sessionfinish`."""
    parser.addoption("--keep-durations", action="store_true", help=f"write how long each test took to {_DURATIONS}")


def pytest_configure(config: pytest.Config) -> None:
    """Warm workers and a folder for all processes of this run."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if not hasattr(config, "workerinput"):
        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
            if signal.getsignal(number) is signal.SIG_IGN:  # in the background, or under `nohup`: tests send them
                signal.signal(number, handler)
        os.environ[SHARED] = _OPEN.enter_context(
            tempfile.TemporaryDirectory(prefix="tests-", ignore_cleanup_errors=True)
        )
        _OPEN.enter_context(workers.available(clean_environment(warm=False)))


@pytest.fixture(autouse=True, scope="session")
def _streams_stay_open() -> Iterator[None]:
    """Hydra configures logging, and so closes all handlers: TensorFlow's closes the stream that pytest captures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("logging.config._clearExistingHandlers", lambda: None)
        yield


@pytest.fixture(autouse=True)
def _no_hydra_is_left() -> Iterator[None]:
    """An application in process leaves its Hydra behind if it is interrupted, and another refuses to begin.

    Each leaves its handlers of logs, which go on to write to streams that pytest has closed.
    """
    before = [*logging.root.handlers]
    yield
    for handler in [*logging.root.handlers]:
        if handler not in before and type(handler) in (logging.StreamHandler, logging.FileHandler):
            logging.root.removeHandler(handler)
    if module := sys.modules.get("hydra.core.global_hydra"):
        module.GlobalHydra.instance().clear()


def pytest_unconfigure() -> None:
    """End them."""
    _OPEN.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which commands could not be warm, and why: each costs ten seconds."""
    log = Path(os.environ[workers.VARIABLE]) / "log"  # not there where somebody else keeps them
    said = log.read_text().splitlines() if log.exists() else []
    fresh = Counter(line for line in said if "as a fresh process" in line and not line.startswith("probe:"))
    for line, count in fresh.items():
        terminalreporter.write_line(f"{count} x {line}")


def _scope(item: pytest.Item) -> str:
    """What runs in one process: a test, or a group of them."""
    group = item.get_closest_marker("xdist_group")
    return group.args[0] if group else _name(item.nodeid)


def _name(nodeid: str) -> str:
    return nodeid.rpartition("@")[0] if "@" in nodeid.rpartition("]")[2] else nodeid


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that the workers finish together; in the order of the files where nobody knows."""
    known = json.loads(_DURATIONS.read_text()) if _DURATIONS.exists() else {}
    seconds: Counter[str] = Counter()
    for item in items:
        seconds[_scope(item)] += known.get(_name(item.nodeid), 0)
    items.sort(key=lambda item: -seconds[_scope(item)])


def pytest_collection_finish(session: pytest.Session) -> None:
    """In one process for both frameworks, as without `-n`, PyTorch's compiler crashes if TensorFlow comes first."""
    if {"tensorflow", "pytorch"} <= {_scope(item) for item in session.items} and not (
        hasattr(session.config, "workerinput") or session.config.getoption("numprocesses", None)
    ):
        import torch._inductor  # noqa: F401


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a test that is skipped has failed, unless `skips.txt` says why it may be."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report, _name(item.nodeid))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a whole module, whose import skips it (`importorskip`, `skip(allow_module_level=True)`)."""
    report = yield
    _refuse_skip(report, collector.nodeid)
    return report


def _refuse_skip(report: Any, name: str) -> None:
    if not (report.skipped and os.environ.get("CI")):
        return
    allowed = [line.split(": ")[0] for line in _SKIPS.read_text().splitlines() if not line.startswith("#")]
    if not any(fnmatch(name, pattern) for pattern in allowed):
        report.outcome, report.longrepr = "failed", f"skipped, which {_SKIPS} does not allow: {report.longrepr[2]}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up set-up, test and tear-down."""
    _seconds[_name(report.nodeid)] = _seconds.get(_name(report.nodeid), 0) + report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep how long each test took, where that was asked for."""
    if session.config.getoption("--keep-durations") and not hasattr(session.config, "workerinput"):
        kept = {name: round(seconds, 1) for name, seconds in sorted(_seconds.items()) if seconds >= 0.1}
        _DURATIONS.write_text(json.dumps(kept, indent=0) + "\n")


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in frameworks.names()])
def framework(request: pytest.FixtureRequest) -> str:
    """Each framework in turn, and all tests of one framework in one process."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_store_of_another_test() -> Iterator[None]:
    """MLflow itself sets the variable; also before what a whole module shares is made."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A project of this module's own that `dvc repro` has run in, and what that said on its two streams."""
    folder, copy = once("finished", _finish), tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(folder / "project", copy, symlinks=True)
    ensure_store(copy, f"sqlite:///{copy / 'mlflow.db'}")  # which holds absolute paths
    return copy, (folder / "stdout").read_text(), (folder / "stderr").read_text()


def _finish(folder: Path) -> None:
    done = run(clone_project(folder / "project"), "dvc", "repro")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
