"""The jobs of a sweep are composed quickly, and as Hydra composes each: the same configuration, or the same error.

`COMPOSED=2000 pytest tests/test_composer.py`: that many random lists of overrides.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_bad_config import KEYS, VALUES

from pipeline.config.compose import compose_job
from pipeline.config.composer import Composer
from pipeline.config.hydra_compat import Source
from pipeline.core.errors import UserError

FITTING = {
    "framework": ("tensorflow", "pytorch", "'pytorch'", "jax"),
    "seeds": ("[0]", "[1,2]", "[]", "0", "[0,'1']", "[${train.epochs}]", "null"),
    "train.epochs": ("1", "2", "'2'", "2.0", "0", "${compare.restarts}", "???", "'???'", "true"),
    "train.optimizer.learning_rate": ("1e-3", "0.1", "1", "nan", "inf", "null", "${train.optimizer.beta_1}"),
    "train.optimizer.name": ("adam", "sgd"),
    "train.clip_norm": ("1.0", "null", "2", "[1]"),
    "train.augment.flip": ("true", "false", "1", "yes"),
    "train.augment": ("{flip:true}", "{}", "null", "3"),
    "train.label_smoothing": ("0.1", "0"),
    "model.layers": ("[{type:flatten},{type:dense,units:classes}]", "[{type:'${framework}'}]", "[]", "[???]"),
    "model.layers.0.filters": ("8", "x"),
    "model.layers[0].filters": ("8",),
    "model.normalise": ("true", "false"),
    "data.size": ("[8,8]", "null", "[8,${train.epochs}]"),
    "data.options": ("{a:1}", "{}", "{1:2}", "{a:{b:[1]}}"),
    "data.options.a": ("1", "[]", "{c:2}"),
    "data.root": ("/a", "'/a b'", "", "'\\${x}'", "a\\b"),
    "data.max_train": ("300", "null", "1e2"),
    "tracking.experiment": ("a", "'a,b'", "${framework}", "x${now:%Y}", "${hydra:job.num}", '"q\'q"', "é"),
    "conf_digest": ("x", "null"),
    "sweep.rerun": ("true", "false"),
    "sweep": ("{rerun:true}", "null"),
    "data": ("mnist", "folder", "{max_train:200}", "null", "[mnist]"),
    "model": ("lenet5", "resnet8", "nope"),
    "train/optimizer": ("sgd", "momentum", "adamw"),
    "train/schedule": ("cosine", "step"),
    "train/schedule@train.other": ("cosine",),
    "train@here.epochs": ("2",),
    "experiment": ("mnist_lenet5", "seed_pytorch", "null", "nope"),
    "hydra.sweep.subdir": ("${hydra.job.num}", "x${hydra:job.num}_${hydra.job.override_dirname}", "${hydra.job.id}",
                           "${framework}", "x", "\\${hydra.job.num}", "${hydra.job.num}\\\\${hydra.job.num}"),
    "hydra.job.config.override_dirname.exclude_keys": ("[framework]", "[train.epochs,seeds]", "[${framework}]"),
    "hydra.job.config.override_dirname.kv_sep": ("_", "'\\1'", "${framework}", "':'"),
    "hydra.job.config.override_dirname.item_sep": ("'/'", "${framework}", "';'"),
    "hydra.output_subdir": ("null", "h"),
    "hydra.job.name": ("${framework}", "x"),
    "hydra.job.num": ("7",),
    "hydra.searchpath": ("[/nowhere]", "[]", "null"),
    "hydra": ("{job:{name:x}}", "3"),
}  # fmt: skip
SIGNS = st.sampled_from([""] * 8 + ["+", "++", "~"])
KEY_AND_VALUE = st.sampled_from(sorted(FITTING)).flatmap(
    lambda key: st.sampled_from(FITTING[key]).map(lambda value: f"{key}={value}")
)
PLAIN = st.sampled_from(
    ["framework=tensorflow", "seeds=[0]", "train.epochs=2", "train.epochs=3", "train.clip_norm=1.0",
     "data.max_train=300",
     "train.optimizer.learning_rate=1e-2", "++train.label_smoothing=0.1", "model=lenet5", "train/optimizer=sgd",
     "model.layers=[{type:flatten},{type:dense,units:classes}]", "tracking.experiment='a, b'", "data.size=[8,8]"]
)  # fmt: skip
ANY = st.one_of(
    st.tuples(SIGNS, KEY_AND_VALUE).map("".join),
    st.sampled_from(sorted(FITTING)).map("~".__add__),
    st.tuples(st.sampled_from(KEYS), VALUES).map("=".join),
    PLAIN,
)
OVERRIDES = st.one_of(st.lists(PLAIN, max_size=5), st.lists(st.one_of(PLAIN, ANY), min_size=1, max_size=5))


@pytest.fixture
def own(tmp_path: Path) -> Source:
    """A folder for `--config-dir`: interpolations, groups that are called like keys, and values that are missing."""
    for name, text in {
        "own": "defaults: [config, _self_]\ntracking: {experiment: 'of_${train.epochs}'}\ntrain: {threads: ???}\n",
        "framework/jax": "# @package _global_\nframework: pytorch\n",
        "model/own": "defaults: [lenet5]\nname: own\n",
        "experiment/missing": "# @package _global_\ntrain: {threads: ???, epochs: 4}\n",
        "experiment/tied": "# @package _global_\ntrain: {threads: '${train.epochs}'}\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    return Source("config", tmp_path)


def slowly(overrides: Sequence[str], source: Source, number: int) -> str:
    try:
        config, folders = compose_job(overrides, source, number)
    except UserError as error:
        return f"error: {error}"
    return f"{config!r} {folders['sweep.subdir']!r}"


def alike(composer: Composer, source: Source, *overrides: str, number: int = 3) -> tuple[str, bool]:
    """Whatever both give, and whether the composer is sure of it."""
    expected = slowly(overrides, source, number)
    if expected.startswith("error: "):
        with pytest.raises(UserError) as caught:
            composer.compose(overrides, number)
        assert f"error: {caught.value}" == expected, overrides
        return expected, False
    job = composer.compose(overrides, number)
    assert f"{job.config!r} {job.subdir!r}" == expected, overrides
    return expected, job.fixed


def test_random_jobs_are_composed_as_hydra_composes_them(own: Source) -> None:
    composers, ended = {source: Composer(source) for source in (Source(), own)}, []

    @settings(
        max_examples=int(os.environ.get("COMPOSED", "50")),
        deadline=None,
        derandomize="COMPOSED" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
    )
    @given(OVERRIDES, st.sampled_from([Source(), Source(), own]), st.integers(0, 12))
    def check(overrides: list[str], source: Source, number: int) -> None:
        if not any("%f" in override for override in overrides):  # another value each time
            ended.append(alike(composers[source], source, *overrides, number=number))

    check()
    valid = [fixed for outcome, fixed in ended if not outcome.startswith("error: ")]
    assert len(valid) > len(ended) / 3
    assert sum(valid) > len(valid) / 2, "most are composed quickly"


QUICK = [
    "train.epochs=2", "++train.epochs=2", "seeds=[0]", "framework='pytorch'", "train.clip_norm=null",
    "train.optimizer.learning_rate=1e-3", "data=folder data.root=/a", "data.root=/a data=folder", "data.size=[8,8]",
    "model.layers=[{type:flatten},{type:dense,units:classes}]", "model=lenet5", "train/optimizer=sgd train.epochs=9",
    "experiment=mnist_lenet5 train.epochs=2", "train/schedule=cosine", "tracking.experiment='a, b'",
    "hydra.output_subdir=null train.epochs=2", "hydra.job.num=9",
    "hydra.sweep.subdir=x${hydra:job.num}_${hydra.job.override_dirname} train.epochs=2 seeds=[0]",
    "hydra.job.config.override_dirname.kv_sep=: hydra.sweep.subdir=${hydra.job.override_dirname} train.epochs=2",
]  # fmt: skip


def test_values_choose_no_file() -> None:
    composer = Composer(Source())
    for overrides in QUICK:
        outcome, fixed = alike(composer, Source(), *(overrides.split(" ") if "'" not in overrides else [overrides]))
        assert fixed, outcome


IN_THIS_ORDER = [
    "train.epochs=3 ++train={epochs:4}", "++train={epochs:4} train.epochs=3", "train.epochs=3 ~train.epochs=3",
    "train.epochs=3 train.epochs=4", "data.max_train=9 data=mnist", "train.epochs=2 ~train.epochs +train.epochs=5",
    "hydra.job.config.override_dirname.kv_sep=\\1 train.epochs=3", "train.epochs=2,3", "train.epochs=[",
    "data.root=???",
]  # fmt: skip


@pytest.mark.parametrize("overrides", IN_THIS_ORDER)
def test_overrides_are_heeded_in_hydra_s_order(overrides: str) -> None:
    alike(Composer(Source()), Source(), *overrides.split())


OF_A_FOLDER = [
    "experiment=tied train.epochs=3", "experiment=missing", "experiment=missing train.threads=2", "framework=jax",
    "framework=pytorch", "model=own train.epochs=2", "+framework=jax train.epochs=2", "experiment=tied train.threads=1",
    "train.epochs=3 ~train.threads=3 experiment=tied",
]  # fmt: skip


@pytest.mark.parametrize("overrides", OF_A_FOLDER)
def test_a_folder_of_one_s_own_is_heeded(own: Source, overrides: str) -> None:
    composer = Composer(own)
    alike(composer, own, *overrides.split())
    alike(composer, own, *overrides.split(), number=4)
    other = Source("own", own.directory)
    alike(Composer(other), other, *overrides.split())
