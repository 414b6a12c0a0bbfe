"""Errors that teach: what is wrong, where, what was found, what is allowed, what to type next.

Every error a user can cause is a `MarlSaleError`; its class fixes the exit code of the command line.
Anything else that escapes is a bug (exit code 1).
"""

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees."""

    DONE = 0
    BUG = 1
    USAGE = 2
    ARTIFACT = 3
    RUN_EXISTS = 4
    RESOURCES = 5
    DIVERGED = 6
    ENVIRONMENT = 7
    DISK_FULL = 8
    SWEEP = 9
    STOPPED = 75


class MarlSaleError(Exception):
    """Base of every error with a message for the user.

    `what` says what is wrong and where; `hint` says what to do about it.
    """

    exit_code = ExitCode.BUG

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what


class UsageError(MarlSaleError):
    """The command line asks for something that cannot be done."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A recipe or an override is wrong; carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[str], hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems), hint)


class ArtifactError(MarlSaleError):
    """An artifact is missing, damaged, or does not fit what is asked of it."""

    exit_code = ExitCode.ARTIFACT

    def __init__(self, what: str, hint: str = "make it again, or take an intact copy of it") -> None:
        super().__init__(what, hint)


class UnreachableError(ArtifactError):
    """The system could not answer just now; nothing is known to be damaged."""

    exit_code = ExitCode.STOPPED


class RunExistsError(MarlSaleError):
    """The output folder is not empty; nothing in it was touched."""

    exit_code = ExitCode.RUN_EXISTS


class ResourceError(MarlSaleError):
    """Not enough memory or disk for what is planned."""

    exit_code = ExitCode.RESOURCES


class DivergedError(MarlSaleError):
    """The numbers of a training run stopped being finite."""

    exit_code = ExitCode.DIVERGED


class NotFiniteError(DivergedError):
    """One update was left out because its gradient was not finite; `first` names where that began."""

    def __init__(self, what: str, first: str) -> None:
        super().__init__(
            what, "start a new run with a lower optimiser.learning_rate (--set), or with another --seed"
        )
        self.first = first


class EnvironmentFault(MarlSaleError):
    """An environment is not installed, or misbehaves."""

    exit_code = ExitCode.ENVIRONMENT


class EpisodeLost(EnvironmentFault):
    """Copies of an environment had to be started again in the middle of an episode.

    All copies are to be reset, and the episodes played again from their seeds.
    """


class DiskFullError(MarlSaleError):
    """The disk filled up; what was committed before stays valid."""

    exit_code = ExitCode.DISK_FULL


class SweepError(MarlSaleError):
    """Some cells of a sweep are not done."""

    exit_code = ExitCode.SWEEP


class StoppedError(MarlSaleError):
    """The run was stopped, or is held by another process; it can be resumed."""

    exit_code = ExitCode.STOPPED
