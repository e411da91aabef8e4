"""Settings of libraries in the environment and in the home folder: fixed, or recorded and compared."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from project_copy import ROOT, clean_environment

from pipeline.config.compose import compose
from pipeline.core import machine
from pipeline.core.machine import steering_variables
from pipeline.equality.fairness import differing_sections
from pipeline.models.manifest import FrameworkFacts, MachineFacts, Manifest
from pipeline.sweeps.cache import key_of


def _given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    monkeypatch.setattr(machine, "_ENVIRONMENT", variables)


def test_variables_that_move_bits_are_recorded_by_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    moving = {
        **{"XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2", "TF_ENABLE_ONEDNN_OPTS": "0", "TF_XLA_FLAGS": "x"},
        **{"ATEN_CPU_CAPABILITY": "avx2", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "TORCHINDUCTOR_FREEZING": "1"},
        **{"ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE", "NVIDIA_TF32_OVERRIDE": "1"},
    }
    names = (
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MKL_DYNAMIC"),
        *("TF_CPP_MIN_LOG_LEVEL", "TORCH_HOME", "TORCH_LOGS", "TORCHINDUCTOR_CACHE_DIR", "ONEDNN_VERBOSE", "HOME"),
        *("TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_RUN_ID", "TORCH_NCCL_ASYNC_ERROR_HANDLING", "TF_CONFIG"),
    )
    harmless = dict.fromkeys(names, "1")
    _given(monkeypatch, **moving, **harmless)
    assert steering_variables() == dict(sorted(moving.items()))
    shared = {"ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "NVIDIA_TF32_OVERRIDE"}
    assert set(steering_variables("tensorflow")) == shared | {"XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS"}
    assert "XLA_FLAGS" not in steering_variables("pytorch")


def test_what_is_installed_is_listed_as_pip_does_whatever_is_imported() -> None:
    from importlib import metadata

    code = "{}; from pipeline.core.machine import packages; print(*packages(), sep='\\n')"
    listed = [
        subprocess.run([sys.executable, "-c", code.format(first)], cwd=ROOT, capture_output=True, text=True).stdout
        for first in ("import sys", "import setuptools, torch._inductor.compile_fx")
    ]
    assert listed[0] == listed[1] == "".join(f"{package}\n" for package in machine.packages())

    def plain(name: str) -> str:
        return name.lower().replace("-", "_").replace(".", "_")

    found = {plain(name): version for name, version in (line.split("==") for line in machine.packages())}
    installed = metadata.distributions(path=[str(Path(pytest.__file__).parents[1])])
    expected = {plain(each.metadata["Name"]): each.version for each in installed}
    assert found == {name: version for name, version in expected.items() if name in found}
    assert len(expected) - len(found) <= 2  # what is no dist-info: an egg of the system


def test_the_instruction_sets_of_the_processor_are_known() -> None:
    assert {"x86_64": "sse2", "aarch64": "asimd"}[platform.machine()] in machine.cpu_features()


def test_arms_under_different_variables_are_not_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def manifest() -> Manifest:
        facts = {"cpu": "x", "cores": 2, "memory_bytes": 1, "device": "cpu", "threads": 2, "python": "3", "numpy": "2"}
        framework = FrameworkFacts(name="x", versions={}, execution="eager")
        return Manifest(settings={}, framework=framework, machine=MachineFacts(**facts, variables=steering_variables()))

    _given(monkeypatch)
    plain = manifest()
    _given(monkeypatch, XLA_FLAGS="--xla_cpu_enable_fast_math=true")
    expected = {"machine.variables.XLA_FLAGS": (None, "--xla_cpu_enable_fast_math=true")}
    assert differing_sections(plain, manifest()) == expected


def test_a_job_is_another_under_a_variable_of_its_own_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset: Any = SimpleNamespace(identity="data")  # the key takes no more of it
    tensorflow, pytorch = (compose([f"framework={name}"]) for name in ("tensorflow", "pytorch"))
    _given(monkeypatch)
    before = key_of(tensorflow, dataset), key_of(pytorch, dataset)
    _given(monkeypatch, XLA_FLAGS="x", OMP_NUM_THREADS="1")
    after = key_of(tensorflow, dataset), key_of(pytorch, dataset)
    assert after[0] != before[0]
    assert after[1] == before[1]


def _python(code: str, home: Path, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    env = clean_environment() | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, cwd=home, env=env, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.xdist_group("tensorflow")
def test_keras_takes_nothing_from_home_and_environment(tmp_path: Path) -> None:
    (tmp_path / ".keras").mkdir()
    bad = {"floatx": "half", "epsilon": 1e-3, "backend": "torch", "image_data_format": "channels_first"}
    (tmp_path / ".keras/keras.json").write_text(json.dumps(bad), encoding="utf-8")
    code = (
        "from pipeline.models.tensorflow.start import keras; c = keras.config;"
        "print(c.backend(), c.floatx(), c.epsilon(), c.image_data_format())"
    )
    said = _python(code, tmp_path, KERAS_BACKEND="jax", KERAS_MAX_EPOCHS="x", KERAS_HOME=str(tmp_path / ".keras"))
    assert said == "tensorflow float32 1e-07 channels_last\n"


@pytest.mark.xdist_group("pytorch")
def test_pytorch_has_all_of_its_threads(tmp_path: Path) -> None:
    """With fewer, as `OMP_THREAD_LIMIT` and, on a busy machine, `OMP_DYNAMIC` give it, it waited for ever."""
    code = (
        "from pipeline.models import pytorch; import torch; torch.set_num_threads(2);"
        "x = torch.rand(64, 32, 28, 28, requires_grad=True); c = torch.nn.Conv2d(32, 32, 3);"
        "c(x).sum().backward(); print('done')"
    )
    assert _python(code, tmp_path, OMP_THREAD_LIMIT="1", OMP_DYNAMIC="true") == "done\n"


def test_pictures_are_the_same_whatever_matplotlib_is_told(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from pipeline.reports.figures import style\n"
        "figure, axes = style.subplots(); axes.plot([1, 3, 2]); axes.set_title('title')\n"
        "import hashlib; print(hashlib.md5(style.save(figure, Path('x.png')).read_bytes()).hexdigest())"
    )
    plain = _python(code, tmp_path)
    text = "savefig.dpi: 30\naxes.facecolor: black\nfont.family: serif\nbackend: qtagg\nlines.linewidth: 9\n"
    (tmp_path / "matplotlibrc").write_text(text, encoding="utf-8")
    assert _python(code, tmp_path, MPLBACKEND="unknown") == plain


def test_a_user_without_a_home_gets_a_temporary_one(tmp_path: Path) -> None:
    code = (
        "import os, pwd; os.environ.pop('HOME')\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        "from pipeline.core.exits import exit_codes; from pathlib import Path\n"
        "with exit_codes():\n"
        "    (Path.home() / 'x').touch(); print(Path.home())"
    )
    home = Path(_python(code, tmp_path).strip())
    assert home.name.startswith("home-")
    assert not home.exists()


def test_warnings_of_libraries_end_no_command(tmp_path: Path) -> None:
    code = (
        "from pipeline.core.exits import exit_codes\n"
        "with exit_codes():\n"
        "    import warnings, os; warnings.warn('old', DeprecationWarning); print(os.environ['MPLBACKEND'])"
    )
    assert _python(code, tmp_path, PYTHONWARNINGS="error", MPLBACKEND="unknown") == "agg\n"


@pytest.mark.xdist_group("tensorflow")
def test_tensorflow_is_imported_without_what_keras_imports_for_others(tmp_path: Path) -> None:
    """Their import takes 40 % of the time; whoever wants one of them, also at that moment in another thread, has it."""
    code = (
        "import sys, threading\n"
        "found = []\n"
        "def other():\n"
        "    while 'keras' not in sys.modules: pass\n"
        "    import sklearn\n"
        "    found.append(sklearn)\n"
        "thread = threading.Thread(target=other)\n"
        "if sys.argv[1:]: thread.start()\n"
        "from pipeline.models.tensorflow.start import keras\n"
        "names = [n for n in ('matplotlib', 'pandas', 'scipy', 'sklearn') if n in sys.modules]\n"
        "import matplotlib, pandas, scipy, sklearn\n"
        "if sys.argv[1:]: thread.join(); assert found == [sklearn]\n"
        "print(names)"
    )
    assert _python(code, tmp_path).strip() == "[]"
    assert "sklearn" in _python(code.replace("sys.argv[1:]", "True"), tmp_path)
