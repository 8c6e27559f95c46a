"""The mistakes a user can mend, by kind; each message says what, where, the numbers and what to do."""


class AccError(ValueError):
    """Base of every error that is shown to the user as one line; the process exits with `exit_code`."""

    exit_code = 2


class ConfigError(AccError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(AccError):
    """An input or a dataset folder is missing, damaged or of an unknown shape."""


class TooManyBadRows(DataError):
    """More rows were unreadable than the caller allows."""

    exit_code = 3


class CheckpointError(AccError):
    """A checkpoint or a Hugging Face folder is missing, damaged or of another model."""


class EnvironmentProblem(AccError):
    """Something this machine lacks: a package, a file, a device."""


class ArgumentError(AccError):
    """An argument of a public function has the wrong shape, dtype, device or value."""


class NonFiniteStep(AccError):
    """A loss or a gradient is not a number; the step was not taken."""

    exit_code = 21


class TooManySpikes(AccError):
    """More steps were skipped as spikes than the rule allows."""

    exit_code = 22
