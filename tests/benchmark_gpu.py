"""`python tests/benchmark_gpu.py [FILE]`: what PyTorch's classifier does on a GPU, in one go of a few minutes.

float64 against the CPU, the same bits twice, streamed against resident images, and images/s beside a bare step: the
same network and optimiser on one batch that lies ready on the device, eager, under `torch.compile` and as a CUDA graph.
`--ranks [FILE]`: 50 steps in float64 of two and three ranks, which share the GPU by Gloo where there is one alone, and
of one rank by NCCL, against one process; their images/s; and how a rank that is killed ends.
Needs a GPU, PyTorch and what `pipeline.models` imports; neither TensorFlow nor MLflow. Prints a line each, and writes
all as JSON where a FILE is given.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.config.compose import compose  # noqa: E402
from pipeline.core.errors import RankLostError  # noqa: E402
from pipeline.data.build import write_dataset  # noqa: E402
from pipeline.data.dataset import Dataset  # noqa: E402
from pipeline.data.loader import BatchLoader  # noqa: E402
from pipeline.data.plan import draw_epoch  # noqa: E402
from pipeline.data.providers.source import ArraySource  # noqa: E402
from pipeline.models import backend  # noqa: E402
from pipeline.models.architecture import Architecture  # noqa: E402

NETWORKS = ("simple_cnn", "lenet5", "resnet8")
SHAPE, CLASSES, COUNT = (32, 32, 3), 10, 50_000  # as CIFAR-10's training split
ROUNDS = 3
EXECUTIONS = ("eager", "graph", "compiled")
STREAMED = 32 << 20  # bytes of images on the GPU at once


def data(folder: Path, count: int) -> Dataset:
    """Random images."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *SHAPE), np.uint8)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    folder.mkdir(parents=True)
    parts = {"train": (images, labels), "test": (images[:100], labels[:100])}
    source = ArraySource(parts, tuple(map(str, range(CLASSES))))
    return write_dataset(source, compose(["data.validation_fraction=0.01"]).data, folder)


def create(dataset: Dataset, *overrides: str) -> Any:
    """A classifier at its beginning."""
    config = compose([*overrides, "train.epochs=2"])
    classifier = backend.create("pytorch", Architecture.of(config.model, dataset), config.train)
    backend.initialise(classifier, 0)
    return classifier


def train(classifier: Any, dataset: Dataset, steps: int | None = None, limit: int = 1 << 40) -> dict[str, Any]:
    """Weights, losses and images/s after one epoch, or so many steps of it."""
    split, size = dataset.split("train"), classifier.train.batch_size
    feed = BatchLoader(classifier, split, limit, size)
    plan = draw_epoch(classifier.train, examples=len(split.labels), seed=0, epoch=0)
    classifier.compile([size, len(split.labels) % size or size])
    began, losses = time.perf_counter(), []
    for piece in feed.pieces(plan.segment(0, steps or plan.steps)):
        losses.append(classifier.train_epoch(piece).loss)
    seconds = time.perf_counter() - began
    arrays = classifier.state().weights | {"loss": np.concatenate(losses)}
    return {"arrays": arrays, "rate": len(plan.segment(0, steps or plan.steps).order) / seconds, "feed": feed}


def trajectory(network: str, folder: Path, target: Path) -> None:
    """Twenty steps in float64, on the device that this process sees."""
    overrides = (f"model={network}", "train.precision=float64", "train.batch_size=32", "train.augment.flip=true")
    classifier = create(Dataset.open(folder), *overrides)
    np.savez(target, device=classifier.device.type, **train(classifier, Dataset.open(folder), 20)["arrays"])


def apart(one: Any, other: Any) -> float:
    """The largest relative deviation of an array (2-norm)."""
    names = [name for name in one if name != "device"]
    return max(float(np.linalg.norm(one[n] - other[n]) / max(np.linalg.norm(other[n]), 1e-300)) for n in names)


def bare(classifier: Any, dataset: Dataset) -> dict[str, Callable[[], Any]]:
    """A step on one batch that is ready, in PyTorch's own objects: eager, compiled, as a CUDA graph."""
    import torch
    from torch.nn import functional

    size, split = classifier.train.batch_size, dataset.split("train")
    x = torch.tensor(split.images[:size], device="cuda").float() / 255
    y, key = torch.tensor(split.labels[:size], device="cuda"), torch.tensor(0, device="cuda")
    network = classifier._network
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True, capturable=True)

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network(x, key), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def channels_first() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(network._apply_all(network._specs, first, key), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    first = x.permute(0, 3, 1, 2).contiguous()
    found: dict[str, Callable[[], Any]] = {"eager": step, "eager, channels first": channels_first}
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step()
        found["CUDA graph"] = lambda: (graph.replay(), loss)[1]
    except RuntimeError as error:
        print("CUDA graph:", str(error).splitlines()[0])
    forward = torch.compile(lambda a, b: functional.cross_entropy(network(a, key), b), dynamic=False)

    def compiled() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    found["torch.compile"] = compiled
    return found


def rate_of(step: Callable[[], Any], size: int, seconds: float = 1.0) -> float:
    """Images/s, the device's work included."""
    for _ in range(5):
        step()
    float(step())
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(20):
            last = step()
        float(last)
        count += 20
    return count * size / (time.perf_counter() - began)


def compared(dataset: Dataset, size: int) -> dict[str, Any]:
    """Bits and rates of each execution, and the rates of bare steps."""
    import torch

    found: dict[str, Any] = {}
    trained, steps = {}, {}
    for execution in EXECUTIONS:
        overrides = ("model=resnet8", f"train.batch_size={size}", f"train.execution={execution}")
        began = time.perf_counter()
        first = train(create(dataset, *overrides), dataset)
        seconds = time.perf_counter() - began
        again = train(create(dataset, *overrides), dataset)
        torch.cuda.reset_peak_memory_stats()
        streamed = train(create(dataset, *overrides), dataset, limit=STREAMED)
        assert streamed["feed"].streamed
        assert not first["feed"].streamed
        bits = [{name: value.tobytes() for name, value in run["arrays"].items()} for run in (first, again, streamed)]
        found[execution] = {
            "same bits twice": bits[0] == bits[1],
            "streamed to the same bits": bits[0] == bits[2],
            "MiB, streamed": torch.cuda.max_memory_allocated() / 2**20,
            "seconds of the first epoch and its compilation": seconds,
            "from eager": apart(first["arrays"], reference) if (reference := trained.get("eager")) else 0.0,
        }
        trained.setdefault(execution, first["arrays"])
        steps[execution] = create(dataset, *overrides)
        train(steps[execution], dataset)
    rates: dict[str, list[float]] = {}
    others = bare(create(dataset, "model=resnet8", f"train.batch_size={size}"), dataset)
    for _ in range(ROUNDS):
        for execution, classifier in steps.items():
            rates.setdefault(execution, []).append(train(classifier, dataset)["rate"])
            rates.setdefault(f"{execution}, streamed", []).append(train(classifier, dataset, limit=STREAMED)["rate"])
        for name, step in others.items():
            rates.setdefault(f"bare {name}", []).append(rate_of(step, size))
    found["images/s"] = {name: round(float(np.median(values))) for name, values in rates.items()}
    return found


def main(target: str | None) -> None:
    """See the module."""
    import torch

    facts: dict[str, Any] = {"card": torch.cuda.get_device_name(0), "torch": torch.__version__}
    facts["cudnn"] = torch.backends.cudnn.version()
    print(facts, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        small, large = data(Path(scratch) / "small", 1500), data(Path(scratch) / "large", COUNT)
        for network in NETWORKS:
            found = {}
            for device, seen in (("cpu", ""), ("gpu", os.environ.get("CUDA_VISIBLE_DEVICES", "0"))):
                path = Path(scratch) / f"{network}-{device}.npz"
                command = [sys.executable, __file__, "--trajectory", network, str(small.folder), str(path)]
                subprocess.run(command, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": seen})
                found[device] = dict(np.load(path))
                assert str(found[device]["device"]) == device
            facts[f"float64 {network}"] = apart(found["gpu"], found["cpu"])
            print(f"float64, 20 steps, {network}: relative {facts[f'float64 {network}']:.1e} from the CPU", flush=True)
        for size in (64, 512):
            facts[f"batch {size}"] = found = compared(large, size)
            print(f"resnet8, batch {size}: {json.dumps(found, indent=1)}", flush=True)
    if target:
        Path(target).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def shared(network: str, kind: str, folder: Path, target: Path) -> None:
    """Fifty steps in float64 by so many ranks, or by one that exchanges by NCCL; then images/s in float32."""
    import torch.distributed

    from pipeline.models.share import Share
    from pipeline.ranks import classifier as ranked
    from pipeline.ranks.connection import free_port

    dataset, world = Dataset.open(folder), 1 if kind == "nccl" else int(kind)
    alone = Share(0, 1, (f"127.0.0.1:{free_port()}",)) if kind == "nccl" else None
    found = {}
    for precision, steps in (("float64", 50), ("float32", 20)):
        overrides = [f"model={network}", "train.epochs=2", f"train.world={world}", "train.execution=eager"]
        overrides += [f"train.precision={precision}", "train.batch_size=63", "train.augment.flip=true"]
        config = compose([*overrides, "train.label_smoothing=0.1", "train.clip_norm=0.5"])
        architecture = Architecture.of(config.model, dataset)
        if alone:
            classifier: Any = backend.create("pytorch", architecture, config.train, alone)
        else:
            classifier = ranked.create("pytorch", architecture, config.train)
        backend.initialise(classifier, 0)
        found[precision] = train(classifier, dataset, steps)
    again = [train(classifier, dataset, 20) for _ in range(5)]
    engine = torch.distributed.get_backend() if torch.distributed.is_initialized() else "none"
    facts = {"rate": float(np.median([each["rate"] for each in again])), "engine": engine, "ended": ""}
    if world > 1:
        member = ranked.Group.of(world).members[-1]
        threading.Timer(1, os.kill, (member.pid, signal.SIGKILL)).start()
        began = time.perf_counter()
        try:
            while time.perf_counter() < began + 60:
                train(classifier, dataset, 20)
        except RankLostError as error:
            facts["ended"] = f"{time.perf_counter() - began:.1f} s: {error}"
    np.savez(target, device=classifier.device.type, **found["float64"]["arrays"])
    target.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")


def ranks(target: str | None) -> None:
    """See the module."""
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = data(Path(scratch) / "data", 3500).folder
        for network in NETWORKS:
            found = {}
            for kind in ("1", "nccl", "2", "3"):
                path = Path(scratch) / f"{network}-{kind}.npz"
                command = [sys.executable, __file__, "--shared", network, kind, str(folder), str(path)]
                done = subprocess.run(command, check=False, timeout=200)
                if done.returncode and not path.exists():
                    print(f"{network}, {kind}: ended with code {done.returncode}", flush=True)
                    continue
                found[kind] = dict(np.load(path))
                said = json.loads(path.with_suffix(".json").read_bytes())
                said |= {"device": str(found[kind]["device"]), "from one process": apart(found[kind], found["1"])}
                facts[f"{network} {kind}"] = said
                print(f"{network}, {kind}: {json.dumps(said)}", flush=True)
    if target:
        Path(target).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--shared"]:
        shared(sys.argv[2], sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
    elif sys.argv[1:2] == ["--ranks"]:
        ranks(*sys.argv[2:3] or [None])
    elif sys.argv[1:2] == ["--trajectory"]:
        trajectory(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(*sys.argv[1:2] or [None])
