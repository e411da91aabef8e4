"""Train and evaluate one run outside the DVC pipeline, or one job of a sweep, with all files in one folder.

  python -m pipeline.sweeps.job --params <folder>/params.yaml --output <folder>      `pipeline.train` starts this

`job.json` in the folder names the sweep of the job.
"""

import sys
from collections.abc import Sequence
from typing import Final

from ..config.call import parse_call
from ..config.schema.evaluate import EvaluateConfig
from ..core.errors import PrunedError, UserError
from ..core.exits import command
from ..core.files import read_json
from ..core.paths import main_root
from ..core.signals import end_on_signals, end_with_parent
from ..data.cache import obtain
from ..data.dataset import summary
from ..evaluation.predictions import evaluate_models
from ..evaluation.result_files import Evaluation
from ..models import backend
from ..models.backend import Classifier
from ..reports.evaluation import publish_evaluation
from ..search.report import Ended, TrialPart
from ..training.context import TrainingContext, open_training
from ..training.loop import train
from ..training.spec import RunSpec, SweepMembership
from . import cache

_MOST_REMARKED: Final = 5  # names in a remark on the data


@command
def main(arguments: Sequence[str]) -> None:
    """Train, evaluate, mark the job as done, and delete its checkpoints."""
    end_on_signals()
    end_with_parent()
    call = parse_call("sweeps.job", arguments, __doc__, output=True)
    if call.output is None:
        raise UserError("--output: missing; allowed: a folder for the results")
    dataset = obtain(call.config.data, main_root())
    remarks = (remark.sentence(_MOST_REMARKED) for remark in dataset.facts.remarks)
    print("\n".join([summary(dataset.facts), *remarks]), flush=True)
    job = call.output / "job.json"
    sweep = SweepMembership(**read_json(job, "start the sweep again")) if job.exists() else None
    key = cache.key_of(call.config, dataset)
    spec = RunSpec.of(call.config, dataset=dataset, output=call.output, sweep=sweep, snapshot=call.text)
    with open_training(spec) as context:
        if part := TrialPart.read(call.output):
            train_part(context, part)
        else:
            train(context)
            evaluate(context, call.config.evaluate)
            if sweep:
                cache.mark_done(call.output, key, [sweep.id])
        context.complete()


def train_part(context: TrainingContext, part: TrialPart) -> None:
    """Train a part of a search's trial, perhaps not to its end: the test split is for the points that are chosen."""
    try:
        train(context)
        Ended(state="complete", reason="", epochs=part.epochs).write(context.spec.output)
    except PrunedError as ended:
        print(ended, flush=True)


def evaluate(context: TrainingContext, config: EvaluateConfig) -> None:
    """Evaluate every seed with the classifier of the training: it is compiled already, so only weights are loaded."""
    spec = context.spec
    test = spec.dataset.split("test")

    def open_model(seed: int) -> Classifier:
        backend.load_weights(context.classifier, backend.model_folder(spec.output, seed))
        return context.classifier

    models = evaluate_models(spec.framework, spec.seeds, open_model, test, config.calibration_bins)
    publish_evaluation(
        Evaluation(spec.framework, spec.dataset, test.labels, models, config), spec.output, spec.tracking
    )


if __name__ == "__main__":
    main(sys.argv[1:])
