"""The tags that runs of trainings are searched and grouped by."""

from typing import Any

from ..core import fingerprint, gpus, provenance
from ..core.frameworks import find
from ..core.machine import machine, packages
from ..core.paths import shown
from ..models.backend import Classifier
from ..models.device import choose
from ..tracking.views import LEADERBOARD, SIDE, sweep_tags
from .spec import RunSpec


def tags_of_spec(spec: RunSpec, seed: int | None) -> dict[str, Any]:
    """Return the tags that follow from what is to be trained; `seed` None: those of the group."""
    style = find(spec.framework).style
    in_leaderboard = (seed is None or spec.alone) and not provenance.is_rerun()
    return {
        "stage": "train",
        "framework": spec.framework,
        "seed": seed,
        SIDE: style.title,
        LEADERBOARD: True if in_leaderboard else None,
        "group": spec.key(),
        "pair": spec.pair,
        "config.key": spec.key(seed),
        **(sweep_tags([spec.sweep.id]) if spec.sweep else {}),
        "sweep.job": spec.sweep.job if spec.sweep else None,
        "sweep.key": spec.sweep.key if spec.sweep else None,
        "sweep.values": (spec.sweep.values if spec.sweep else "") or None,
        "data": spec.dataset.name,
        "data.fingerprint": spec.dataset.fingerprint,
        "model": spec.model.name,
        "world": spec.train.world if spec.train.world > 1 else None,
        "deterministic": spec.train.deterministic,
        "mlflow.runColor": style.colour,  # the colour of the figures
    }


def tags_of(spec: RunSpec, classifier: Classifier, seed: int | None) -> dict[str, Any]:
    """Return the tags of a run that trains now, on this machine."""
    here, device = machine(), classifier.device
    tags = {
        **tags_of_spec(spec, seed),
        **provenance.origin(),
        "git.branch": provenance.branch(),
        "folder": shown(spec.output),
        "device": device.type,
        "device.name": device.name if device.type == "gpu" else here.cpu,
        "device.threads": device.threads,
        "command": provenance.command() or None,
        "execution": classifier.execution,
        "python": here.python,
        "code.digest": fingerprint.of_code("train", framework=spec.framework),
        "packages.digest": fingerprint.of_json(packages(), 32),
    }
    if device.type == "gpu" and (card := gpus.used()):
        tags["device.uuid"] = card.uuid
    if reason := choose(spec.train.device, spec.framework).reason:
        tags["device.reason"] = reason
    package = find(spec.framework).packages[0]  # the rest of the machine is in environment.json
    return tags | {f"version.{package}": here.versions.get(package)}
