"""The errors that users see. Each message says what is wrong, where, with which numbers, and how to fix it."""


class AccError(ValueError):
    """Base of every error that is shown to the user as one line; the process exits with `exit_code`."""

    exit_code = 2


class ConfigError(AccError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class DataError(AccError):
    """An input or a dataset folder is missing, damaged or has an unknown format."""


class TooManyBadRows(DataError):
    """The share of unreadable rows is above the limit."""

    exit_code = 3


class CheckpointError(AccError):
    """A checkpoint or a Hugging Face folder is missing, damaged or belongs to another model."""


class EnvironmentProblem(AccError):
    """This machine lacks a package, a file, a device or another resource."""


class JobFailed(AccError):
    """A job of a launch or of the quickstart ended with an error, so the jobs after it did not start."""

    exit_code = 1


class ArgumentError(AccError):
    """An argument of a public function has the wrong shape, dtype, device or value."""


class NonFiniteStep(AccError):
    """A loss or a gradient is infinite or not a number; the optimizer step was not taken."""

    exit_code = 21


class TooManySpikes(AccError):
    """More training steps were skipped because of loss spikes than the settings allow."""

    exit_code = 22


class Dropped(Exception):
    """A row is left out for a stated reason; the caller counts it under `reason`, a short slug.

    `num_tokens` is the length of the row's document, or 0 where it was not tokenized.
    """

    def __init__(self, reason: str, detail: str = "", *, num_tokens: int = 0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.num_tokens = num_tokens
