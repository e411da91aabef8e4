"""What the ranks of one training exchange: TensorFlow's collective operators, in the graph of the step itself.

`tf.distribute.MultiWorkerMirroredStrategy` connects the processes. Its variables and its `run` are not used: `run`
would take a call from Python for every step, and has no XLA. One operator has the same key in every process; the keys
are given in the order in which the operators are traced, which is the same in all.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from ...core.signals import keeping_handlers
from ..share import Part, Share
from .start import context, tf

_CONNECT_SECONDS: Final = 10.0
"""How long the ranks may take to connect: all have imported TensorFlow, and it takes a tenth of a second."""
_SILENT_SECONDS: Final = 10.0
"""After how long TensorFlow takes a rank for lost, as by default; it ends the wait for one that has just connected."""
_GROUP: Final = 1
_SUBDIVISIONS: Final = 2
"""In how many parts a rank sends its share of a value: 11 MB take 24 ms in two parts and 32 in one (2 cores)."""


class Peers:
    """The collectives of one rank. A process has one cluster for its whole life."""

    _strategy: ClassVar[Any] = None
    _unused: ClassVar[Iterator[int]] = itertools.count(1)

    def __init__(self, share: Share) -> None:
        if Peers._strategy is None:
            cluster = tf.train.ClusterSpec({"worker": list(share.addresses)})
            resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
                cluster, task_type="worker", task_id=share.rank, rpc_layer="grpc"
            )
            _limit_connecting(share.world)
            with keeping_handlers():  # it sets one of SIGTERM, which only takes notes
                Peers._strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
        self._world = share.world
        self._keys: dict[tuple[str, int], int] = {}
        self._where, self._position = "", 0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Give the operators of the body the keys that they had in the last step of this name."""
        self._where, self._position = name, 0
        yield

    def add_gradients(self, gradients: list[Any]) -> list[Any]:
        """Return the sum of each gradient over the ranks; all in one exchange."""
        flat = self.summed(tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0))
        parts = tf.split(flat, [gradient.shape.num_elements() for gradient in gradients])
        return [tf.reshape(part, gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]

    def summed(self, value: Any) -> Any:
        """Return the sum over the ranks; its gradient is the sum of all ranks' gradients."""

        def total(x: Any) -> tuple[Any, Any]:
            return self._reduced(x), self._reduced

        return tf.custom_gradient(total)(value)

    def _reduced(self, value: Any) -> Any:
        place = self._where, self._position
        self._position += 1
        if place not in self._keys:
            self._keys[place] = next(self._unused)
        return tf.raw_ops.CollectiveReduceV2(
            input=value,
            group_size=self._world,
            group_key=_GROUP,
            instance_key=self._keys[place],
            ordering_token=[],
            merge_op="Add",
            final_op="Id",
            max_subdivs_per_device=_SUBDIVISIONS,
        )

    def moments(self, x: Any, part: Part) -> tuple[Any, Any, int]:
        """Return mean and variance of each channel over the whole batch, and the number of their values."""
        axes = list(range(x.shape.rank - 1))
        count = part.total
        for axis in axes[1:]:
            count *= x.shape[axis]
        mean = self.summed(tf.reduce_sum(x, axes)) / count
        variance = self.summed(tf.reduce_sum(tf.math.squared_difference(x, mean), axes)) / count
        return mean, variance, count


def _limit_connecting(world: int) -> None:
    """Have the strategy raise an error if a rank does not connect, where it would wait for an hour.

    It holds Python's lock while it waits, so that no signal and no other thread could end this process.
    """
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=int(_CONNECT_SECONDS * 1000),
        heartbeat_timeout_in_ms=int(_SILENT_SECONDS * 1000),
    )
    service = context.context().coordination_service
    service.cluster_register_with_barrier = True
    service.coordinated_job_list.add(name="worker", num_tasks=world)
