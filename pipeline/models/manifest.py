"""What an arm of a comparison was asked, and on what it was done: `manifest.json`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..core.frameworks import find
from ..core.machine import machine
from .backend import Classifier


class FrameworkFacts(BaseModel):
    """What is an arm's own."""

    model_config = ConfigDict(frozen=True)

    name: str
    versions: dict[str, str]
    execution: str
    """`eager` or `compiled`."""


class MachineFacts(BaseModel):
    """What two arms must have in common beside their settings."""

    model_config = ConfigDict(frozen=True)

    cpu: str
    cores: int | None
    memory_bytes: int
    device: str
    """The GPU's name, or `cpu`."""
    threads: int
    python: str
    numpy: str

    @property
    def device_in_words(self) -> str:
        """`2 CPU threads`, or the GPU's name."""
        return f"{self.threads} CPU threads" if self.device == "cpu" else self.device


class Manifest(BaseModel):
    """What an arm was asked (`settings`, by section), and on what it was done."""

    model_config = ConfigDict(frozen=True)

    settings: dict[str, Any]
    """The sections of the configuration as they were resolved: compared key by key, whatever their keys are."""
    framework: FrameworkFacts
    machine: MachineFacts

    @property
    def model(self) -> str:
        """The network's name."""
        return str(self.settings["model"]["name"])

    @property
    def data(self) -> str | None:
        """The data set's name; None of an earlier version."""
        return self.settings["data"].get("name")  # type: ignore[no-any-return]

    @property
    def fingerprint(self) -> str:
        """Of the data."""
        return str(self.settings["data"]["fingerprint"])

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return int(self.settings["parameters"])

    @classmethod
    def of(cls, framework: str, classifier: Classifier, settings: Mapping[str, Any]) -> "Manifest":
        """Describe a classifier on this machine."""
        here, device = machine(), classifier.device
        own = {name: here.versions[name] for name in find(framework).packages}
        return cls(
            settings=dict(settings),
            framework=FrameworkFacts(name=framework, versions=own, execution=classifier.execution),
            machine=MachineFacts(
                cpu=here.cpu,
                cores=here.cores_logical,
                memory_bytes=here.memory_bytes,
                device=device.name,
                threads=device.threads,
                python=here.python,
                numpy=here.versions["numpy"],
            ),
        )
