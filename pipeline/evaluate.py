"""Evaluate the trained models of one framework on the whole test split (stages `evaluate@...`).

Reads `results/<framework>/models`, writes predictions, scores and pictures beside them, and adds all of it to the runs
in MLflow that trained them. The key `framework` says which.
"""

import sys
from collections.abc import Sequence

from .config.call import stage
from .config.schema.evaluate import EvaluateConfig
from .config.schema.tracking import TrackingConfig
from .core.paths import PREPARED, RESULTS
from .data.dataset import Dataset
from .evaluation.predictions import evaluate_models
from .models import backend
from .reports.evaluation import Evaluation, publish_evaluation


@stage("evaluate", "framework", "seeds", "evaluate", "tracking", description=__doc__)
def main(*, framework: str, seeds: Sequence[int], evaluate: EvaluateConfig, tracking: TrackingConfig) -> None:
    """Evaluate each seed's model, write, draw, track, print."""
    output, dataset = RESULTS / framework, Dataset.open(PREPARED)
    test = dataset.split("test")
    models = evaluate_models(
        framework,
        seeds,
        lambda seed: backend.load(backend.model_folder(output, seed), framework),
        test,
        evaluate.calibration_bins,
    )
    publish_evaluation(Evaluation(framework, dataset, test.labels, models, evaluate), output, tracking)


if __name__ == "__main__":
    main(sys.argv[1:])
