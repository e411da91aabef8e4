"""Evaluate the trained models of one framework on the test split (stages `evaluate@...`).

Reads `results/<framework>/models`, writes predictions, scores and figures into `results/<framework>`, and adds them to
the MLflow runs of the training. The key `framework` selects the framework.
"""

import sys
from collections.abc import Sequence

from .config.call import stage
from .config.schema.evaluate import EvaluateConfig
from .config.schema.tracking import TrackingConfig
from .core.paths import PREPARED, RESULTS, main_root
from .data.dataset import Dataset
from .evaluation.predictions import evaluate_models
from .evaluation.result_files import Evaluation
from .models import backend
from .reports.evaluation import publish_evaluation
from .tracking.store import ensure_store


@stage("evaluate", "framework", "seeds", "evaluate", "tracking", description=__doc__)
def main(*, framework: str, seeds: Sequence[int], evaluate: EvaluateConfig, tracking: TrackingConfig) -> None:
    """Evaluate the model of each seed; write, draw, log and print the results."""
    ensure_store(main_root())  # before the work
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
