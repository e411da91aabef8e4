"""Whether a run or a model is in a store. MLflow's UI only marks a run as deleted; `mlflow gc` removes it."""

from collections.abc import Callable
from typing import Any, Final

MISSING: Final = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's error code for what is not in the store."""


def active_run(client: Any, run_id: str) -> Any | None:
    """Return the run as `MlflowClient.get_run` does; None if it is deleted, or not in the store.

    Raises what MLflow raises.
    """
    run = _of_store(client.get_run, run_id)
    return run if run and run.info.lifecycle_stage == "active" else None


def has_model(client: Any, model_id: str) -> bool:
    """Return whether the store has a model of this id that is not deleted. Raises what MLflow raises."""
    return _of_store(client.get_logged_model, model_id) is not None


def _of_store(get: Callable[[str], Any], entity_id: str) -> Any | None:
    """Return what MLflow has under an id; None: nothing."""
    from mlflow.exceptions import MlflowException

    try:
        return get(entity_id)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        return None
