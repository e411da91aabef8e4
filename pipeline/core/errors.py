"""The errors that end a command with a message and without a traceback (see `core.exits`)."""


class UserError(Exception):
    """A mistake that the user can correct; exit code 2. The message names key, bad value and what is allowed."""


class BusyError(Exception):
    """Another process already does the same work, into the same folder; exit code 3."""


class ResultError(Exception):
    """A result that makes the command fail; exit code 1."""


class ParityError(ResultError):
    """Two arms compute different functions or had different settings."""


class TrainingDivergedError(ResultError):
    """A training loss that is not finite. The MLflow run ends FAILED and keeps its metrics."""


class RankLostError(Exception):
    """One of the processes that train together is gone, has failed, or computes something else; exit code 1.

    No `ResultError`: the last checkpoint is as good as before, and the same command continues from it.
    """


class UnsentError(ResultError):
    """Journals that MLflow has not received."""


class PrunedError(Exception):
    """A training that its search ends early, as others do better; its MLflow run ends FINISHED, with its metrics."""


class DataChangedError(ResultError):
    """Data that changed while a command was reading them."""


class ExportError(ResultError):
    """An exported file that does not compute the same as the network."""
