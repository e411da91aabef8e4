"""Serve the MLflow UI on 127.0.0.1, and print links to its most useful pages.

python -m pipeline.ui [--port N]      `make ui` does the same
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence

from .config.call import parser_of
from .config.compose import compose
from .core.errors import UserError
from .core.exits import command
from .core.paths import PREPARED, main_root
from .core.signals import end_on_signals
from .data.dataset import Dataset
from .tracking import outbox, views
from .tracking.address import whole
from .tracking.reader import StoredRun, described, find_runs
from .tracking.store import artifact_root
from .tracking.tracker import Tracker


@command
def main(arguments: Sequence[str]) -> None:
    """Serve until interrupted. One worker and no job runner: the default server takes 15 processes and 3 GB.

    Raises `UserError` if the port is not free or out of range.
    """
    parser = parser_of("ui", __doc__)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", 5000)), help="default: PORT, else 5000")
    port = parser.parse_args(arguments).port
    root = main_root()
    tracker = Tracker(compose().tracking, root)
    if tracker.uri.startswith("http"):
        print("The store is an MLflow server with its own UI:")
        _print_links(tracker.uri.rstrip("/"), tracker)
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise UserError(f"port = {port}: {error}; choose another, as in `make ui PORT=5001`") from error
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    if artifacts := artifact_root(root, tracker.uri):
        command += ["--default-artifact-root", artifacts]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["MLFLOW_BACKEND_STORE_URI"] = whole(tracker.uri)  # everybody can read a command line
    end_on_signals()
    print("MLflow UI: starting", flush=True)
    # its own process group, so that the processes which the server starts are ended with it
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            if _answers(f"{address}/health", server):
                _print_links(address, tracker)
                print("End it with Ctrl-C.", flush=True)
            code = server.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
    raise SystemExit(code)


def _print_links(server: str, tracker: Tracker) -> None:
    """Print links to pages with results; the first page of the UI shows no numbers and hides the seeds."""
    experiment = tracker.experiment_id
    pages = {
        "Leaderboard": views.view_page(experiment, "leaderboard"),
        "Seeds": views.view_page(experiment, "runs"),
        "Curves": views.view_page(experiment, "curves", charts=True),
        "Models": views.models_page(experiment),
    }
    if comparisons := find_runs(tracker, "tags.stage = 'compare'"):
        pages["Report"] = views.run_page(experiment, comparisons[0].id, "report.html")
    if data := _data_run(tracker):
        pages["Data"] = views.run_page(experiment, data.id, "index.html")
    tags = tracker.client.get_experiment(experiment).tags
    for sweep in find_runs(tracker, "tags.stage = 'sweep'")[:1]:
        key = views.sweep_key(sweep.tags["sweep"])
        if f"{views.TAG}{key}" in tags:  # the view may not exist
            pages["Sweep"] = views.view_page(experiment, key, charts=True)
    if waiting := outbox.find(main_root()):
        print(f"{len(waiting)} journals are not in MLflow; run `python -m pipeline.sync` to send them", flush=True)
    for name, page in pages.items():
        print(f"{name + ':':13}{server}{page}", flush=True)
    ranked = views.leaderboards(experiment, tags)
    for title, page in ranked.items() if len(ranked) > 1 else ():  # of one data set, it is the first link
        print(f"{title}: {server}{page}", flush=True)


def _data_run(tracker: Tracker) -> StoredRun | None:
    """Return the run with the page of the prepared data, else the latest such run; None if there is no such run."""
    with contextlib.suppress(UserError):
        if run := described(tracker, Dataset.open(main_root() / PREPARED).fingerprint):
            return run
    return next(iter(find_runs(tracker, views.DATA)), None)


def _answers(url: str, server: "subprocess.Popen[bytes]") -> bool:
    """Wait until the server answers; return False if it ends first."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy reaches this machine's 127.0.0.1
    while server.poll() is None:
        try:
            with opener.open(url, timeout=2):
                return True
        except OSError:
            time.sleep(0.2)
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
