"""Exports compute what the network computes, and one that does not is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import reference
from project_copy import run, run_module

from pipeline.config.schema.model import ModelConfig
from pipeline.exports import declared, int8
from pipeline.exports.formats import open_onnx
from pipeline.models.architecture import Architecture

pytestmark = pytest.mark.xdist_group("export")
END = [{"type": "dense", "units": "classes"}]
FLAT = [{"type": "flatten"}, *END]
NETWORKS = {
    "even kernel, same, stride": [
        {"type": "conv", "filters": 5, "kernel_size": 4, "stride": 2, "padding": "same"},
        *FLAT,
    ],
    "valid, no bias": [{"type": "conv", "filters": 3, "kernel_size": 3, "bias": False, "activation": "tanh"}, *FLAT],
    "max pool, same": [{"type": "max_pool", "size": 3, "stride": 2, "padding": "same"}, *FLAT],
    "average pool, same": [{"type": "average_pool", "size": 3, "stride": 2, "padding": "same"}, *FLAT],
    "average pool": [{"type": "average_pool", "size": 2}, *FLAT],
    "batch norm": [
        {"type": "conv", "filters": 4, "kernel_size": 3, "bias": False},
        {"type": "batch_norm", "activation": "silu"},
        {"type": "global_average_pool"},
        *END,
    ],
    "batch norm of a vector": [
        {"type": "flatten"},
        {"type": "dense", "units": 7, "bias": False},
        {"type": "batch_norm", "activation": "relu"},
        {"type": "dropout", "rate": 0.5},
        *END,
    ],
    "residual in residual": [
        {
            "type": "residual",
            "activation": "relu",
            "layers": [
                {"type": "conv", "filters": 3, "kernel_size": 3, "padding": "same", "activation": "relu"},
                {"type": "residual", "layers": [{"type": "conv", "filters": 3, "kernel_size": 1}]},
            ],
            "shortcut": [{"type": "conv", "filters": 3, "kernel_size": 1}],
        },
        {"type": "flatten"},
        {"type": "dense", "units": 6, "activation": "softmax"},
        *END,
    ],
}


def network(
    layers: object, shape: tuple[int, int, int], *, normalise: bool
) -> tuple[Architecture, dict[str, np.ndarray]]:
    settings = {"name": "n", "kernel_initializer": "glorot_uniform", "bias_initializer": "fan_in_uniform"}
    model = ModelConfig.model_validate({**settings, "normalise": normalise, "layers": layers})
    channels = shape[-1]
    architecture = Architecture(model, shape, 4, (0.3,) * channels, (0.2,) * channels)
    generator = np.random.default_rng(1)
    weights = architecture.initial_weights(3)
    for name, value in weights.items():  # as after training
        if name.startswith("batch_norm"):
            weights[name] = generator.uniform(0.5, 2, value.shape)
    return architecture, weights


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("shape", [(12, 12, 1), (9, 13, 3)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_is_declared_as_the_reference_computes_it(
    name: str, shape: tuple[int, int, int], normalise: bool, tmp_path: Path
) -> None:
    architecture, weights = network(NETWORKS[name], shape, normalise=normalise)
    images = np.random.default_rng(2).integers(0, 256, (9, *shape), np.uint8)
    expected, _ = reference.outputs(architecture, weights, images)
    model = declared.model_of(architecture, weights, {"a": "b"})
    again = declared.model_of(architecture, weights, {"a": "b"})
    content = model.SerializeToString(deterministic=True)
    assert content == again.SerializeToString(deterministic=True)
    assert str(Path.cwd()).encode() not in content
    (tmp_path / "model.onnx").write_bytes(content)
    predict = open_onnx(tmp_path / "model.onnx", 1)
    for batch in (images[:1], images[:7], images):
        np.testing.assert_allclose(predict(batch), expected[: len(batch)], atol=2e-5 * max(1, np.abs(expected).max()))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", *shape])
    assert [(out.name, out.shape) for out in session.get_outputs()] == [
        ("logits", ["batch", 4]),
        ("probabilities", ["batch", 4]),
    ]
    sums = session.run(["probabilities"], {"images": images})[0].sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_int8_is_a_quarter_of_the_size(tmp_path: Path) -> None:
    layers = [{"type": "conv", "filters": 8, "kernel_size": 3, "activation": "relu"}, {"type": "flatten"}]
    layers += [{"type": "dense", "units": 64, "activation": "relu"}, *END]
    architecture, weights = network(layers, (12, 12, 1), normalise=False)
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    source.write_bytes(declared.model_of(architecture, weights, {}).SerializeToString())
    images = np.random.default_rng(2).integers(0, 256, (70, 12, 12, 1), np.uint8)
    int8.quantise(source, target, images)
    assert target.stat().st_size < source.stat().st_size / 3
    float_logits, int8_logits = open_onnx(source, 1)(images), open_onnx(target, 1)(images)
    assert 0 < np.abs(float_logits - int8_logits).max() < 0.1 * np.abs(float_logits).max()


@pytest.mark.parametrize("module", ["declared", "formats", "export"])
def test_onnx_is_written_without_a_framework(module: str) -> None:
    code = (
        f"import sys, pipeline.exports.{module}; print(sorted({{'torch', 'tensorflow', 'keras'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture(scope="module")
def project(finished: tuple[Path, str, str]) -> Path:
    return finished[0]


@pytest.mark.parametrize(("framework", "native"), [("tensorflow", "saved_model"), ("pytorch", "model.pt2")])
def test_the_stage_leaves_files_that_are_proven(project: Path, framework: str, native: str) -> None:
    folder = project / "results" / framework
    assert {path.name for path in (folder / "exports").iterdir()} == {"model.onnx", native}
    result = json.loads((folder / "exports.json").read_text())
    assert [file["format"] for file in result["files"]] == ["framework", "onnx", "native"]
    for file in result["files"]:
        assert file["difference"] <= file["allowed"]
        assert file["changed"] == 0
        assert file["timing"]["one_image_milliseconds"] > 0
    facts = {entry.key: entry.value for entry in onnx.load(folder / "exports/model.onnx").metadata_props}
    weights = json.loads((folder / "models/seed_0/classifier.json").read_text())["weights"]
    assert facts["weights"] == result["weights"] == weights
    images = np.load(project / "data/prepared/test/images.npy")
    with np.load(folder / "predictions.npz") as file:
        logits = file["logits"][0]
    found = open_onnx(folder / "exports/model.onnx", 1)(images)
    assert np.abs(found - logits).max() < 1e-4


def test_all_formats_of_both_frameworks(project: Path, framework: str) -> None:
    done = run_module(
        project,
        "pipeline.export",
        *("--params", "params.yaml", f"framework={framework}", "export.formats=[onnx,native,litert,onnx_int8]"),
        "export.examples=3",
        "export.margin=0.3",  # 60 images show no smaller one
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for title in ("ONNX", "ONNX int8", "LiteRT"):
        assert f"\n{title} " in done.stdout
    assert "equivalent, p = " in done.stdout


def test_a_file_that_computes_something_else_fails_and_nothing_is_replaced(project: Path) -> None:
    predictions = project / "results/pytorch/predictions.npz"
    kept, before = predictions.read_bytes(), (project / "results/pytorch/exports/model.onnx").read_bytes()
    with np.load(predictions) as file:
        arrays = dict(file)
    arrays["logits"][0, 7, 3] += 0.5
    predictions.unlink()
    np.savez(predictions, **arrays)
    command = ("pipeline.export", "--params", "params.yaml", "framework=pytorch")
    done = run_module(project, *command, "export.formats=[onnx]")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: ONNX: a logit differs by 0.5 from that of PyTorch; allowed: "
    )
    done = run_module(project, *command, "export.formats=[onnx_int8]", "export.margin=0.001")
    assert done.returncode == 1
    assert "error: ONNX int8: not shown to be as accurate within 0.001" in done.stderr
    predictions.unlink()
    predictions.write_bytes(kept)
    assert (project / "results/pytorch/exports/model.onnx").read_bytes() == before
    assert not list((project / "results/pytorch").glob("*.building*"))


def test_mistakes_are_named_before_any_work(project: Path) -> None:
    command = ("pipeline.export", "--params", "params.yaml", "framework=pytorch")
    for override, said in {
        "export.formats=[onnx,gguf]": "export.formats[1] = 'gguf': input should be 'onnx', 'native', 'onnx_int8' or",
        "export.formats=[onnx,onnx]": "export.formats = ['onnx', 'onnx']: every format must occur once",
        "export.tolerance=0": "export.tolerance = 0",
        "seeds=[9]": "has no seed 9; run `dvc repro evaluate`",
    }.items():
        done = run_module(project, *command, override)
        assert done.returncode == 2, override
        assert said in done.stderr
    assert run(project, "dvc", "status").returncode == 0
