"""The MLflow runs of a revision of git: DVC keeps their ids with the results, as `runs.json`."""

import json
from collections.abc import Sequence
from typing import Any

from ..core import frameworks
from ..core.paths import RESULTS
from ..tracking import lookup
from ..tracking.lookup import RunRecord


def runs_of(revision: str) -> dict[str, list[str]]:
    """Return the ids of the runs of a commit, branch, tag or DVC experiment, by framework; empty: it has none.

    What is not in DVC's cache here is asked of its remotes.
    """
    import dvc.api  # takes a second, and only what MLflow does not know needs it
    from dvc.exceptions import DvcException

    found = {}
    for framework in frameworks.names():
        try:
            text = dvc.api.read(str(RESULTS / framework / "runs.json"), rev=revision, encoding="utf-8")
            stored = json.loads(text)
        except (DvcException, OSError, ValueError):
            continue
        ids = [stored.get("group"), *(seed["run"] for seed in stored.get("seeds", {}).values())]
        found[framework] = [each for each in ids if each]
    return found


def restored(client: Any, ids: Sequence[str]) -> list[RunRecord]:
    """Return the runs of this store that have these ids, or that models of such runs were entered as."""
    quoted = ", ".join(f"'{each}'" for each in ids)
    direct = lookup.search(client, f"attributes.run_id IN ({quoted})") if ids else []
    return direct or [run for each in ids for run in lookup.search(client, f"tags.`origin.run` = '{each}'")]
