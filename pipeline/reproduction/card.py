"""What is known of a run, in one card: what it was made from, what it gave, and what came after it."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from ..config.compose import compose
from ..core.errors import UserError
from ..core.sentences import first_of
from ..core.working_tree import experiment_commits
from ..tracking import lookup
from ..tracking.lookup import RunRecord
from ..tracking.runs import flatten

_RESULTS: Final = ("validation/accuracy", "test/accuracy", "test/loss", "throughput/train_images_per_second")
_UNSHOWN: Final = ("conf_digest", "framework", "seed", "search", "sweep", "data.fingerprint")
_MOST: Final = 12
_LONGEST: Final = 80  # characters of a value

Row = tuple[str, str]


def rows(client: Any, run: RunRecord, scratch: Path) -> list[Row]:
    """Return the card of a run: titles and texts, in reading order. Copies of artifacts go to `scratch`."""
    found = [*_itself(run), *_code(client, run, scratch), *_data(run), *_configuration(client, run, scratch)]
    return [*found, *_dvc(run), *_sweep(run), *_models(client, run), *_family(client, run), *_after(client, run)]


def _itself(run: RunRecord) -> Iterator[Row]:
    tags, when = run.tags, datetime.datetime.fromtimestamp(run.started / 1000).astimezone()
    yield "run", f"{run.name} ({run.id})"
    yield "status", f"{run.status}, {when:%Y-%m-%d %H:%M:%S %z}" + (f", {tags['error']}" if "error" in tags else "")
    yield "stage", " ".join(filter(None, (tags.get("stage", "unknown"), tags.get("framework", ""))))
    if results := [f"{name} {run.metrics[name]:.6g}" for name in _RESULTS if name in run.metrics]:
        yield "result", ", ".join(results)
    elif "verdict" in tags:
        yield "result", tags["verdict"]
    if folder := tags.get("folder"):
        yield "folder", folder
    if command := tags.get("command"):
        yield "command", command


def _code(client: Any, run: RunRecord, scratch: Path) -> Iterator[Row]:
    tags = run.tags
    if "git.commit" not in tags:
        yield "code", "unknown: it was made without git, or by another program"
        return
    text = f"commit {tags['git.commit']}" + (f" on {tags['git.branch']}" if "git.branch" in tags else "")
    patch = lookup.artifact(client, run.id, "git.diff", scratch / run.id)
    if patch:
        names = sorted({line.split(b" b/", 1)[1].decode(errors="replace") for line in _heads(patch.read_bytes())})
        text += f", with changes of {first_of(names, _MOST)}"
    elif tags.get("git.dirty") == "true":
        text += ", with changes that were not kept"
    yield "code", text
    environment = [f"Python {tags['python']}"] if "python" in tags else []
    environment += [
        f"{name} {tags[f'version.{name}']}" for name in ("tensorflow", "torch") if f"version.{name}" in tags
    ]
    if "device.name" in tags:
        threads = tags.get("device.threads", "?")
        ranks = f"{tags['world']} ranks of " if "world" in tags else ""
        environment.insert(0, f"{tags['device.name']}, {ranks}{threads} thread{'s' * (threads != '1')}")
    if environment:
        yield "machine", ", ".join(environment)


def _heads(diff: bytes) -> list[bytes]:
    return [line for line in diff.splitlines() if line.startswith(b"diff --git ") and b" b/" in line]


def _data(run: RunRecord) -> Iterator[Row]:
    if name := run.tags.get("data"):
        yield "data", f"{name}, fingerprint {run.tags.get('data.fingerprint', 'unknown')}"


def _configuration(client: Any, run: RunRecord, scratch: Path) -> Iterator[Row]:
    """Yield the keys that differ from what `conf/` composes to now."""
    path = lookup.artifact(client, run.id, "params.yaml", scratch / run.id)
    path = path or lookup.artifact(client, run.id, "config.json", scratch / run.id)
    if path is None:
        return
    then = dict(flatten(yaml.safe_load(path.read_text(encoding="utf-8"))))
    try:
        default = dict(flatten(compose().model_dump()))
    except UserError as error:
        yield "differs", f"conf/ cannot be composed: {error}"
        return
    changed = [
        f"{key}={_cut(value)}" for key, value in then.items() if not _unshown(key) and default.get(key, "") != value
    ]
    yield "differs", first_of(changed, _MOST) if changed else "in nothing from conf/ as it is now"


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _unshown(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in _UNSHOWN)


def _dvc(run: RunRecord) -> Iterator[Row]:
    stage, name = run.tags.get("dvc.stage"), run.tags.get("dvc.exp")
    parts = [f"stage {stage}"] if stage else []
    if name:
        commits = experiment_commits(name)
        base = run.tags.get("git.commit", "")[:10]
        where = f"commit {', '.join(each[:10] for each in commits)}" if commits else "not in this clone: `dvc exp pull`"
        parts.append(f"experiment {name} ({where}), on {base}")
    if parts:
        yield "DVC", ", ".join(parts)


def _sweep(run: RunRecord) -> Iterator[Row]:
    if sweep := run.tags.get("sweep"):
        job = f", job {run.tags['sweep.job']}" if "sweep.job" in run.tags else ""
        values = f": {run.tags['sweep.values']}" if "sweep.values" in run.tags else ""
        yield "sweep", f"{sweep}{job}{values}"


def _models(client: Any, run: RunRecord) -> Iterator[Row]:
    for model in lookup.models_of(client, run):
        yield "model", f"{model.name} ({model.model_id})"
    for version in client.search_model_versions(f"run_id='{run.id}'"):
        found = client.get_model_version(version.name, version.version)  # a search leaves the aliases out
        aliases = "".join(f" @{alias}" for alias in found.aliases)
        yield "version", f"{version.name}/{version.version}{aliases}"


def _family(client: Any, run: RunRecord) -> Iterator[Row]:
    if run.parent and (above := lookup.search(client, f"attributes.run_id = '{run.parent}'")):
        yield "above", f"{above[0].name} ({above[0].id})"
    if children := lookup.below(client, run):
        yield "below", first_of([f"{child.name} ({child.id})" for child in reversed(children)], _MOST)
    if others := lookup.compared(client, run):
        yield "compares", first_of([f"{other.name} ({other.id})" for other in others], _MOST)
    for key, title in (("origin.run", "restored from"), ("rerun.of", "rerun of")):
        if other := run.tags.get(key):
            result = f": {run.tags['rerun.result']}" if key == "rerun.of" and "rerun.result" in run.tags else ""
            yield title, f"{other}{result}"


def _after(client: Any, run: RunRecord) -> Iterator[Row]:
    """Yield what was made from this run later."""
    conditions = {
        "rerun by": f"tags.`rerun.of` = '{run.id}'",
        "restored by": f"tags.`origin.run` = '{run.id}'",
        "compared in": f"tags.compared LIKE '%{run.id}%'",
    }
    for title, condition in conditions.items():
        for other in lookup.search(client, condition)[:_MOST]:
            result = f": {other.tags['rerun.result']}" if title == "rerun by" and "rerun.result" in other.tags else ""
            yield title, f"{other.name} ({other.id}){result}"


def of_experiment(name: str, runs: Mapping[str, Sequence[str]]) -> list[Row]:
    """Return the card of a DVC experiment whose runs are in another store. `runs`: their ids, by framework."""
    commits = experiment_commits(name)
    listed = [(framework, ", ".join(ids)) for framework, ids in runs.items()]
    return [("DVC", f"experiment {name} ({', '.join(commits) or 'a revision of git'})"), *listed]
