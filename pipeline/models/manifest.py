"""The settings, framework and machine of one arm of a comparison: `manifest.json`."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from ..core.frameworks import find
from ..core.machine import machine, steering_variables
from ..core.records import Record
from .backend import Classifier


class FrameworkFacts(Record):
    """The facts that may differ between two arms."""

    name: str
    versions: dict[str, str]
    """Versions of the framework's packages, by name."""
    execution: str
    """`eager` or `compiled`."""


class MachineFacts(Record):
    """The facts that two arms must share in addition to their settings."""

    cpu: str
    cores: int | None
    """Logical cores."""
    memory_bytes: int
    device: str
    """The GPU's name, or `cpu`."""
    threads: int
    """Host threads that operators may use."""
    python: str
    numpy: str
    variables: dict[str, str] = Field(default_factory=dict)
    """Variables of the environment that may move the bits of a framework."""


class Manifest(Record):
    """The settings of an arm by section, its framework, and its machine."""

    settings: dict[str, Any]
    """Resolved sections of the configuration; arms are compared key by key."""
    framework: FrameworkFacts
    machine: MachineFacts

    @property
    def model(self) -> str:
        """The network's name."""
        return str(self.settings["model"]["name"])

    @property
    def data(self) -> str | None:
        """The data set's name; None in a manifest of an earlier version."""
        return self.settings["data"].get("name")  # type: ignore[no-any-return]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the data."""
        return str(self.settings["data"]["fingerprint"])

    @property
    def world(self) -> int:
        """Number of ranks that trained; 1 in a manifest of an earlier version."""
        return int(self.settings.get("train", {}).get("world", 1))

    @property
    def device_in_words(self) -> str:
        """`2 CPU threads`, or the GPU's name; of several ranks `2 x 1 CPU thread`."""
        here, world = self.machine, self.world
        each = f"{here.threads} CPU thread{'s' * (here.threads != 1)}" if here.device == "cpu" else here.device
        return each if world == 1 else f"{world} x {each}"

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return int(self.settings["parameters"])

    @classmethod
    def of(cls, framework: str, classifier: Classifier, settings: Mapping[str, Any]) -> "Manifest":
        """Return the manifest of a classifier on this machine."""
        here, device = machine(), classifier.device
        versions = {name: here.versions[name] for name in find(framework).packages}
        return cls(
            settings=dict(settings),
            framework=FrameworkFacts(name=framework, versions=versions, execution=classifier.execution),
            machine=MachineFacts(
                cpu=here.cpu,
                cores=here.cores_logical,
                memory_bytes=here.memory_bytes,
                device=device.name,
                threads=device.threads,
                python=here.python,
                numpy=here.versions["numpy"],
                variables=steering_variables(),
            ),
        )
