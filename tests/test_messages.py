"""What Hydra does not take is told in one line, with key, value and what is allowed, and nothing is left behind."""

import re
from pathlib import Path
from typing import Any

import pytest
from project_copy import clone_project

from pipeline import train
from pipeline.config import hydra_compat, messages_compat, override_form_compat
from pipeline.config.compose import CONF, compose, load, write
from pipeline.core.errors import UserError

VALUES = "without quotes, a value holds"
TOLD = {
    # no key, or none that can be one
    "=3": r"=3: has no key; allowed: key=value",
    "+=3": r"\+=3: has no key; allowed: key=value",
    "~": r"~: has no key; allowed",
    "model@=lenet5": r"model@=lenet5: has no package after @; allowed",
    "epochs": r"'epochs': not key=value: has no '='; allowed: key=value",
    "+": r"'\+': not key=value: has no '='; allowed: key=value",
    "train..epochs=3": r"'train\.\.epochs' is no key; allowed: names joined by '\.'",
    "model.layers[0].filters=3": r"'model\.layers\[0\]\.filters' is no key; allowed: .* model\.layers\.0\.filters",
    # keys that are not there, or are there already
    "hydra.nope=1": r"hydra\.nope: unknown key; allowed: .*hydra\.run, hydra\.sweep",
    "hydra.run.nope=1": r"hydra\.run\.nope: unknown key; allowed: hydra\.run\.dir",
    "hydra/nope=x": r"hydra/nope: no such group .*allowed: hydra/env, .*hydra/job_logging",
    "model@train=lenet5": r"model@train: no such group .*allowed: .*model",
    "~nope": r"~nope: no such key; allowed: .*train",
    "~train.epochs": r"~train\.epochs: train\.epochs cannot be left out.*allowed: train\.epochs=value",
    "~model=lenet5": r"~model=lenet5: model cannot be left out",
    "~hydra.run.dir": r"~hydra\.run\.dir: hydra\.run\.dir cannot be left out; allowed: hydra\.run\.dir=value",
    "+train.epochs=3": r"\+train\.epochs=3: the key is there already; allowed: train\.epochs=3",
    "+model=lenet5": r"\+model=lenet5: model is chosen already; allowed: model=lenet5",
    "+hydra/launcher=basic": r"\+hydra/launcher: hydra/launcher is chosen already",
    # values of another kind
    "model=null": r"model = null: is no name; allowed: lenet5, resnet8",
    "model=": r"model = '': unknown; allowed: lenet5, resnet8",
    "model=[a,b]": r"model = \[a,b\]: one at a time; allowed: lenet5, .*; to try each, -m model=a,b",
    "-m model=[lenet5,resnet8],lenet5": r"one at a time; allowed: .*to try each, -m model=lenet5,resnet8",
    "framework=[a,b]": r"framework = \['a', 'b'\]: .*; to try each value, -m framework=a,b",
    "train.batch_size=[32,64]": r"to try each value, -m train\.batch_size=32,64",
    "train.optimizer=adam": r"train\.optimizer = 'adam': is a section; allowed: train/optimizer=adam \(or adamw",
    "train.augment=3": r"train\.augment = 3: is a section; allowed: its keys, train\.augment\.cutout",
    "seeds=[]": r"seeds = \[\]: allowed: a list of 1 or more values",
    "sweep={parallel:0}": r"sweep\.parallel = 0: input should be 'auto' or greater than or equal to 1",
    "-m hydra/launcher=joblib,basic train.epochs=1,2": r"joblib,basic: stands for several values; allowed: one value$",
    "-m hydra/launcher=joblib hydra.launcher.n_jobs=many": r"n_jobs = many: .*; allowed: a whole number$",
    "hydra.launcher.n_jobs=2": r"n_jobs: the launcher that is chosen has no such key; .*hydra/launcher=joblib",
    "-m hydra/sweeper=search train.epochs=1,2 train.epochs=1": r"train\.epochs=1,2: every point has the same budget",
    # what the call would ignore
    "-m hydra/sweeper=search train.batch_size=32,64 sweep.sort=validation_loss": r"sweep\.sort = .*a search goes by",
    "-m hydra/launcher=joblib hydra.launcher.backend=threading train.epochs=1,2": r"backend = threading: .*: loky$",
    "sweep.parallel=2": r"sweep\.parallel = 2: is of a sweep, and this is a single run; allowed: with -m",
    "hydra.sweep.dir=x": r"hydra\.sweep\.dir = x: is of a sweep.*with -m \(--multirun\), or hydra\.run\.dir",
    "hydra/launcher=joblib": r"hydra/launcher = joblib: is of a sweep",
    "search.trials=3": r"search\.trials = 3: is of a search; allowed: with -m hydra/sweeper=search",
    "-m search/sampler=qmc train.epochs=1,2": r"search/sampler = qmc: is of a search",
    "-m hydra.run.dir=x train.epochs=1,2": r"hydra\.run\.dir = x: is of a single run.*allowed: hydra\.sweep\.dir",
    "-m hydra/sweeper=search train.batch_size=interval(16,32)": r"'train\.batch_size=int\(interval\(16,32\)\)'",
    "train/optimizer=3": r"train/optimizer = 3: is no name; allowed: adam, adamw",
    "hydra=null": r"hydra = null: allowed: keys below it",
    "hydra.run.dir=null": r"hydra\.run\.dir = null: needs a value; allowed: a text",
    "hydra.run.dir=[1]": r"hydra\.run\.dir = \[1\]: .*allowed: a text",
    "hydra.run.dir=???": r"hydra\.run\.dir = \?\?\?: allowed: the name of a folder",
    "hydra.sweep=null": r"hydra\.sweep = null: needs a value; allowed: its keys, hydra\.sweep\.dir, hydra",
    "hydra.mode=x": r"hydra\.mode = x: .*allowed: RUN, MULTIRUN or null",
    "hydra.job.chdir=x": r"hydra\.job\.chdir = x: .*allowed: true or false or null",
    "hydra.sweeper=null": r"hydra/sweeper = None: allowed: basic",
    "hydra.sweeper.max_batch_size=x": r"max_batch_size = x: .*allowed: a whole number or null",
    "hydra.output_subdir=": r"hydra\.output_subdir = '': allowed: null, or a folder",
    "hydra.job.name=": r"hydra\.job\.name = '': allowed: the name of a file",
    "hydra.job.env_copy=[NO_SUCH]": r"hydra\.job\.env_copy=\[NO_SUCH\]: .*no such key or variable: 'NO_SUCH'",
    "hydra.searchpath=3": r"hydra\.searchpath = 3: allowed: a list of folders",
    "hydra.searchpath=[/no/such]": r"hydra\.searchpath = /no/such: no such folder; allowed: a list of folders",
    "model.layers.9.filters=8": r"model\.layers\.9\.filters = 8: list index out of range",
    # values that Hydra cannot read
    "a==b": rf"a==b: not key=value as Hydra reads it: '=' is not expected there; {VALUES}.* write \"a='=b'\"",
    "train.epochs=[": rf"train\.epochs=\[: .*: '\[' is not complete, or must be quoted; {VALUES}",
    "train.epochs=choice(1": rf"'choice\(1' is not complete, or must be quoted; {VALUES}",
    "train.epochs=nope(1)": r"train\.epochs = nope\(1\): no function nope; allowed: choice, range, .*write",
    "train.epochs=choice()": r"train\.epochs = choice\(\): choice: empty choice.*; allowed: choice\(1,2,3\)$",
    "train.epochs=sort()": r"sort: empty sort input; allowed: sort\(3,1,2\)",
    "train.epochs=int(x)": r"train\.epochs = int\(x\): int: .*'x'; allowed: int\(value\)",
    "train.epochs=range(0,1,0)": r"train\.epochs = range\(0,1,0\): has the step 0; allowed: range\(start,stop,step\)",
    "train.epochs=range(1,3)": r"train\.epochs = range\(1,3\): stands for several values; .*to try each value, add -m",
    "model=glob(*)": r"model = glob\(\*\): stands for several values; .*add -m",
    # sweeps
    "-m train.epochs=1,": rf"train\.epochs=1,: .*ends too early: a value, a bracket or a quote is missing; {VALUES}",
    "-m train.epochs=range(0,0)": r"train\.epochs=range\(0,0\): matches nothing, .*allowed: one value or more",
    "-m train.epochs=interval(1,2)": r"has no single values; allowed: 1,2,3, choice, range, glob",
    "-m hydra.sweep.dir=null": r"hydra\.sweep\.dir = null: needs a value; allowed: a text",
    # under which Hydra would not start
    "hydra.verbose=3": r"hydra\.verbose = 3: allowed: true, false, or names of loggers",
    "-m hydra.verbose=[1]": r"hydra\.verbose = \[1\]: allowed: true, false, or names of loggers",
    "hydra.job_logging.root.level=NOPE": r"hydra\.job_logging: cannot be set up: .*'NOPE'; allowed: what Python's",
    "-m hydra.hydra_logging.root.handlers=[nope]": r"hydra\.hydra_logging: cannot be set up: .*'nope'; allowed",
    "+hydra.callbacks.a._target_=nope": r"hydra\.callbacks\.a = .*'nope'.*: cannot be imported; allowed: \{_target_",
    "hydra.run.dir=deep/er hydra.job_logging.handlers.file.filename=/no/such/x": r"Unable to conf.*'/no/such/x'",
    # options
    "--config-name=nope": r"--config-name = 'nope': unknown; allowed: config, or",
    "--config-name=model/lenet5": r"--config-name = 'model/lenet5': unknown; allowed: config, or",
    "--config-name=": r"--config-name = '': unknown; allowed: config, or",
    "--config-dir=dvc.yaml": r"--config-dir = 'dvc\.yaml': is no folder",
    "--config-dir=": r"--config-dir = '': is no folder",
    "--cfg=job --config-name=nope": r"--config-name = 'nope': unknown; allowed: config, or",
    "--cfg=job model=null": r"model = null: is no name; allowed: lenet5, resnet8",
    "--cfg=job train.nope=1": r"train\.nope: unknown key; allowed: .*train\.epochs",
    "--cfg=job --package=nope": r"--package = nope: no such section; allowed: .*train",
    "--info=defaults =3": r"=3: has no key; allowed: key=value",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_project(tmp_path_factory.mktemp("messages") / "project", store=False)


@pytest.mark.parametrize("arguments", TOLD)
def test_what_hydra_does_not_take_is_told_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    """In process; the data are not prepared, as the mistake comes before."""
    monkeypatch.chdir(project)
    monkeypatch.setattr("pipeline.sweeps.app.ensure_store", lambda _: "")
    monkeypatch.setattr("pipeline.sweeps.app.check", lambda _: "")
    before = set(project.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        train.main(arguments.split())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: .*\n", said), said
    assert re.search(TOLD[arguments], said.rstrip("\n")), said
    assert {path for path in set(project.rglob("*")) - before if "__pycache__" not in path.parts} == set()


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "=3": r"=3: has no key; allowed: key=value",
        "epochs": r"'epochs': not key=value: has no '='",
        "train..epochs=3": r"'train\.\.epochs' is no key",
        "hydra.run.dir=x": r"hydra\.run\.dir=x: a setting of Hydra's own",
        "seeds.x=3": r"seeds\.x=3: no such place in a list; its entries are numbered from 0",
        "model.layers.9.filters=8": r"model\.layers\.9\.filters=8: no such place in a list",
        "train.optimizer=adam": r"train\.optimizer = 'adam': is a section; allowed: train/optimizer=adam",
        "model=lenet5": r"model=lenet5: .*params\.yaml is composed already; allowed: keys of it, as model\.\w+, or "
        r"model=lenet5 without --params$",
        "train/optimizer=sgd": r"is composed already; allowed: keys of it, as train\.optimizer\.\w+, or train/optim",
        "data=folder": r"is composed already; allowed: keys of it, as data\.\w+, or data=folder without --params$",
    }.items(),
)
def test_a_stage_tells_the_same_of_its_overrides(tmp_path: Path, override: str, message: str) -> None:
    write(compose(), tmp_path / "params.yaml")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "params.yaml", [override])


def test_a_stage_takes_an_override_of_an_entry_of_a_list(tmp_path: Path) -> None:
    write(compose(), tmp_path / "params.yaml")
    assert load(tmp_path / "params.yaml", ["model.layers.0.filters=8"]).model.layers[0].filters == 8


def test_a_primary_configuration_of_ones_own_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\ntrain: {epochs: 3}\n")
    assert compose(source=hydra_compat.Source("mine", tmp_path)).train.epochs == 3
    assert compose(source=hydra_compat.Source("mine.yaml", tmp_path)).train.epochs == 3


@pytest.mark.parametrize(
    ("override", "reason"), [("a=it's", '"\'" must be quoted'), ("a=b[c", "'[' is not expected there")]
)
def test_hydra_tells_the_sign_that_it_does_not_take(override: str, reason: str) -> None:
    """Else see `override_form_compat.reason_of`: where the arrow stands, or whatever else points at the sign."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    with pytest.raises(OverrideParseException) as caught:
        OverridesParser.create().parse_overrides([override])
    assert override_form_compat.reason_of(override, caught.value.message).startswith(reason)


def test_the_functions_of_hydra_are_known() -> None:
    """Else complete `override_form_compat._FUNCTIONS`."""
    from hydra.core.override_parser.overrides_parser import create_functions

    functions: Any = create_functions().functions
    assert set(functions) - {"json_str"} == set(override_form_compat._FUNCTIONS)


def test_what_hydra_composes_is_checked_before_it_starts() -> None:
    """Else see these functions: how Hydra parses, names groups, sets up logging and imports callbacks."""
    source = hydra_compat.Source()
    with hydra_compat.started(CONF, source) as hydra:
        override_form_compat.require_form(hydra, source, ["model=lenet5", "train.epochs=1,2"])
        hydra_compat.require_startable(hydra_compat.compose(hydra, source, ["hydra.verbose=true"]))
        with pytest.raises(UserError, match=r"hydra\.verbose = 3"):
            hydra_compat.require_startable(hydra_compat.compose(hydra, source, ["hydra.verbose=3"]))
    said = override_form_compat.unparsed("a=choice()", "ValueError while evaluating 'choice()': empty\nSee https://x")
    assert said == "a = choice(): choice: empty; allowed: choice(1,2,3)"
    assert messages_compat.one_message(KeyError("A")) == "no such key or variable: 'A'"
    assert messages_compat.choices("train/optimizer") == ["adam", "adamw", "momentum", "nesterov", "sgd"]
