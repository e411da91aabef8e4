"""Train one configuration again as a run was trained, evaluate it, and compare the two."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ..core.errors import ResultError, UserError
from ..core.exits import MISTAKE
from ..core.files import write_text
from ..core.provenance import RERUN
from ..core.sentences import first_of
from ..sweeps import workers
from ..tracking import lookup
from ..tracking.journal import is_local
from ..tracking.lookup import RunRecord
from ..tracking.references import RunReferences
from ..tracking.runs import flatten
from ..tracking.tracker import Tracker
from ..tracking.views import LEADERBOARD
from . import environment, restored_data, workspace
from .evidence import Equality, Evidence, compare
from .origin import Origin
from .workspace import Code

SAME: Final = "same bits"
_MOST: Final = 5  # names in a sentence
_NOT_OF_A_RERUN: Final = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "PIPELINE_COMMAND", "MLFLOW_RUN_ID")


@dataclass(frozen=True)
class Outcome:
    """What came of one seed."""

    run: RunRecord
    again: str
    """Id of the new run; empty: there is none."""
    equality: Equality | None
    """None: the training did not come to an end."""
    causes: tuple[str, ...]
    """What is known to differ from then, in the order of its effect: code, environment, data, settings."""

    @property
    def same(self) -> bool:
        """Whether the two are the same, bit for bit."""
        return self.equality is not None and self.equality.same

    @property
    def sentence(self) -> str:
        """`same bits`, or the first thing that differs: a cause if one is known, with the first number that differs."""
        if self.equality is None:
            return "differs: " + "; ".join((*self.causes, "the training did not come to an end"))
        if self.same:
            return f"{SAME}: {', '.join(self.equality.compared)}" + (
                f" (although {'; '.join(self.causes)})" if self.causes else ""
            )
        if not self.equality.difference:
            return f"cannot be told: the run has no {' and no '.join(self.equality.missing)} to compare with"
        return "differs: " + "; ".join((*self.causes, self.equality.difference))


@dataclass(frozen=True)
class Rerun:
    """How the reruns of one call are made."""

    tracker: Tracker
    root: Path
    scratch: Path
    overrides: tuple[str, ...] = ()
    """Changes of the run's configuration."""
    code: Code | None = None
    """The code to train with; None: that of the run."""
    keep: bool = False
    """Whether the restored folder stays."""

    def repeat(self, origin: Origin) -> list[Outcome]:
        """Train the seeds of one configuration again. Raises `UserError` if code or data cannot be restored."""
        self._require_restorable(origin)
        code = self.code or Code(origin.commit, origin.diff, origin.tree)
        with workspace.restored(self.root, code.commit, code.diff, keep=self.keep) as place:
            causes = [*self._of_code(origin, place), *environment.differences(origin.facts, origin.packages)]
            print(
                f"code: commit {code.commit[:10] or 'none'}{' and changes' * bool(code.diff)}, tree {place.tree[:10]}"
            )
            variables = self._variables(origin)
            self._write_params(origin, place.folder, variables)
            causes += self._data(origin, place.folder, variables)
            causes += [f"settings: {override}" for override in self.overrides if _changes(override, origin.params)]
            print(*(f"not as then: {cause}" for cause in causes), sep="\n", end="\n" * bool(causes), flush=True)
            complete = self._run(origin, place.folder, variables, "train") and self._run(
                origin, place.folder, variables, "evaluate"
            )
            if self.keep:
                print(f"kept: {place.folder}")
            return self._outcomes(origin, place.folder, tuple(causes), complete=complete)

    def _require_restorable(self, origin: Origin) -> None:
        if not (origin.commit or origin.diff or self.code):
            why = origin.facts.get("git", {}).get("missing", "made without git")
            raise UserError(
                f"{origin.title}: has no git.commit ({why}), so its code cannot be restored; --here trains with the "
                "code of this folder"
            )

    def _of_code(self, origin: Origin, place: workspace.Workspace) -> list[str]:
        """Return how the code differs from the run's."""
        lost = [f"not kept with the run: {', '.join(origin.left_out)}"] if origin.left_out else []
        if not origin.tree:
            return [*lost, "code: the run logged no git.tree, so that of its commit is taken as it is"]
        if place.tree == origin.tree:
            return lost
        names = workspace.changed_files(place.folder, Code(origin.commit, origin.diff, origin.tree), self.root)
        which = f": {first_of(names, _MOST)}" if names else f": tree {origin.tree[:10]} then, {place.tree[:10]}"
        return [f"code{which}", *lost]

    def _variables(self, origin: Origin) -> dict[str, str]:
        """Return the environment of its commands: this one's, with the variables that move bits as they were."""
        chosen = {k: v for k, v in os.environ.items() if k not in _NOT_OF_A_RERUN}
        for name, value in environment.variables(origin.facts).items():
            chosen.pop(name, None)
            if value is not None:
                chosen[name] = value
            print(f"variable {name}: {'as then, ' + value if value is not None else 'unset, as then'}")
        # as within `dvc exp run --temp`: store, journals and checkpoints are those of the main folder
        return chosen | {"DVC_ROOT": str(self.root), "DVC_STAGE": RERUN}

    def _write_params(self, origin: Origin, folder: Path, variables: dict[str, str]) -> None:
        composed = ""
        if not origin.params:
            command = [sys.executable, "-m", "pipeline.config"]
            if subprocess.run(command, cwd=folder, env=variables, stdout=subprocess.DEVNULL).returncode:
                raise ResultError("code: the conf/ of the run's commit cannot be composed")
            composed = (folder / "params.yaml").read_text(encoding="utf-8")
        write_text(folder / "params.yaml", origin.params_for(composed))

    def _data(self, origin: Origin, folder: Path, variables: dict[str, str]) -> list[str]:
        """Restore the data; return how they differ."""
        changes = [each for each in self.overrides if each.lstrip("+").startswith(("data.", "data="))]
        prepare = restored_data.prepare_with(folder, sys.executable, variables, list(self.overrides))
        if changes:
            prepare()
            source = "prepared anew"
        else:
            source = restored_data.restore(self.root, folder, origin.fingerprint, origin.data_md5, prepare)
        now = restored_data.fingerprint_in(folder)
        if now == origin.fingerprint:
            print(f"data: {origin.fingerprint[:8]} from {source}")
            return []
        files = restored_data.changed_files(origin.data_files, folder)
        return [f"data: fingerprint {origin.fingerprint[:8]} then, {now[:8]} now{f' ({files})' if files else ''}"]

    def _run(self, origin: Origin, folder: Path, variables: dict[str, str], stage: str) -> bool:
        overrides = [each for each in self.overrides if not each.startswith("seeds=")]
        arguments = ["--params", "params.yaml", f"framework={origin.framework}", *overrides]
        command = workers.command(origin.framework, f"pipeline.{stage}", *arguments)
        done = subprocess.run(command, cwd=folder, env=variables)
        if done.returncode in (130, 143, -2, -15):
            raise KeyboardInterrupt
        if done.returncode == MISTAKE and overrides:
            raise UserError(f"{', '.join(overrides)}: refused by the code of the run, as it says above")
        return done.returncode == 0

    def _outcomes(self, origin: Origin, folder: Path, causes: tuple[str, ...], *, complete: bool) -> list[Outcome]:
        if not complete:
            return [Outcome(run, "", None, causes) for run in origin.runs.values()]
        client = self.tracker.client
        references = RunReferences.read(folder / "results" / origin.framework / "runs.json", "train it again")
        if waiting := [run for run in references.runs if is_local(run)]:
            raise ResultError(
                f"MLflow does not have {len(waiting)} of the new runs yet; `python -m pipeline.sync` sends them, then "
                "run this again"
            )
        if references.group:
            self._mark_group(references.group, origin)
        outcomes = []
        for seed, run in origin.runs.items():
            again = RunRecord.of(client.get_run(references.seeds[seed].run))
            then, now = (Evidence.of(client, each, self.scratch) for each in (run, again))
            found = (*causes, *_of_runs(run, again))
            outcomes.append(outcome := Outcome(run, again.id, compare(then, now), found))
            self._mark(outcome)
        return outcomes

    def _mark_group(self, group: str, origin: Origin) -> None:
        """Take the new group out of the leaderboard, where it would be a second row of the same training."""
        self.tracker.add_tags(
            group, {LEADERBOARD: "false", "mlflow.runName": f"rerun of {origin.title}"[:250], "stage": RERUN}
        )

    def _mark(self, outcome: Outcome) -> None:
        """Tag both runs with the result."""
        result = SAME if outcome.same else outcome.sentence
        name = f"rerun of {outcome.run.name}"[:250]
        again = {"rerun.of": outcome.run.id, "rerun.result": result, LEADERBOARD: "false", "mlflow.runName": name}
        self.tracker.add_tags(outcome.again, again)
        self.tracker.add_tags(outcome.run.id, {"rerun.by": outcome.again, "rerun.result": result})


def trainings(runs: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Group runs of single seeds, newest first, by the training that they can be repeated in; of a seed, the newest.

    Raises `UserError` for a run that did not come to an end.
    """
    found: dict[tuple[str, ...], dict[int, RunRecord]] = {}
    for run in runs:
        assert run.seed is not None
        names = ("framework", "group", "git.commit", "git.tree", "device.threads", "data.fingerprint")
        found.setdefault(tuple(run.tags.get(name, "") for name in names), {}).setdefault(run.seed, run)
    chosen = [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in found.values()]
    for run in (run for group in chosen for run in group):
        ended = run.tags.get("search.state", "complete")
        if run.status != "FINISHED" or ended != "complete":
            state = run.status if run.status != "FINISHED" else ended
            raise UserError(f"{run.name} ({run.id}): is {state}; only a finished training can be compared")
    return chosen


def _changes(override: str, params: str) -> bool:
    """Return whether an override is other than what the run's configuration says; `params`: as YAML, maybe empty."""
    key, _, value = override.lstrip("+").partition("=")
    then = dict(flatten(yaml.safe_load(params) or {}))
    return key not in then or str(then[key]) != str(yaml.safe_load(value))


def _of_runs(then: RunRecord, now: RunRecord) -> list[str]:
    """Return what the tags of the two say that differs of the device, and of the way to compute."""
    names = ("device", "device.name", "device.threads", "execution", "deterministic")
    return [
        f"{name}: {then.tags[name]} then, {now.tags.get(name)} now"
        for name in names
        if name in then.tags and then.tags[name] != now.tags.get(name)
    ]


def seeds_to_repeat(client: Any, match: lookup.Match, reference: str) -> list[RunRecord]:
    """Return the runs of single seeds that a reference names. Raises `UserError` if it names none."""
    seeds = lookup.seeds_of(client, match.runs)
    if seeds:
        return [seed for seed in seeds if seed.tags.get("dvc.stage") != RERUN] or seeds
    stages = sorted({run.tags.get("stage", "unknown") for run in match.runs})
    raise UserError(
        f"{reference}: {match.kind} of the stage {', '.join(stages)}, with no training below it; allowed: a run of the "
        "stage train, or one above such runs"
    )
