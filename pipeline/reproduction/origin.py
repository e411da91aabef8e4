"""What a run was made from, as it logged it: code, configuration, machine, data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import UserError
from ..data.inventory import INVENTORY
from ..tracking import lookup
from ..tracking.lookup import RunRecord


@dataclass(frozen=True)
class Origin:
    """The origin of the training of some seeds of one configuration."""

    framework: str
    runs: Mapping[int, RunRecord]
    """The run of each seed."""
    commit: str
    tree: str
    """The id of git's tree; empty: a run of an earlier version."""
    diff: bytes
    left_out: tuple[str, ...]
    """Files that the working folder had, and the run did not keep."""
    facts: Mapping[str, Any]
    """`environment.json`."""
    packages: Sequence[str]
    """Lines of `packages.txt`; empty: a run of an earlier version."""
    params: str
    """`params.yaml`; empty: a run of an earlier version, which has `settings` alone."""
    settings: Mapping[str, Any]
    """`config.json`: what defines the result."""
    threads: int | None
    fingerprint: str
    """Of the data."""
    data_md5: str
    """DVC's, of the prepared data; empty: it knew none."""
    data_files: Path | None
    """Digests of a user's own images."""

    @classmethod
    def of(cls, client: Any, runs: Sequence[RunRecord], folder: Path) -> "Origin":
        """Read what the runs of one training logged; copies of artifacts go to `folder`. Raises `UserError`."""
        first = runs[0]

        def text(path: str) -> str:
            found = lookup.artifact(client, first.id, path, folder / first.id)
            return found.read_text(encoding="utf-8") if found else ""

        facts = json.loads(text("environment.json") or "{}")
        settings = json.loads(text("config.json") or "{}")
        if not (facts and settings):
            raise UserError(
                f"{first.name} ({first.id}): logged no environment.json or config.json, as a job whose files were sent "
                "to this store later; its own store has them"
            )
        patch = lookup.artifact(client, first.id, "git.diff", folder / first.id)
        threads = first.tags.get("device.threads", "")
        holder = _list_holder(client, first)
        return cls(
            framework=first.tags["framework"],
            runs={int(run.tags["seed"]): run for run in runs},
            commit=first.tags.get("git.commit", ""),
            tree=first.tags.get("git.tree", ""),
            diff=patch.read_bytes() if patch else b"",
            left_out=tuple(facts.get("git", {}).get("left_out", ())),
            facts=facts,
            packages=text("packages.txt").splitlines(),
            params=text("params.yaml"),
            settings=settings,
            threads=int(threads) if threads.isdigit() else None,
            fingerprint=first.tags.get("data.fingerprint", ""),
            data_md5=_dvc_md5(client, first),
            data_files=lookup.artifact(client, holder, INVENTORY, folder / first.id) if holder else None,
        )

    @property
    def title(self) -> str:
        """The names of its runs."""
        return ", ".join(run.name for run in self.runs.values())

    def params_for(self, composed: str) -> str:
        """Return the `params.yaml` to train under; `composed`: that of the run's `conf/` without overrides."""
        values = yaml.safe_load(self.params or composed)
        if not self.params:  # the sections that decide the result; the others are those of `conf/`
            data = {k: v for k, v in self.settings["data"].items() if k != "fingerprint"}
            values |= {"model": self.settings["model"], "train": dict(self.settings["train"])}
            values["data"] = {**values["data"], **data}
        values |= {"framework": self.framework, "seeds": list(self.runs)}
        if self.threads is not None:  # null is the number of cores, and another number gives other bits
            values["train"]["threads"] = self.threads
        return yaml.safe_dump(values, sort_keys=False)


def _list_holder(client: Any, run: RunRecord) -> str | None:
    """Return the id of the run that has the list of data files: this one, or the group above it."""
    names = {entry.path for entry in client.list_artifacts(run.id)}
    return run.id if INVENTORY in names else run.parent


def _dvc_md5(client: Any, run: RunRecord) -> str:
    for entry in client.get_run(run.id).inputs.dataset_inputs:
        try:
            source = json.loads(entry.dataset.source)
            return str(source.get("tags", source).get("dvc.md5", ""))
        except (ValueError, AttributeError):
            continue
    return ""
