"""Where the time of `dvc repro` goes: `python tests/benchmark_stages.py [STAGE ...]`, in a clone that has its results.

Runs the command of every stage (or of those named) once, in the order of `dvc.yaml`. Prints how long its process
took, and of that in the main thread: imports, and tracking with MLflow. The rest is work. DVC's own time, hashes and
copies into its cache, is the time of `dvc repro` less the sum. Run it on a machine that does nothing else.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HOOKS = """
import atexit, builtins, functools, json, os, sys, threading, time

real, depth, spent, main = builtins.__import__, {"imports": 0, "tracking": 0}, {}, threading.main_thread()

def timed(kind, function):
    @functools.wraps(function)
    def call(*arguments, **named):
        if threading.current_thread() is not main or any(depth.values()):
            return function(*arguments, **named)
        depth[kind], began = 1, time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            depth[kind] = 0
            spent[kind] = spent.get(kind, 0.0) + time.perf_counter() - began
    return call

def importing(name, *arguments, **named):
    found = outermost(name, *arguments, **named)
    module = sys.modules.get("pipeline.tracking.runs")
    tracker = sys.modules.get("pipeline.tracking.tracker")
    if tracker is not None and hasattr(tracker, "Tracker") and not depth["imports"]:
        builtins.__import__ = outermost
        for each in (module.Run, tracker.Tracker):
            for attribute, value in list(vars(each).items()):
                if callable(value) and not isinstance(value, type) and not attribute.startswith("__"):
                    setattr(each, attribute, timed("tracking", value))
    return found

outermost = timed("imports", real)
builtins.__import__ = importing
atexit.register(lambda: open(os.environ["BENCHMARK_STAGES"], "w").write(json.dumps(spent)))
"""


def stages() -> Iterator[tuple[str, list[str]]]:
    """Name and command of every stage."""
    described: dict[str, Any] = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    frameworks = described["vars"][0]["frameworks"]
    for name, stage in described["stages"].items():
        for item in frameworks if "matrix" in stage else [""]:
            command = stage["cmd"].replace("${item.framework}", item).removeprefix("exec ").split()
            yield f"{name}@{item}" if item else name, command


def main() -> None:
    asked, total = sys.argv[1:], dict.fromkeys(("seconds", "imports", "tracking", "work"), 0.0)
    print(f"{'stage':24}{'seconds':>9}{'imports':>9}{'tracking':>9}{'work':>9}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(HOOKS, encoding="utf-8")
        found = Path(folder, "spent.json")
        for name, command in stages():
            if asked and name not in asked and name.split("@")[0] not in asked:
                continue
            found.unlink(missing_ok=True)
            variables = {"PYTHONPATH": folder, "BENCHMARK_STAGES": str(found), "PIPELINE_WORKERS": "/nonexistent"}
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *command[1:]], env=os.environ | variables, capture_output=True, text=True, check=False
            )
            row = {"seconds": time.perf_counter() - began}
            if done.returncode:
                sys.exit(f"{name} ended with code {done.returncode}: {re.sub(r'[^ -~]+', ' ', done.stderr)[-500:]}")
            row |= {"imports": 0.0, "tracking": 0.0} | json.loads(found.read_text(encoding="utf-8"))
            row["work"] = row["seconds"] - row["imports"] - row["tracking"]
            total = {key: total[key] + row[key] for key in total}
            print(f"{name:24}" + "".join(f"{row[key]:9.2f}" for key in total), flush=True)
    print(f"{'all':24}" + "".join(f"{value:9.2f}" for value in total.values()))


if __name__ == "__main__":
    main()
