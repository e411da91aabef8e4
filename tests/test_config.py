"""The configuration: every choice in `conf/` is valid, and every mistake ends in one message that helps to mend it."""

import functools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from project_copy import copy_project, run_module

from pipeline.config.compose import CONF, compose, conf_digest, load, write
from pipeline.core.errors import UserError

GROUPS = {"data", "model", "train", "evaluate", "tracking", "experiment", "train/optimizer", "train/schedule"}
CHOICES = sorted((path.parent.relative_to(CONF).as_posix(), path.stem) for path in CONF.glob("*/**/[!_]*.yaml"))
ASKED_FOR = {  # choices that need a value of the user's
    ("data", "folder"): ["data.root=images"],
    ("data", "tfds"): ["data.name=svhn_cropped"],
    ("data", "torchvision"): ["data.name=SVHN"],
}
DENSE = "{type:dense,units:classes}"


def holds(values: Any, wanted: Any) -> bool:
    """Whether everything in the mapping `wanted` is in `values`."""
    if isinstance(wanted, dict):
        return all(key in values and holds(values[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(values) == len(wanted) and all(map(holds, values, wanted))
    return bool(values == wanted)


def section(values: dict[str, Any], group: str) -> Any:
    """`train/optimizer` to `values["train"]["optimizer"]`."""
    return functools.reduce(lambda here, key: here[key], group.split("/"), values)


def test_every_group_has_a_choice() -> None:
    assert {group for group, _ in CHOICES} >= GROUPS


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_to_what_its_file_says(group: str, choice: str) -> None:
    given = ASKED_FOR.get((group, choice), [])
    composed = compose([f"{group}={choice}", *given]).model_dump()
    written = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{choice}.yaml"))
    assert isinstance(written, dict)
    for default in written.pop("defaults", []):
        if isinstance(default, str):  # _base, _self_
            continue
        ((override, named),) = default.items()
        chosen = override.removeprefix("override /") if override.startswith("override") else f"{group}/{override}"
        assert section(composed, chosen)["name"] == named
    assert holds(composed if group == "experiment" else section(composed, group), written)


def test_the_snapshot_carries_the_digest_of_conf() -> None:
    assert re.fullmatch("[0-9a-f]{32}", compose().conf_digest)
    assert compose().conf_digest == compose(["train.epochs=2"]).conf_digest == conf_digest()


MISTAKES = {
    # unknown keys
    "train.epohcs=3": r"train\.epohcs = 3: unknown key; did you mean epochs\? \(allowed: .*batch_size, .*epochs",
    "+train.epohcs=3": r"train\.epohcs = 3: unknown key; did you mean epochs\? \(allowed: .*batch_size, .*epochs",
    "train.optimizer.learning_rat=1": r"train\.optimizer\.learning_rat = 1: unknown key; did you mean learning_rate\?",
    "nonsense=1": r"nonsense = 1: unknown key \(allowed: .*data, .*train",
    f"model.layers=[{{type:flaten}},{DENSE}]": r"model\.layers\[0\]\.type = 'flaten': allowed: .*'flatten', 'dense'",
    f"model.layers=[{{type:conv,filter:8}},{DENSE}]": r"model\.layers\[0\]\.filter = 8: .*did you mean filters\?",
    "model.layers.0.filter=8": r"model\.layers\[0\]\.filter = 8: unknown key; did you mean filters\?",
    # wrong types
    "train.epochs=three": r"train\.epochs = 'three': .*valid integer",
    "train.epochs=2.5": r"train\.epochs = 2\.5: .*valid integer",
    "train.epochs=true": r"train\.epochs = True: .*valid integer",
    "seeds=[true]": r"seeds\[0\] = True: .*valid integer",
    "train.epochs='3'": r"train\.epochs = '3': .*valid integer",
    "train.epochs=null": r"train\.epochs = None: .*valid integer, greater than or equal to 1$",
    "train.world=1.5": r"train\.world = 1\.5: .*valid integer, greater than or equal to 1 and less .* 4096$",
    "train.clip_norm=a": r"train\.clip_norm = 'a': .*valid number, greater than 0 or null$",
    "train.deterministic=1": r"train\.deterministic = 1: .*valid boolean",
    "train.optimizer.learning_rate=true": r"train\.optimizer\.learning_rate = True: .*valid number",
    "train.optimizer.learning_rate=fast": r"train\.optimizer\.learning_rate = 'fast': .*valid number",
    "data.mirror=3": r"data\.mirror = 3: .*valid string",
    "seeds=3": r"seeds = 3: allowed: a list, in a shell 'seeds=\[3\]'",
    "train.optimizer=null": r"train\.optimizer = None: is a section; allowed: train/optimizer=adam",
    # out of range
    "train.epochs=0": r"train\.epochs = 0: .*greater than or equal to 1",
    "train.batch_size=-1": r"train\.batch_size = -1: .*greater than or equal to 1",
    "data.validation_fraction=1": r"data\.validation_fraction = 1: .*less than 1",
    "data.validation_fraction=0": r"data\.validation_fraction = 0: .*greater than 0",
    "data.max_train=5": r"data\.max_train = 5: .*greater than or equal to 20",
    "train.optimizer.learning_rate=0": r"train\.optimizer\.learning_rate = 0: .*greater than 0",
    "train.optimizer.learning_rate=nan": r"train\.optimizer\.learning_rate = nan: .*finite number",
    "train.optimizer.learning_rate=inf": r"train\.optimizer\.learning_rate = inf: .*finite number",
    "train.optimizer.beta_1=1": r"train\.optimizer\.beta_1 = 1: .*less than 1",
    "tracking.experiment=''": r"tracking\.experiment = '': .*at least 1 character",
    "model.layers.0.filters=0": r"model\.layers\[0\]\.filters = 0: .*greater than or equal to 1",
    # unknown choices
    "data=imagenet": r"data = 'imagenet': unknown; allowed: cifar10, fashion_mnist, .*mnist_sample, tfds, torchvision",
    "model=vgg": r"model = 'vgg': unknown; allowed: .*simple_cnn",
    "experiment=none": r"experiment = 'none': unknown; allowed: .*mnist, .*seed_pytorch, seed_tensorflow",
    "framework=jax": r"framework = 'jax': allowed: tensorflow, pytorch",
    "train.precision=float16": r"train\.precision = 'float16': .*'float32' or 'float64'",
    "train.optimizer.name=sgd": r"train\.optimizer\.momentum: missing",
    "train.optimizer.name=rmsprop": r"'rmsprop': allowed: 'sgd', 'adam', 'adamw'; choose .* train/optimizer=",
    "train.schedule.name=linear": r"train\.schedule\.name = 'linear': allowed: 'constant', .*; .*train/schedule=",
    "train.schedule.factor=0.5": r"train\.schedule\.factor = 0.5: unknown key .allowed: final_fraction, name, warm",
    # seeds
    "seeds=[]": r"seeds = \[\]: allowed: a list of 1 or more values",
    "seeds=[1,2,1]": r"seeds = \[1, 2, 1\]: every seed must occur once",
    "seeds=[0,-1]": r"seeds\[1\] = -1: .*greater than or equal to 0",
    "seeds=[4294967296]": r"seeds\[0\] = 4294967296: .*less than 4294967296",
    # the network's end
    "model.layers=[]": r"model\.layers = \[\]: allowed: a list of 1 or more values",
    "model.layers=[{type:flatten}]": r"model\.layers\[0\] is flatten; the last layer must be dense with units: classes",
    "model.layers=[{type:dense,units:10}]": r"model\.layers\[0\] is dense.* must be dense with units: classes",
    # values still to be given
    "train.epochs=???": r"train\.epochs = \?\?\?: a value is required",
    "tracking.experiment=???": r"tracking\.experiment = \?\?\?: a value is required",
    "data.mirror=???": r"data\.mirror = \?\?\?: a value is required",
    "model.layers.0.filters=???": r"model\.layers\[0\]\.filters = \?\?\?: a value is required",
    "model=???": r"model=<OPTION>(.|\n)*simple_cnn",
    "~train.epochs": r"train\.epochs cannot be left out",
    # not what an override looks like
    "train.epochs": r"'train\.epochs': not key=value: has no '='",
    "train.epochs=[": r"train\.epochs=\[: not key=value .*'\[' is not complete",
    "--epochs": r"--epochs",
    "train=3": r"train = 3: is no name; allowed: default",
    "data=null": r"data = null: is no name; allowed: cifar10",
    "model.layers.first.filters=8": r"model\.layers\.first\.filters=8(.|\n)*'first'",
    "data.mirror=${nothing}": r"nothing",
}


MISTAKES_IN_DATA = {
    # which data set
    "data.provider=kaggle": r"data\.provider = 'kaggle': .*'bundled', 'torchvision', 'tfds' or 'folder'",
    "data.provider=tfds": r"data\.provider = 'tfds': does not have mnist_sample; allowed: 'bundled'",
    "data.provider=torchvision": r"data\.provider = 'torchvision': does not have mnist_sample; allowed: 'bundled'",
    "data.name=mnist": r"data\.provider = 'bundled': does not have mnist; allowed: mnist_sample",
    "data.name=''": r"data\.name = '': .*pattern",
    "data.name=a/b/c": r"data\.name = 'a/b/c': .*pattern",
    "data.name='my set'": r"data\.name = 'my set': .*pattern",
    f"data.name={'a' * 81}": r"data\.name = 'aaa.*at most 80 characters",
    "data=torchvision": r"data\.name = \?\?\?: a value is required",
    "data=tfds": r"data\.name = \?\?\?: a value is required",
    "data=_base": r"data\.name = \?\?\?: a value is required\ndata\.provider = \?\?\?",
    "data=folder": r"data\.root = None: data\.provider = 'folder' needs the folder that holds the images",
    "data=folder data.root=''": r"data\.root = '': data\.provider = 'folder' needs the folder",
    "data.root=images": r"data\.root = 'images': only for data\.provider = 'folder', not 'bundled'",
    "data=mnist data.root=images": r"data\.root = 'images': only for data\.provider = 'folder', not 'torchvision'",
    "data.mirror=/a": r"data\.mirror = '/a': only for data\.provider = 'torchvision' or 'tfds'",
    "data=mnist data.mirror=''": r"data\.mirror = '': .*at least 1 character",
    "data.options={split: letters}": r"data\.options = {'split': 'letters'}: only for data\.provider = 'torchvision'",
    "data=mnist data.options={split: null}": r"data\.options = {'split': None}: allowed: names, each with a text",
    "data=mnist data.options={split: [a]}": r"data\.options = {'split': \['a'\]}: allowed: names, each with a text",
    "data=mnist data.options=letters": r"data\.options = 'letters': allowed: names, each with a text",
    # what an image becomes
    "data.size=0": r"data\.size = 0: allowed: 1 to 4096, \[height, width\] of these, or null",
    "data.size=4097": r"data\.size = 4097: allowed: 1 to 4096",
    "data.size=28.5": r"data\.size = 28\.5: allowed: 1 to 4096",
    "data.size=true": r"data\.size = True: allowed: 1 to 4096",
    "data.size=large": r"data\.size = 'large': allowed: 1 to 4096",
    "data.size=[28]": r"data\.size = \[28\]: allowed: 1 to 4096",
    "data.size=[28,28,3]": r"data\.size = \[28, 28, 3\]: allowed: 1 to 4096",
    "data.size=[28,0]": r"data\.size = \[28, 0\]: allowed: 1 to 4096",
    "data.fit=fill": r"data\.fit = 'fill': .*'crop', 'pad' or 'stretch'",
    "data.channels=2": r"data\.channels = 2: .*1 or 3",
    "data.channels=grey": r"data\.channels = 'grey': .*1 or 3",
    "data.corrupt=ignore": r"data\.corrupt = 'ignore': .*'fail' or 'skip'",
    # classes and splits
    "data.classes=cat": r"data\.classes = 'cat': allowed: a list, in a shell 'data\.classes=\[cat\]'",
    "data.classes=[]": r"data\.classes = \[\]: allowed: a list of 2 or more values",
    "data.classes=[0,1]": r"data\.classes\[0\] = 0: .*valid string(.|\n)*data\.classes\[1\] = 1",
    "data.classes=[cat,dog,cat]": r"data\.classes = \['cat', 'dog', 'cat'\]: every name must occur once",
    "data.test_fraction=0": r"data\.test_fraction = 0: .*greater than 0",
    "data.test_fraction=1": r"data\.test_fraction = 1: .*less than 1",
    "data.split_seed=-1": r"data\.split_seed = -1: .*greater than or equal to 0",
    "data.max_test=9": r"data\.max_test = 9: .*greater than or equal to 10",
    "data.sise=28": r"data\.sise = 28: unknown key; did you mean size\?",
}


@pytest.mark.parametrize(("overrides", "message"), MISTAKES_IN_DATA.items(), ids=MISTAKES_IN_DATA)
def test_a_mistake_in_the_data_is_named_once(overrides: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compose(re.split(r" (?=data)", overrides))
    keys = [line.split(" = ")[0].split(": ")[0] for line in str(caught.value).splitlines()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("size", ["1", "4096", "[1,4096]", "null"])
def test_sizes_within_the_limits_are_taken(size: str) -> None:
    assert str(compose([f"data.size={size}"]).data.size).replace(" ", "") == size.replace("null", "None")


@pytest.mark.parametrize(("override", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_key_value_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        compose([override])
    assert "HYDRA_FULL_ERROR" not in str(caught.value)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(UserError, match=r"train\.optimizer\.nesterov = True: needs train\.optimizer\.momentum > 0"):
        compose(["train/optimizer=nesterov", "train.optimizer.momentum=0.0"])


def test_one_message_lists_every_mistake() -> None:
    with pytest.raises(UserError) as caught:
        compose(["train.epochs=0", "framework=jax", "seeds=[-1]", "tracking.experiment=???", "train.epohcs=3"])
    for key in (
        "train.epochs = 0",
        "framework = 'jax'",
        "seeds[0] = -1",
        "tracking.experiment = ???",
        "train.epohcs = 3",
    ):
        assert str(caught.value).count(f"{key}: ") == 1


@pytest.mark.parametrize("override", ["train.epohcs=3", "train.epochs=three", "train.epochs=[", "train=3"])
def test_a_mistake_ends_the_command_with_code_2_and_leaves_params_yaml(tmp_path: Path, override: str) -> None:
    project = copy_project(tmp_path / "project")
    params = project / "params.yaml"
    write(compose(), params)
    before = params.read_bytes()
    done = run_module(project, "pipeline.config", override)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert params.read_bytes() == before
    assert sorted(path.name for path in project.iterdir()) == ["conf", "params.yaml", "pipeline"]


@pytest.mark.parametrize(
    "overrides",
    [[f"{group}={choice}", *ASKED_FOR.get((group, choice), [])] for group, choice in CHOICES]
    + [
        ["seeds=[4294967295,0]", "train.threads=2", "train.optimizer.epsilon=1e-300"],
        ["data=mnist", r"data.mirror='/mnt/a b: #c, é'", "tracking.system_metrics_seconds=null"],
        ["tracking.experiment='0123'", "data=mnist", "data.mirror='yes'", "framework=tensorflow"],
        ["data=mnist", "data.size=[32,48]", "data.classes=['1','yes','null']", "data.options={a: '1', b: 1, c: true}"],
    ],
    ids=" ".join,
)
def test_what_is_written_is_what_is_read_back(tmp_path: Path, overrides: list[str]) -> None:
    config = compose(overrides)
    write(config, tmp_path / "params.yaml")
    assert load(tmp_path / "params.yaml") == config


def test_overrides_change_a_snapshot(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    write(compose(["train.epochs=2"]), params)
    assert load(params, ["seeds=[7]", "train.optimizer.learning_rate=1e-2"]) == compose(
        ["train.epochs=2", "seeds=[7]", "train.optimizer.learning_rate=1e-2"]
    )


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "train.epohcs=3": r"train\.epohcs = 3: unknown key; did you mean epochs\?",
        "train.epochs=many": r"train\.epochs = 'many': .*valid integer",
        "train.epochs=[": r"train\.epochs=\[",
    }.items(),
)
def test_a_mistaken_override_of_a_snapshot_is_named(tmp_path: Path, override: str, message: str) -> None:
    write(compose(), tmp_path / "params.yaml")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "params.yaml", [override])


GOOD = OmegaConf.to_yaml(OmegaConf.create(compose().model_dump()))

UNREADABLE = {
    "not YAML": (b"train: [1\n", r"params\.yaml: cannot be read as YAML"),
    "not a mapping": (b"- 1\n", r"params\.yaml: is not a mapping"),
    "a number": (b"5\n", r"params\.yaml: "),
    "binary": (bytes(range(256)), r"params\.yaml: cannot be read as YAML"),
    "zeros": (bytes(100), r"params\.yaml: cannot be read as YAML"),
    "empty": (b"", r"data: missing\nmodel: missing"),
    "a key twice": (f"{GOOD}framework: pytorch\n".encode(), r"params\.yaml: .*duplicate key framework"),
    "unknown key": (
        f"{GOOD}framewrok: pytorch\n".encode(),
        r"framewrok = 'pytorch': .*did you mean framework\?",
    ),
    "number as key": (f"{GOOD}1: 2\n".encode(), r"keys should be strings"),
    "wrong type": (
        re.sub("epochs: .*", "epochs: many", GOOD).encode(),
        r"train\.epochs = 'many': .*valid integer",
    ),
    "no value": (
        re.sub("epochs: .*", "epochs: ???", GOOD).encode(),
        r"train\.epochs = \?\?\?: a value is required",
    ),
    "missing key": (re.sub(" *epochs: .*\n", "", GOOD).encode(), r"train\.epochs: missing"),
    "unresolvable": (re.sub("epochs: .*", "epochs: ${none}", GOOD).encode(), r"'none' not found"),
    "a tag that runs code": (
        b"a: !!python/object/apply:os.getcwd []\n",
        r"params\.yaml: cannot be read as YAML",
    ),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_snapshot_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    params = tmp_path / "params.yaml"
    params.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(params)
    assert params.read_bytes() == content


def test_the_unchanged_text_of_these_tests_is_a_good_snapshot(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(GOOD)
    assert load(tmp_path / "params.yaml") == compose()


def test_an_absent_snapshot_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params\.yaml: no such file; `python -m pipeline\.config`"):
        load(tmp_path / "params.yaml")


def test_a_folder_in_place_of_the_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        load(tmp_path)


def test_a_file_of_conf_that_is_not_utf8_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    bad = tmp_path / "conf/config.yaml"
    bad.write_bytes(b"# gr\xfc\xdfe\n" + bad.read_bytes())
    monkeypatch.setattr("pipeline.config.compose.CONF", tmp_path / "conf")
    with pytest.raises(UserError, match=r"/conf/config\.yaml: is not UTF-8: .*save it as UTF-8"):
        compose()
