"""MLflow's model registry: versions of one model, each an ONNX file, and the aliases that say which one serves."""

import io
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..core.errors import UserError
from . import lookup, mlflow_compat
from .lifecycle import active_run, version_of

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
PREVIOUS: Final = "previous"
DIGEST: Final = "weights.digest"
"""Tag of a version, and of its model, that says which weights it has."""
FILE: Final = "model.onnx"


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: str
    run: str
    """Id of the run that trained it."""
    source: str
    """URI of its model: `models:/m-...`."""
    tags: Mapping[str, str]
    aliases: tuple[str, ...]

    @classmethod
    def of(cls, version: Any) -> "Version":
        """Create it from a version of MLflow's client."""
        name, number, tags = version.name, str(version.version), dict(version.tags)
        return cls(name, number, version.run_id or "", version.source, tags, tuple(version.aliases))

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"


def by_alias(client: Any, name: str, alias: str) -> Version | None:
    """Return the version that has this alias; None: there is none. Raises what MLflow raises."""
    found = version_of(client.get_model_version_by_alias, name, alias)
    return Version.of(found) if found else None


def named(client: Any, reference: str) -> Version:
    """Return the version that `<name>@<alias>` or `<name>/<version>` names. Raises `UserError`."""
    text = reference.removeprefix("models:/")
    name, at, alias = text.rpartition("@")
    if at and name and (found := by_alias(client, name, alias)):
        return found
    name, slash, number = text.rpartition("/")
    if slash and name and number.isdigit() and (version := version_of(client.get_model_version, name, number)):
        return Version.of(version)
    there = [f"{model.name}@{alias}" for model in client.search_registered_models() for alias in sorted(model.aliases)]
    raise UserError(
        f"{reference}: no such version in the registry; allowed: <name>@<alias>, <name>/<version>, an ONNX file; there "
        f"are: {', '.join(there) or 'none, `python -m pipeline.promote` makes the first'}"
    )


def with_weights(client: Any, name: str, digest: str) -> Version | None:
    """Return the version of these weights; None: they are not registered under this name."""
    quoted = name.replace("'", "")
    versions = [Version.of(version) for version in client.search_model_versions(f"name='{quoted}'")]
    return next((version for version in versions if version.tags.get(DIGEST) == digest), None)


def register(client: Any, model_id: str, name: str, tags: Mapping[str, str], description: str) -> Version:
    """Register a model as a new version. Raises `UserError` for a name that MLflow does not take."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        # the client's own function would leave the model's page saying that it is not registered
        with redirect_stderr(io.StringIO()):  # it says that it has done so
            made = mlflow.register_model(f"models:/{model_id}", name, tags=dict(tags))
    except MlflowException as error:
        raise UserError(f"--name {name}: MLflow does not take it: {error.message}") from error
    client.update_model_version(name, made.version, description=description)
    return Version.of(client.get_model_version(name, made.version))


def move_aliases(client: Any, version: Version, before: Version | None) -> None:
    """Make a version the champion, and the champion before it the previous one."""
    if before and before.number != version.number:
        client.set_registered_model_alias(version.name, PREVIOUS, before.number)
    client.set_registered_model_alias(version.name, CHAMPION, version.number)
    if (challenger := by_alias(client, version.name, CHALLENGER)) and challenger.number == version.number:
        client.delete_registered_model_alias(version.name, CHALLENGER)


def challenge(client: Any, version: Version) -> None:
    """Make a version the challenger."""
    client.set_registered_model_alias(version.name, CHALLENGER, version.number)


def log_onnx(
    client: Any, run_id: str, name: str, content: bytes, tags: Mapping[str, str], metrics: Mapping[str, float]
) -> str:
    """Store an ONNX file as a model of a run; return the model's id. One that the run has already is not stored again.

    The flavour is `mlflow.onnx`, with the file byte for byte as it is. `metrics`: of the run's data set.
    """
    import mlflow.onnx
    import onnx
    from mlflow.entities import LoggedModelOutput, Metric

    run = client.get_run(run_id)
    for model in lookup.models_of(client, lookup.RunRecord.of(run)):
        if model.name == name and model.tags.get(DIGEST) == tags[DIGEST]:
            return str(model.model_id)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(scratch) / "model"
        mlflow.onnx.save_model(
            onnx.load_from_string(content),
            str(folder),
            signature=_signature(content),
            save_as_external_data=False,
            pip_requirements=mlflow.onnx.get_default_pip_requirements(),
        )
        (folder / FILE).write_bytes(content)
        shown = mlflow_compat.model_tags(run, tags)
        model = client.create_logged_model(
            run.info.experiment_id, name, run_id, tags=shown, params=dict(run.data.params)
        )
        mlflow_compat.assign_model(folder, model, run_id)
        client.log_model_artifacts(model.model_id, str(folder))
    step = max((point[1] for point in mlflow_compat.latest_points(run)), default=0)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    data, fingerprint = run.data.tags.get("data"), run.data.tags.get("data.fingerprint")
    points = [
        Metric(key, value, run.info.end_time or 0, 0, model.model_id, data, fingerprint, run_id)
        for key, value in metrics.items()
    ]
    client.log_batch(run_id, metrics=points)
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def _signature(content: bytes) -> Any:
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph = onnx.load_from_string(content).graph

    def spec(value: Any, dtype: Any) -> TensorSpec:
        sizes = [dimension.dim_value or -1 for dimension in value.type.tensor_type.shape.dim]
        return TensorSpec(np.dtype(dtype), tuple(sizes), value.name)

    outputs = [spec(value, np.float32) for value in graph.output]
    return ModelSignature(Schema([spec(graph.input[0], np.uint8)]), Schema(outputs))


def onnx_of(version: Version, folder: Path) -> Path:
    """Copy the model of a version into the folder; return its ONNX file. Raises `UserError` if it has none."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        # by its id: by the version, MLflow would write into the stored model
        stored = Path(mlflow.artifacts.download_artifacts(version.source, dst_path=str(folder / version.number)))
    except (MlflowException, OSError) as error:
        raise UserError(f"{version}: its files cannot be read: {error}") from error
    found = next(iter(sorted(stored.rglob(FILE))), None)
    if found is None:
        raise UserError(f"{version}: has no {FILE}; only versions that pipeline.promote has made can be served")
    return found


def trained(client: Any, run_id: str) -> lookup.RunRecord:
    """Return the run of this id. Raises `UserError` if the store has none."""
    run = active_run(client, run_id)
    if run is None:
        raise UserError(f"run {run_id}: is not in this store, or deleted")
    return lookup.RunRecord.of(run)
