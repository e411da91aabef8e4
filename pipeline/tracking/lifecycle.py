"""Whether a run is still in a store. MLflow's UI only marks a run as deleted; `mlflow gc` removes it."""

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
