"""Hundreds of bad overrides: always one message, exit code 2, and nothing begun.

`BAD=2000 pytest tests/test_bad_config.py`: that many.
"""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project_copy import clone_project

from pipeline import train
from pipeline.config.compose import compose_job

KEYS = sorted(
    {
        "framework", "seeds", "model", "data", "train/optimizer", "train/schedule", "experiment", "train", "tracking",
        "model.layers", "model.layers[0].filters", "model.normalise", "data.provider", "data.name", "data.mirror",
        "data.max_train", "data.split_seed", "data.root", "data.classes", "data.max_megapixels", "train.epochs",
        "train.batch_size", "train.optimizer.learning_rate",
        "train.optimizer.beta_1", "train.precision", "train.execution", "train.augment.flip", "train.augment.crop",
        "train.clip_norm", "train.label_smoothing", "train.checkpoint_minutes", "train.memory_mebibytes",
        "compare.margin.accuracy", "evaluate.calibration_bins", "tracking.experiment", "sweep.rerun", "conf_digest",
        "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.mode",
        "hydra.job.chdir",
        "hydra.job.name", "hydra.verbose", "hydra.sweeper.max_batch_size", "hydra/sweeper", "hydra/launcher",
        "hydra/job_logging", "hydra.callbacks", "hydra.searchpath", "hydra.no_such_key", "+hydra.sweeper.params",
        "hydra.job.config.override_dirname.exclude_keys", "~hydra.run", "++train.epochs", "+train.epochs",
        "~train.epochs", "+model@train", "override train/optimizer", "no_such_key", "train.no_such_key",
        "data.name.deeper",
        "+new", "~train",
    }
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["", "null", "nan", "inf", "-inf", "-1", "0", "1e999", "99999999999999999999", "true", "[]", "{}", "[1,[2]]",
         "{a:1}", "${oops}", "${train.epochs}", "${oc.env:HOME}", "$(touch pwned)", "`touch pwned`", "; touch pwned",
         "../../etc/passwd", "'", '"', "{", "]", "a=b", "a,b", "range(3)", "choice(1,2)", "é", "\x00", "-m", "--help x",
         "glob(*)", "glob([a,m*],exclude=[*_*])", "glob(nope)", "shuffle(1,2,3)", "shuffle(range(1,4))", "sort(3,1,2)",
         "interval(1,2)", "tag(a,choice(1,2))", "choice()", "range(1,1)", "range(0,1,0)", "extend_list(1)", "int(2)",
         "str(1)", "bool(2)", "json_str({a:1})", "'1", "1'", "'a\\'b'", "a\\,b", "a\\", "\"{a:'b'}\"",
         "{a:[1,{b:2}]}", "{", "{}}",
         "[1", "{a:1,a:2}", "${", "${}", "${now:%f}", "${hydra:job.num}", "${hydra:job.nope}",
         "${hydra:runtime.output_dir}",
         "${oc.env:NO_SUCH}", "${oc.env:NO_SUCH,1}", "${.epochs}", "${..seeds}", "${train}", "outputs/${now:%f}",
         ".", "conf",
         "a/b", "/", "/dev/null", "a b", "MULTIRUN", "disabled", "'???'", "???", "key=value",
         "!!python/object/apply:os.system [touch pwned]", "x" * 5000]
    ),
    st.text(max_size=20),
    st.integers().map(str),
    st.floats(allow_subnormal=False).map(str),
)  # fmt: skip
OVERRIDES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES).map("=".join), min_size=1, max_size=3)


SHOWN = ("--cfg=job", "--cfg=all", "--info=defaults", "--hydra-help")
FLAGS = st.lists(
    st.sampled_from(
        [*SHOWN, "--run", "--resolve", "--package=train", "--package=nope", "--config-dir=nope", "--config-name=nope",
         "--config-path=x", "--experimental-rerun=x", "-sc", "--nope", "-x", "--info=nope"]
    ),
    max_size=2,
)  # fmt: skip


class StartedError(Exception):
    """Work was about to begin."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_project(tmp_path_factory.mktemp("bad") / "project", store=False)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if ".git" not in path.parts and "__pycache__" not in path.parts}


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Hydra sets handlers and levels (`hydra.verbose`, `hydra/job_logging`) for the whole process."""
    names = [None, *logging.root.manager.loggerDict]
    before = {name: (log.level, log.disabled, log.handlers[:]) for name in names if (log := logging.getLogger(name))}
    yield
    for name in [None, *logging.root.manager.loggerDict]:
        log = logging.getLogger(name)
        level, log.disabled, log.handlers[:] = before.get(name, (logging.NOTSET, False, []))
        log.setLevel(level)


@pytest.mark.usefixtures("logging_as_before")
@pytest.mark.parametrize("sweep", [False, True], ids=["one run", "sweep"])
def test_a_bad_override_ends_with_2_and_one_message(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sweep: bool
) -> None:
    """In process, with what begins work cut off: what a valid choice leads to is tested elsewhere."""
    monkeypatch.chdir(project)
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # `hydra.verbose` outlives its call
    before = files(project)

    def begin(*_: Any, **__: Any) -> Any:
        raise StartedError

    monkeypatch.setattr("pipeline.sweeps.plan.obtain", begin)
    monkeypatch.setattr("pipeline.sweeps.app.ensure_store", lambda _: "")
    refused = 0

    @settings(
        max_examples=int(os.environ.get("BAD", "80")),
        deadline=None,
        derandomize="BAD" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
    )
    @given(OVERRIDES, st.one_of(st.just([]), st.just([]), FLAGS))
    def check(overrides: list[str], flags: list[str]) -> None:
        nonlocal refused
        try:
            train.main([*flags, *(["-m"] if sweep else []), *overrides])
        except StartedError:
            if not sweep and "hydra.mode=MULTIRUN" not in overrides:
                compose_job(overrides)  # it is valid indeed
            return
        except SystemExit as ended:
            code = ended.code
        else:
            code = 0
        if not code and set(flags) & set(SHOWN):  # it was only to be shown
            assert not sweep
            return
        assert code == 2, (flags, overrides)
        said = capsys.readouterr().err
        assert said.startswith("error: "), said
        assert "Traceback" not in said
        assert not re.search(r'File ".*", line', said)
        refused += 1

    check()
    assert refused > 30
    assert files(project) == before
