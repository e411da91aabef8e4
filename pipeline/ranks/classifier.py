"""A classifier that several ranks train together, as rank 0 sees it: it offers what that of one process offers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from ..config.schema.train import TrainConfig
from ..core import frameworks
from ..core.errors import RankLostError, UserError
from ..data.plan import EpochPlan
from ..models import backend
from ..models.architecture import Architecture
from ..models.backend import Classifier, Device, EpochResult, Probe, State
from ..models.share import Share
from .connection import Message
from .group import Group
from .packing import digest, of_plan, of_state


def create(framework: str, architecture: Architecture, train: TrainConfig) -> Classifier:
    """Create a classifier that trains in `train.world` processes; the other ranks are started or awaited.

    Raises `UserError` as `backend.create` does, or if the framework trains in one process only.
    """
    if train.world == 1:
        return backend.create(framework, architecture, train)
    entry = frameworks.find(framework)
    if not entry.ranks:
        raise UserError(f"train.world = {train.world}: {entry.style.title} trains in one process; allowed: 1")
    return RankedClassifier(Group.of(train.world), framework, architecture, train)


class RankedClassifier:
    """See `backend.Classifier`. All ranks hold the same state; what needs no training is computed here alone."""

    def __init__(self, group: Group, framework: str, architecture: Architecture, train: TrainConfig) -> None:
        self.architecture, self.train, self._group = architecture, train, group
        here = train if train.threads else train.model_copy(update={"threads": group.threads})
        facts = {
            "framework": framework,
            "model": architecture.model.model_dump(mode="json"),
            "image_shape": architecture.image_shape,
            "classes": architecture.classes,
            "channel_mean": architecture.channel_mean,
            "channel_std": architecture.channel_std,
            "train": here.model_dump(mode="json"),
        }
        # all have imported the framework, and can compute, before one waits for the others in the framework's own way
        group.call(Message("prepare", facts), lambda: backend.implementation(framework, architecture, here))
        share = Share(0, train.world, group.addresses)
        self._here, answers = group.call(
            Message("create", {"addresses": group.addresses}),
            lambda: backend.create(framework, architecture, here, share),
        )
        self.device, self.execution = self._here.device, self._here.execution
        self.predict_batch = self._here.predict_batch
        devices = [self.device, *(Device(**answer.facts["device"]) for answer in answers)]
        self.ranks = group.described([asdict(device) for device in devices])
        """Rank, host, process and device of each, as JSON can hold them."""
        for member, answer in zip(group.members, answers, strict=True):
            if answer.facts["execution"] != self.execution or answer.facts["device"]["type"] != self.device.type:
                raise UserError(f"{member.name} computes otherwise than rank 0 does: {answer.facts}, not {self.device}")

    def load_training_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """See `Classifier.load_training_data`."""
        self._data, self._plans = (images, np.asarray(labels, np.int64)), 0
        message = Message("load_training_data", {"shape": images.shape})
        self._group.call(message, lambda: self._here.load_training_data(images, labels))

    def _supply(self, plan: EpochPlan) -> None:
        """Send every other rank what it needs: for the first plan its own examples, for the second all.

        Data that are streamed have one plan, so that all ranks together get them once.
        """
        self._plans += 1
        if self._plans <= 2:
            wanted = [_examples(plan, member.rank, self.train.world) for member in self._group.members]
            everything = np.arange(len(self._data[1]))
            messages = [self._rows(rows if self._plans == 1 else everything) for rows in wanted]
            self._group.call(messages, lambda: None)
        if self._plans == 2:
            self._data = self._data[0][:0], self._data[1][:0]  # all have all

    def _rows(self, rows: np.ndarray) -> Message:
        images, labels = self._data
        return Message("rows", arrays={"rows": rows, "images": images[rows], "labels": labels[rows]})

    def compile(self, batch_sizes: Iterable[int]) -> float:
        """See `Classifier.compile`."""
        sizes = [int(size) for size in batch_sizes]
        return self._group.call(Message("compile", {"sizes": sizes}), lambda: self._here.compile(sizes))[0]

    def train_epoch(self, plan: EpochPlan) -> EpochResult:
        """See `Classifier.train_epoch`. Losses are summed in the order of the ranks."""
        self._supply(plan)
        here, answers = self._group.call(of_plan("train_epoch", plan), lambda: self._here.train_epoch(plan))
        loss, correct = here.loss, here.correct
        for answer in answers:
            loss, correct = loss + answer.arrays["loss"], correct + answer.arrays["correct"]
        return EpochResult(loss, correct, here.seconds)

    def iter_batches(self, plan: EpochPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Classifier.iter_batches`."""
        return self._here.iter_batches(plan)

    def probe(self, plan: EpochPlan) -> Probe:
        """See `Classifier.probe`."""
        self._supply(plan)
        here, answers = self._group.call(of_plan("probe", plan), lambda: self._here.probe(plan))
        outputs = np.concatenate([here.outputs, *(answer.arrays["outputs"] for answer in answers)])
        return Probe(outputs, here.loss + sum(float(answer.arrays["loss"]) for answer in answers), here.gradients)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """See `Classifier.predict`."""
        return self._here.predict(images)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `Classifier.set_weights`."""
        message = of_state("set_weights", State(dict(weights), {}, 0))
        self._group.call(message, lambda: self._here.set_weights(weights))

    def state(self) -> State:
        """See `Classifier.state`. Raises `RankLostError` if the state of another rank is not the same."""
        state, answers = self._group.call(Message("digest"), self._here.state)
        own = digest(state)
        for member, answer in zip(self._group.members, answers, strict=True):
            if answer.facts["digest"] != own:
                raise RankLostError(
                    f"the weights of {member.name} are not those of rank 0: unlike processors or packages compute "
                    "unlike bits; allowed: ranks on machines of one kind"
                )
        return state

    def restore(self, state: State) -> None:
        """See `Classifier.restore`."""
        self._group.call(of_state("restore", state), lambda: self._here.restore(state))

    def export(self) -> Any:
        """See `Classifier.export`."""
        return self._here.export()

    @contextmanager
    def machines(self, seconds: float | None, log: Callable[[dict[str, float]], None]) -> Iterator[None]:
        """Have `log` called with the use of each other rank's machine every `seconds`, while the body runs."""
        self._group.watch_machines(seconds, log)
        try:
            yield
        finally:
            self._group.watch_machines(None, None)

    @staticmethod
    def gpu() -> tuple[str, str]:
        """See `Classifier.gpu`, which a framework's own classifier answers."""
        return "", "it is asked of one process"

    def peak_gpu_bytes(self) -> int | None:
        """See `Classifier.peak_gpu_bytes`."""
        return self._here.peak_gpu_bytes()


def _examples(plan: EpochPlan, rank: int, world: int) -> np.ndarray:
    """Return the positions of the examples that a rank computes in a plan: sorted, each once."""
    share, starts = Share(rank, world, ()), range(0, len(plan.order), plan.batch_size)
    batches = (plan.order[start : start + plan.batch_size] for start in starts)
    return np.unique(np.concatenate([batch[share.rows(len(batch))] for batch in batches]))
