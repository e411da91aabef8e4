"""Whether a run or a model is in a store. MLflow's UI only marks a run as deleted; `mlflow gc` removes it."""

from collections.abc import Callable
from typing import Any, Final

MISSING: Final = "RESOURCE_DOES_NOT_EXIST"
"""MLflow's error code for what is not in the store."""
_NO_ALIAS: Final = "INVALID_PARAMETER_VALUE"
"""That for an alias that is not set, or for a name that no model can have."""


def active_run(client: Any, run_id: str) -> Any | None:
    """Return the run as `MlflowClient.get_run` does; None if it is deleted, or not in the store.

    Raises what MLflow raises.
    """
    run = _of_store(client.get_run, run_id)
    return run if run and run.info.lifecycle_stage == "active" else None


def active_model(client: Any, model_id: str) -> Any | None:
    """Return the model of this id; None if it is deleted, or not in the store. Raises what MLflow raises."""
    return _of_store(client.get_logged_model, model_id)


def version_of(ask: Callable[..., Any], *name: str) -> Any | None:
    """Return the version of a registered model; None: there is none. `ask`: a method of `MlflowClient`.

    Raises what MLflow raises.
    """
    return _of_store(ask, *name, absent=(MISSING, _NO_ALIAS))


def _of_store(get: Callable[..., Any], *entity: str, absent: tuple[str, ...] = (MISSING,)) -> Any | None:
    """Return what MLflow has under an id, or a name; None: nothing. `absent`: its error codes that say so."""
    from mlflow.exceptions import MlflowException

    try:
        return get(*entity)
    except MlflowException as error:
        if error.error_code not in absent:
            raise
        return None
