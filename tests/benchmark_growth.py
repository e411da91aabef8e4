"""What earlier work costs a command: `python tests/benchmark_growth.py [--runs 10000] [--journals 1000]`.

Times commands in this clone as it is, then with so many finished runs in the store, as many finished jobs below
`multirun/`, and journals that wait for a later process, all copies of one job that it trains first. Medians of
`--rounds`. For a clone that can be thrown away, on a machine that does nothing else.
"""

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipeline.tracking.journal import Journal

TINY = ("framework=pytorch", "train.epochs=1", "data.max_train=200", "evaluate.plots=false", "seeds=[0]")
COMMANDS = {
    "train": ("pipeline.train", *TINY, "tracking.log_model=false"),
    "train -m, 1 job": ("pipeline.train", "-m", *TINY, "tracking.log_model=false", "sweep.rerun=true"),
    "train -m, done": ("pipeline.train", "-m", *TINY, "hydra.sweep.dir=growth"),
    "sync": ("pipeline.sync",),
    "doctor": ("pipeline.doctor",),
}
TABLES = ("params", "tags", "metrics", "latest_metrics")


def run(arguments: tuple[str, ...]) -> float:
    """Seconds of a command."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", *arguments], check=False, capture_output=True)
    return time.perf_counter() - began


def fill(runs: int, journals: int) -> None:
    """Copy the one job, its runs in the store, and a journal."""
    with contextlib.closing(sqlite3.connect("mlflow.db")) as store, store:
        (first,) = store.execute("select run_uuid from runs order by start_time limit 1").fetchone()
        columns = {
            table: [row[1] for row in store.execute(f"pragma table_info({table})")] for table in ("runs", *TABLES)
        }
        for _ in range(runs):
            name = uuid.uuid4().hex
            for table, names in columns.items():
                listed = ", ".join(names)
                taken = listed.replace("run_uuid", f"'{name}'")
                store.execute(
                    f"insert into {table} ({listed}) select {taken} from {table} where run_uuid = ?", (first,)
                )
    source = Path("multirun/growth/0")
    for number in range(runs):
        target = Path(f"multirun/old{number // 100}/{number % 100}")
        shutil.copytree(source, target, copy_function=os.link)
        done = json.loads((source / "done.json").read_text(encoding="utf-8")) | {"key": uuid.uuid4().hex}
        (target / "done.json").unlink()
        (target / "done.json").write_text(json.dumps(done), encoding="utf-8")
    for number in range(journals):
        journal = Journal.create(Path(), resumable=True)
        journal.append({"event": "begin", "name": f"run {number}", "store": "", "tags": {}, "time": 0})
        for step in range(20):
            journal.append({"event": "metrics", "metrics": [["train/loss", 1.0, 0, step]]})
        journal.append({"event": "end", "status": "FINISHED", "time": 0})
        journal.position.offset = journal.size
        journal.acknowledge()
        journal.close()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--journals", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    run(COMMANDS["train -m, done"])
    found: dict[str, list[float]] = {}
    for when in ("before", "after"):
        if when == "after":
            fill(asked.runs, asked.journals)
        for name, command in COMMANDS.items():
            found.setdefault(name, []).append(statistics.median(run(command) for _ in range(asked.rounds)))
    print(f"{'seconds':20}{'empty':>9}{asked.runs:>9,} runs, {asked.journals:,} journals")
    for name, (before, after) in found.items():
        print(f"{name:20}{before:9.2f}{after:9.2f}{after - before:+9.2f}")


if __name__ == "__main__":
    main()
