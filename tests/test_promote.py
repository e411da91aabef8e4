"""From a comparison to a champion that is served: by this project's server, and by MLflow's without a framework."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from project_copy import TINY, clean_environment, edit, run_module

from pipeline.core.errors import ResultError, UserError
from pipeline.exports.candidate import Candidate
from pipeline.serving import protocol

pytestmark = pytest.mark.xdist_group("export")
NAME = "simple_cnn-mnist_sample"


@pytest.fixture(scope="module")
def project(finished: tuple[Path, str, str]) -> Path:
    return finished[0]


@pytest.fixture(scope="module")
def client(project: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")


def decided(project: Path, verdict: str, **changed: Any) -> Path:
    """A comparison like the project's, whose verdict is another: 60 images decide nothing."""
    document = json.loads((project / "results/comparison/comparison.json").read_text())
    folder = project / "outputs" / f"decided-{verdict}-{len(changed)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(document | {"verdict": verdict} | changed))
    return folder


DOCUMENT = {
    "verdict": "equivalent",
    "sentence": "Equivalent.",
    **{
        key: {
            "name": name.upper(),
            "framework": {"name": name},
            "runs": {"4": "x", "1": "y"},
            "settings": {"data": {"fingerprint": "f", "name": "d"}, "model": {"name": "m"}},
        }
        for key, name in (("a", "tf"), ("b", "torch"))
    },
    "metrics": {"accuracy": {"a": {"mean": 0.9}, "b": {"mean": 0.8}}},
    "parity": {"passed": True},
}


def ratio(low: float, mean: float, high: float) -> dict[str, float]:
    return {"low": low, "mean": mean, "high": high}


@pytest.mark.parametrize(
    ("changed", "framework", "reason"),
    [
        ({"verdict": "a_better"}, "tf", "TF is better than TORCH"),
        ({"verdict": "b_better"}, "torch", "TORCH is better than TF"),
        ({"speed": {"ratios": {"latency": ratio(0.4, 0.5, 0.6)}}}, "torch", "TORCH is equivalent to TF and 2.00 times"),
        (
            {"speed": {"ratios": {"latency": ratio(0.9, 1, 1.1), "inference": ratio(1.1, 1.2, 1.3)}}},
            "tf",
            "TF is equivalent to TORCH and 1.20 times as fast at inference",
        ),
        ({"speed": None}, "tf", "TF and TORCH are equivalent, and their speed was not measured; TF comes first"),
        ({"speed": {"ratios": {"latency": ratio(0.9, 1, 1.1)}}}, "tf", "TF and TORCH are equivalent and equally fast"),
    ],
)
def test_the_better_side_goes_on_and_of_equivalent_ones_the_faster(
    changed: dict[str, Any], framework: str, reason: str
) -> None:
    found = Candidate.of(DOCUMENT | changed, "it")
    assert found.framework == framework
    assert found.reason.startswith(reason)
    assert found.seed == 1  # the first, whichever is the best on the test split


def test_what_decides_nothing_is_refused() -> None:
    with pytest.raises(ResultError, match=r"it: nothing is promoted\. Too few\."):
        Candidate.of(DOCUMENT | {"verdict": "inconclusive", "sentence": "Too few."}, "it")
    with pytest.raises(ResultError, match="it: parity failed"):
        Candidate.of(DOCUMENT | {"parity": {"passed": False}}, "it")
    with pytest.raises(UserError, match="it: is no comparison of this version"):
        Candidate.of({"verdict": "a_better"}, "it")


def test_an_inconclusive_comparison_changes_nothing(project: Path, client: mlflow.MlflowClient) -> None:
    done = run_module(project, "pipeline.promote", str(decided(project, "inconclusive")))
    assert done.returncode == 1
    assert "nothing is promoted" in done.stderr
    assert not client.search_registered_models()
    missing = run_module(project, "pipeline.promote", "nothing")
    assert missing.returncode == 2
    assert "nothing: names no run in this store" in missing.stderr


def test_a_weak_champion_is_replaced_and_the_versions_tell_their_origin(
    project: Path, client: mlflow.MlflowClient
) -> None:
    weak = run_module(
        project,
        *("pipeline.train", "-m", "framework=tensorflow,pytorch", "train.epochs=1", *TINY, "evaluate.plots=false"),
        *("train.optimizer.learning_rate=1e-9", "hydra.sweep.dir=multirun/weak"),
    )
    assert weak.returncode == 0, weak.stderr[-3000:]
    folders = {name: project / "multirun/weak" / job for name, job in (("a", "0"), ("b", "1"))}
    document = json.loads((project / "results/comparison/comparison.json").read_text())
    for key, folder in folders.items():
        runs = json.loads((folder / "runs.json").read_text())["seeds"]
        document[key]["runs"] = {seed: entry["run"] for seed, entry in runs.items()}
    first = run_module(project, "pipeline.promote", str(decided(project, "a_better", a=document["a"], b=document["b"])))
    assert first.returncode == 0, first.stderr[-3000:]
    assert first.stdout.startswith(f"{NAME}/1 is the first champion: TensorFlow is better than PyTorch\n")

    second = run_module(project, "pipeline.promote", str(decided(project, "b_better")))
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stdout.startswith(f"{NAME}/2 takes the place of {NAME}/1: challenger {NAME}/2 is better. ")
    assert second.stderr == ""
    again = run_module(project, "pipeline.promote", str(decided(project, "b_better")))
    assert again.returncode == 0
    assert again.stdout.startswith(f"{NAME}/2 is the champion already\n")
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "2"
    assert str(client.get_model_version_by_alias(NAME, "previous").version) == "1"
    assert "challenger" not in client.get_registered_model(NAME).aliases

    version = client.get_model_version(NAME, "2")
    runs = json.loads((project / "results/pytorch/runs.json").read_text())["seeds"]
    assert version.run_id == runs["0"]["run"]
    assert version.tags["framework"] == "pytorch"
    assert version.description.startswith("PyTorch simple_cnn on mnist_sample: ")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert json.loads(model.tags["mlflow.modelVersions"])[0]["name"] == NAME
    assert {"mlflow.user", "mlflow.source.name", "mlflow.note.content"} <= set(model.tags)
    assert {metric.dataset_name for metric in model.metrics} == {"mnist_sample"}
    stored = next((project / "mlartifacts").rglob(f"{model.model_id}/artifacts/model.onnx"))
    assert b"pytorch" in stored.read_bytes()
    card = run_module(project, "pipeline.lineage", f"{NAME}@champion").stdout
    assert f"version 2 of the model {NAME}" in card
    assert re.search(rf"version +{NAME}/2 @champion", card)


def test_one_that_is_not_better_stays_the_challenger(project: Path, client: mlflow.MlflowClient) -> None:
    edit(project / "conf/compare/default.yaml", accuracy="0.9 # whatever")
    done = run_module(project, "pipeline.promote", str(decided(project, "a_better")))
    edit(project / "conf/compare/default.yaml", accuracy="0.005 # half a percentage point")
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith(f"error: {NAME}/3 is the challenger, and {NAME}/2 stays the champion. ")
    assert str(client.get_model_version_by_alias(NAME, "champion").version) == "2"
    assert str(client.get_model_version_by_alias(NAME, "challenger").version) == "3"


def test_another_champion_s_data_are_refused(project: Path, client: mlflow.MlflowClient) -> None:
    tag = client.get_model_version(NAME, "2").tags["data.fingerprint"]
    client.set_model_version_tag(NAME, "2", "data.fingerprint", "other")
    done = run_module(project, "pipeline.promote", str(decided(project, "b_better")))
    client.set_model_version_tag(NAME, "2", "data.fingerprint", tag)
    assert done.returncode == 1
    assert f"{NAME}: the champion {NAME}/2 was trained on the data other, this one on {tag}" in done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int, ready: str, project: Path, **environment: str) -> Iterator[Any]:
    process = subprocess.Popen(
        command,
        cwd=project,
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, process.stdout and process.stdout.read()
            assert time.monotonic() < deadline
            try:
                if ask(port, "GET", ready)[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)
        assert process.stdout
        process.stdout.close()


def ask(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
    connection.close()
    return found


def tensor(images: np.ndarray, **changed: Any) -> dict[str, Any]:
    entry = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.tolist()}
    return {"inputs": [entry | changed]}


def test_the_champion_is_served_by_the_open_protocol(project: Path) -> None:
    images = np.load(project / "data/prepared/test/images.npy")
    with np.load(project / "results/pytorch/predictions.npz") as file:
        logits = file["logits"][0]
    port = free_port()
    command = [sys.executable, "-m", "pipeline.serve", f"{NAME}@champion", "--port", str(port), "--most-images", "60"]
    with serving(command, port, "/v2/health/ready", project) as process:
        path = f"/v2/models/{NAME}/infer"
        status, body, _ = ask(port, "POST", path, json.dumps(tensor(images[:3]) | {"id": "7"}).encode())
        answer = json.loads(body)
        assert (status, answer["id"], answer["model_version"]) == (200, "7", "2")
        assert [output["name"] for output in answer["outputs"]] == ["logits", "probabilities"]
        np.testing.assert_allclose(np.reshape(answer["outputs"][0]["data"], (3, 10)), logits[:3], atol=1e-4)
        entry = {"parameters": {"binary_data_size": images.nbytes}}
        document = tensor(images, **entry)
        document["inputs"][0].pop("data")
        document["outputs"] = [{"name": "logits", "parameters": {"binary_data": True}}]
        head = json.dumps(document).encode()
        length = {"Inference_Header_Content_Length": str(len(head))}
        status, body, headers = ask(
            port, "POST", f"/v2/models/{NAME}/versions/2/infer", head + images.tobytes(), **length
        )
        split = int(headers["inference-header-content-length"])
        assert (status, headers["content-type"]) == (200, "application/octet-stream")
        np.testing.assert_allclose(np.frombuffer(body[split:], "<f4").reshape(60, 10), logits, atol=1e-4)
        status, body, _ = ask(port, "GET", f"/v2/models/{NAME}")
        assert json.loads(body)["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28, 1]}]
        assert json.loads(body)["parameters"]["classes"].startswith("0, 1")
        assert ask(port, "GET", "/v2/models/other")[0] == 404
        assert ask(port, "POST", path, b"{")[:2] == (400, b'{"error":"the body is not JSON: ' + json_error())
        status, body, _ = ask(port, "POST", path, json.dumps(tensor(np.zeros((61, 28, 28, 1), np.uint8))).encode())
        assert (status, json.loads(body)["error"]) == (
            400,
            "inputs[0].shape = [61, 28, 28, 1]: allowed: [1 to 60, 28, 28, 1]",
        )
        for size in (400_000, 40_000_000):  # the second takes longer to send than to refuse
            assert ask(port, "POST", path, b" " * size)[0] == 400
        busy = run_module(project, "pipeline.serve", f"{NAME}@champion", "--port", str(port))
        assert busy.returncode == 2
        assert f"--port {port}: Address already in use" in busy.stderr
        stuck = socket.create_connection(("127.0.0.1", port))
        stuck.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode())
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
        assert time.monotonic() - began < 5


def json_error() -> bytes:
    return b'Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"}'


def test_mlflow_serves_the_champion_without_a_framework(project: Path, tmp_path: Path) -> None:
    for name in ("torch", "tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not to be imported')\n")
    images = np.load(project / "data/prepared/test/images.npy")[:2]
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
    command += ["--env-manager", "local", "-p", str(port), "-h", "127.0.0.1", "-w", "1"]
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}", "PYTHONPATH": str(tmp_path)}
    with serving(command, port, "/health", project, **environment):
        body = json.dumps({"inputs": {"images": images.tolist()}}).encode()
        status, answer, _ = ask(port, "POST", "/invocations", body, Content_Type="application/json")
    assert status == 200, answer
    with np.load(project / "results/pytorch/predictions.npz") as file:
        np.testing.assert_allclose(json.loads(answer)["predictions"]["logits"], file["logits"][0, :2], atol=1e-4)


IMAGE = np.zeros((1, 2, 2, 1), np.uint8)
BAD: dict[str, tuple[Any, str]] = {
    "a list": ([1], "the body is [1]: allowed: an object with the key inputs"),
    "no input": ({"inputs": []}, "inputs = []: allowed: a list of one tensor, images"),
    "its name": (tensor(IMAGE, name="x"), 'inputs[0].name = "x": allowed: images'),
    "type": (tensor(IMAGE, datatype="FP32"), 'inputs[0].datatype = "FP32": allowed: UINT8'),
    "shape": (tensor(IMAGE, shape=[1, 2, 3, 1]), "inputs[0].shape = [1, 2, 3, 1]: allowed: [1 to 8, 2, 2, 1]"),
    "shape of truth": (tensor(IMAGE, shape=[True, 2, 2, 1]), "inputs[0].shape = [true, 2, 2, 1]: allowed"),
    "no image": (tensor(IMAGE, shape=[0, 2, 2, 1]), "inputs[0].shape = [0, 2, 2, 1]: allowed"),
    "too many": (tensor(IMAGE, shape=[10**15, 2, 2, 1]), "inputs[0].shape = [1000000000000000, 2, 2, 1]: allowed"),
    "too few values": (tensor(IMAGE, data=[1, 2]), "inputs[0]: 2 values; its shape [1, 2, 2, 1] has 4"),
    "ragged": (tensor(IMAGE, data=[[1], [2, 3]]), "inputs[0].data: its lists are not all of one length"),
    "too large": (tensor(IMAGE, data=[0, 0, 0, 256]), "inputs[0].data: holds other values"),
    "negative": (tensor(IMAGE, data=[0, 0, 0, -1]), "inputs[0].data: holds other values"),
    "huge": (tensor(IMAGE, data=[0, 0, 0, 10**30]), "inputs[0].data: holds other values"),
    "fractions": (tensor(IMAGE, data=[0, 0, 0, 0.5]), "inputs[0].data: holds other values"),
    "texts": (tensor(IMAGE, data=["0", "0", "0", "0"]), "inputs[0].data: holds other values"),
    "nothing": (tensor(IMAGE, data=[None] * 4), "inputs[0].data: holds other values"),
    "truths": (tensor(IMAGE, data=[True] * 4), "inputs[0].data: holds other values"),
    "no data": (tensor(IMAGE, data=None), "inputs[0].data = null: allowed: a list of whole numbers"),
    "binary size": (tensor(IMAGE, parameters={"binary_data_size": 9}), "inputs[0].parameters.binary_data_size = 9: 0"),
    "parameters": (tensor(IMAGE, parameters=[1]), "parameters of inputs[0] = [1]: allowed: an object"),
    "outputs": (tensor(IMAGE) | {"outputs": [{"name": "x"}]}, 'outputs[0].name = "x": allowed: logits, probabilities'),
    "transposed": (tensor(IMAGE, data=[[0, 0], [0, 0]]), "inputs[0].data: is of the shape [2, 2]; allowed: flat, or"),
    "outputs, zero": (tensor(IMAGE) | {"outputs": 0}, "outputs = 0: allowed: a list"),
    "outputs, no list": (tensor(IMAGE) | {"outputs": "x"}, 'outputs = "x": allowed: a list'),
    "id": (tensor(IMAGE) | {"id": 7}, "id = 7: allowed: a text"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_request_gets_one_line(name: str) -> None:
    document, said = BAD[name]
    with pytest.raises(protocol.BadRequestError, match=re.escape(said)) as caught:
        protocol.parse(json.dumps(document).encode(), None, (2, 2, 1), 8)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_bytes_that_are_no_request_get_one_line() -> None:
    generator = np.random.default_rng(0)
    good = json.dumps(tensor(IMAGE)).encode()
    bodies = [generator.bytes(size) for size in range(1, 200)] + [good[:size] for size in range(len(good))]
    for body in [*bodies, b"[" * 100_000, b"NaN", b'{"inputs": [{"name": NaN}]}']:
        with pytest.raises(protocol.BadRequestError):
            protocol.parse(body, None, (2, 2, 1), 8)
    for depth in range(900, 1100):
        with pytest.raises(protocol.BadRequestError):
            protocol.parse(b"[" * depth + b"]" * depth, None, (2, 2, 1), 8)
    for length in ("-1", "x", "99999", "\u00b2", "9" * 5000):
        with pytest.raises(protocol.BadRequestError, match="Inference-Header-Content-Length"):
            protocol.parse(good, length, (2, 2, 1), 8)
