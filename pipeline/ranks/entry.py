"""Where a command that trains parts ways: rank 0 goes on, and the ranks that a launcher started beside it follow."""

import os
from collections.abc import Callable, Sequence
from typing import Final

from ..core import fingerprint
from ..core.errors import UserError
from .launch import ARGUMENTS, found, other_world

_SWEEP: Final = ("-m", "--multirun")


def enter(arguments: Sequence[str], check: Callable[[Sequence[str]], None]) -> list[str]:
    """Return the arguments of the command, with the launcher's number of ranks; in other ranks than 0, never return.

    `check` is called with the arguments in these ranks, which would wait long for a rank 0 that has refused them.
    Raises `UserError` for a sweep, for a port that is taken, and as `check` does.
    """
    launched = found()
    if launched is None:
        return list(arguments)
    if set(arguments) & set(_SWEEP):
        raise UserError(
            f"-m: {launched.launcher} started {launched.world} ranks for one training; allowed: a sweep without "
            f"{launched.launcher}, whose jobs start their ranks themselves: train.world={launched.world}"
        )
    named = [argument.lstrip("+").split("=", 1) for argument in arguments]
    world = next((part[1] for part in reversed(named) if part[0] == "train.world" and len(part) > 1), None)
    if world is not None and world.strip() != str(launched.world):
        raise other_world(world, launched)
    os.environ[ARGUMENTS] = fingerprint.of_json({name: value for name, *value in named}, 32)  # the last one counts
    launched.require_free_port()
    given = world is not None or any(part[0] == "--params" for part in named)
    complete = [*arguments, *([] if given else [f"train.world={launched.world}"])]
    if launched.rank:
        from .follower import follow

        check(complete)
        follow(launched)
    return complete
