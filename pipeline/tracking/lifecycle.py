"""Whether a run or a model is in a store. MLflow's UI only marks a run as deleted; `mlflow gc` removes it."""

from typing import Any, Final

MISSING: Final = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's error code for what is not in the store."""


def active_run(client: Any, run_id: str) -> Any | None:
    """Return the run as `MlflowClient.get_run` does; None if it is deleted, or not in the store.

    Raises what MLflow raises.
    """
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def has_model(client: Any, model_id: str) -> bool:
    """Return whether the store has a model of this id that is not deleted. Raises what MLflow raises."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        return False
    return True
