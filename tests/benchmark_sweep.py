"""Jobs a minute of a sweep: `python tests/benchmark_sweep.py [--jobs 8] [--framework pytorch] [--rounds 1]`.

Each way in turn: a fresh process per job, one at a time (with two threads on two cores); a fork of a warm worker per
job, one at a time; forks, as many at a time as there are cores. Of each job: one epoch of the bundled sample. The
import of the worker is part of the time. Run it in a clone, on a machine that does nothing else.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

WAYS = {
    "fresh, 1 at a time": (("sweep.parallel=1",), {"PIPELINE_WORKERS": "/nonexistent"}),
    "forked, 1 at a time": (("sweep.parallel=1",), {}),
    "forked, at once": (("sweep.parallel=auto",), {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--framework", default="pytorch")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", default=",".join(map(str, range(len(WAYS)))), help="numbers, from 0")
    options = parser.parse_args()
    rates = ",".join(f"{1 + number / 1000:.3f}e-3" for number in range(options.jobs))
    for _ in range(options.rounds):
        for way in map(int, options.ways.split(",")):
            name, (overrides, variables) = list(WAYS.items())[way]
            with tempfile.TemporaryDirectory(dir="multirun") as folder:
                command = [sys.executable, "-m", "pipeline.train", "-m", f"framework={options.framework}", "seeds=[0]"]
                command += ["train.epochs=1", f"train.optimizer.learning_rate={rates}", *overrides]
                command += ["sweep.rerun=true", f"hydra.sweep.dir={folder}/sweep"]
                began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(command, check=True, capture_output=True, env=os.environ | variables)
                seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            print(
                f"{options.framework}, {options.jobs} jobs, {name}: {seconds:.1f} s, {60 * options.jobs / seconds:.1f} "
                f"jobs a minute, {seconds / options.jobs:.2f} s and {used / options.jobs:.2f} CPU seconds a job",
                flush=True,
            )


if __name__ == "__main__":
    main()
