"""`make ui`: a real server, a real answer, and nothing left when it ends."""

import os
import signal
import socket
import urllib.request
from pathlib import Path

import psutil
import pytest
from project_copy import clone_project, run_module, start
from servers import nobody

pytestmark = pytest.mark.xdist_group("train")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_project(tmp_path_factory.mktemp("ui") / "project")


def test_a_port_that_is_taken_is_refused(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_module(project, "pipeline.ui", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "choose another" in done.stderr


def test_it_serves_what_it_prints_and_leaves_no_process(project: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with start(project, "pipeline.ui", "--port", str(port), cold=True, http_proxy=nobody()) as ui:  # none for itself
        assert ui.stdout is not None
        link = next(line.split()[1] for line in ui.stdout if line.startswith("Leaderboard:"))
        with urllib.request.urlopen(link.split("#")[0], timeout=30) as page:
            assert b"MLflow" in page.read()
        children = psutil.Process(ui.pid).children(recursive=True)
        assert children
        assert not [word for child in children for word in child.cmdline() if "://" in word and "sqlite" in word]
        listening = [c.laddr.ip for child in children for c in child.net_connections("tcp") if c.status == "LISTEN"]
        assert set(listening) == {"127.0.0.1"}
        os.kill(ui.pid, signal.SIGTERM)
        ui.wait(30)
    assert ui.returncode == 143
    assert not psutil.wait_procs(children, timeout=20)[1]
