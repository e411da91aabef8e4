"""The errors that end a command with a message and without a traceback (see `pipeline.entry`)."""


class UserError(Exception):
    """A mistake the user can mend. The message names the key, the bad value and what is allowed.

    Entry points print it without a traceback and exit with code 2 (see `pipeline.entry`).
    """


class ParityError(Exception):
    """The two sides do not compute the same, or were not asked the same; exit code 1."""


class TrainingDivergedError(Exception):
    """The loss is no longer a finite number. The run is FAILED, what was logged stays; exit code 1."""
