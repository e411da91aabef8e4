"""The MLflow runs of a revision of git: DVC keeps their ids with the results, as `runs.json`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..core import frameworks, working_tree
from ..core.errors import UserError
from ..core.paths import RESULTS
from ..tracking import lookup
from ..tracking.lookup import Match


class ElsewhereError(UserError):
    """The runs of a revision are in another MLflow store."""

    def __init__(self, revision: str, runs: Mapping[str, Sequence[str]]) -> None:
        listed = ", ".join(each for ids in runs.values() for each in ids)
        super().__init__(
            f"{revision}: its runs ({listed}) are in another MLflow store; set MLFLOW_TRACKING_URI to that one, or "
            "enter its models here: `dvc exp apply` or `git checkout`, then `dvc repro -f -s evaluate@<framework>`"
        )
        self.runs = runs


def find(client: Any, reference: str) -> Match:
    """Return what a reference names, as `lookup.resolve` does, or the runs of a revision of git.

    Raises `ElsewhereError` if those are in another store, `UserError` if it names nothing.
    """
    try:
        return lookup.resolve(client, reference)
    except UserError as error:
        if not reference.strip() or not _is_revision(reference):
            raise
        if not (runs := runs_of(reference)):
            raise UserError(
                f"{reference}: a revision of git whose runs are not in this store, and whose results are not in DVC's "
                "cache: `dvc pull` may bring them, `dvc repro` makes them"
            ) from error
    if found := lookup.entered(client, [each for ids in runs.values() for each in ids]):
        return Match("revision of git", found)
    raise ElsewhereError(reference, runs)


def _is_revision(reference: str) -> bool:
    return working_tree.is_commit(reference) or bool(working_tree.experiment_commits(reference))


def runs_of(revision: str) -> dict[str, list[str]]:
    """Return the ids of the runs of a commit, branch, tag or DVC experiment, by framework; empty: it has none.

    What is not in DVC's cache here is asked of its remotes.
    """
    import dvc.api  # takes a second, and only what MLflow does not know needs it

    found = {}
    for framework in frameworks.names():
        try:
            text = dvc.api.read(str(RESULTS / framework / "runs.json"), rev=revision, encoding="utf-8")
            stored = json.loads(text)
        except Exception:  # of DVC, of its access to git, of a remote: none has the file
            continue
        ids = [stored.get("group"), *(seed["run"] for seed in stored.get("seeds", {}).values())]
        found[framework] = [each for each in ids if each]
    return found
