"""Group the events of a journal into calls to MLflow."""

from collections.abc import Iterator
from typing import Any, Final

BATCHED: Final = ("metrics", "params", "tags")
"""Events that go to MLflow many in a call."""
_POINTS_PER_CALL: Final = 1000
_NAMES_PER_CALL: Final = 100  # MLflow's limit on parameters and on tags


def batches(events: Iterator[tuple[dict[str, Any], int]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Group events into batches of one call each; yield each batch with the byte offset behind it."""
    batch: list[dict[str, Any]] = []
    points = names = end = 0
    for event, after in events:
        kind = event["event"]
        more_points = sum(map(len, event["values"].values())) if kind == "metrics" else 0
        more_names = len(event["values"]) if kind in ("params", "tags") else 0
        full = points + more_points > _POINTS_PER_CALL or names + more_names > _NAMES_PER_CALL
        if batch and (full or kind not in BATCHED):
            yield batch, end
            batch, points, names = [], 0, 0
        end = after
        if kind not in BATCHED:
            yield [event], end
            continue
        batch.append(event)
        points, names = points + more_points, names + more_names
    if batch:
        yield batch, end
