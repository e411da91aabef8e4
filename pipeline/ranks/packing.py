"""Plans and states as messages between ranks."""

from typing import Any

import numpy as np

from ..core import fingerprint
from ..data.plan import EpochPlan
from ..models.backend import State
from .connection import Message

_PLAN: tuple[str, ...] = ("order", "learning_rate", "dropout_keys", "augmentation")


def of_plan(name: str, plan: EpochPlan) -> Message:
    """Return a message that holds a plan."""
    return Message(name, {"batch_size": plan.batch_size}, {field: getattr(plan, field) for field in _PLAN})


def plan_of(message: Message) -> EpochPlan:
    """Return the plan of a message."""
    arrays: dict[str, Any] = {field: message.arrays[field] for field in _PLAN}
    return EpochPlan(batch_size=message.facts["batch_size"], **arrays)


def digest(state: State) -> str:
    """Return a digest of weights and optimiser: 32 hexadecimal digits."""
    arrays = [*state.weights.values(), *(value for slot in state.slots.values() for value in slot.values())]
    return fingerprint.of_bytes(b"".join(np.ascontiguousarray(value).tobytes() for value in arrays), 32)


def of_state(name: str, state: State) -> Message:
    """Return a message that holds a state."""
    arrays = {f"weights:{key}": value for key, value in state.weights.items()}
    arrays |= {f"{slot}:{key}": value for slot, values in state.slots.items() for key, value in values.items()}
    return Message(name, {"step": state.step, "slots": list(state.slots)}, arrays)


def state_of(message: Message) -> State:
    """Return the state of a message."""

    def named(kind: str) -> dict[str, np.ndarray]:
        start = f"{kind}:"
        return {key.removeprefix(start): value for key, value in message.arrays.items() if key.startswith(start)}

    return State(named("weights"), {slot: named(slot) for slot in message.facts["slots"]}, message.facts["step"])
