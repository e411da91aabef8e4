"""Optuna's own pictures of a study, for MLflow."""

from collections.abc import Iterator
from typing import Any

from .study import Study


def pictures(study: Study) -> Iterator[tuple[str, Any]]:
    """Yield names and matplotlib figures: the trials in time, and their accuracy by epoch."""
    from optuna.visualization import matplotlib as drawn

    yield "timeline", drawn.plot_timeline(study.optuna).figure
    epochs = drawn.plot_intermediate_values(study.optuna)
    if legend := epochs.get_legend():  # an entry for each trial
        legend.remove()
    epochs.set(xlabel="epoch of the trial, one framework after another", ylabel="validation accuracy")
    yield "epochs", epochs.figure
