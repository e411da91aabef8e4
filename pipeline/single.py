"""One run outside of the DVC pipeline, or one job of a sweep: trained, then evaluated, all files in one folder.

`python -m pipeline.single --params <folder>/params.yaml --output <folder>`: what `python -m pipeline.train` starts.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from . import finished
from .data.dataset import summary
from .data.obtain import obtain
from .entry import end_on_sigterm, main_root, parse_call, select, user_errors
from .errors import UserError
from .evaluate import judge
from .interruption import end_with_parent
from .job import Job
from .train import SECTIONS, trained


@user_errors
def main(arguments: Sequence[str]) -> None:
    """`job.json` in the folder says of which sweep it is a job."""
    end_on_sigterm()
    end_with_parent()
    call = parse_call("single", arguments)
    config, output = call.config, call.output
    if output is None:
        raise UserError("--output DIR: missing")
    dataset = obtain(config.data, main_root())
    print(summary(dataset.facts), flush=True)
    job_file = output / "job.json"
    sweep: dict[str, Any] = json.loads(job_file.read_text()) if job_file.exists() else {}
    job = Job(**select(config, SECTIONS), dataset=dataset, output=output, sweep=sweep)
    with trained(job):
        judge(output, job.framework, job.seeds, config.evaluate, job.tracking, dataset)
        if sweep:
            finished.mark_done(output, sweep["key"], [sweep["id"]])


if __name__ == "__main__":
    main(sys.argv[1:])
