"""The errors that end a command with a message and without a traceback (see `pipeline.entry`)."""


class UserError(Exception):
    """A mistake the user can mend. The message names the key, the bad value and what is allowed.

    Entry points print it without a traceback and exit with code 2 (see `pipeline.entry`).
    """


class BusyError(Exception):
    """Another process does the same already; exit code 3."""


class ResultError(Exception):
    """The work was done, and its result is bad; exit code 1."""


class ParityError(ResultError):
    """The two sides do not compute the same, or were not asked the same."""


class TrainingDivergedError(ResultError):
    """The loss is no longer a finite number. The run is FAILED, what was logged stays."""


class UnsentError(ResultError):
    """Something that should have gone to MLflow still waits."""


class DataChangedError(ResultError):
    """The data were not the same from the beginning to the end."""
