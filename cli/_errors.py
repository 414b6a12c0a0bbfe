"""From exceptions to a message on stderr and an exit code."""

import errno
import functools
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from marl_sale.errors import DiskFullError, ExitCode, MarlSaleError, UsageError

from ._console import complain

P = ParamSpec("P")
R = TypeVar("R")

INTERRUPTED = 130
"""What a shell expects of a program ended by Ctrl-C: 128 + SIGINT."""


def translated(command: Callable[P, R]) -> Callable[P, R]:
    """Make a command end with the message and the exit code of the error it meets.

    The traceback appears with `--debug` only; the command must have that option.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise  # `marl-sale runs ls | head` is no error; Typer ends it quietly
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as problem:
            if kwargs.get("debug"):
                traceback.print_exc()
            raise typer.Exit(_explain(problem)) from None

    return run


def _explain(problem: Exception) -> ExitCode:
    """Print what went wrong; returns the exit code."""
    known = _os_error(problem) if isinstance(problem, OSError) else problem
    if isinstance(known, MarlSaleError):
        complain(f"error: {known}")
        return known.exit_code
    complain(
        f"error: {type(problem).__name__}: {problem}\n"
        "  This is a bug in marl-sale. Run again with --debug and report what it prints."
    )
    return ExitCode.BUG


def _os_error(problem: OSError) -> Exception:
    """The operating system's refusals that a user can lift; anything else stays as it is."""
    where = f"{problem.filename or 'output'}: {problem.strerror}"
    match problem.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return DiskFullError(where, "Free some space, or choose another folder with --out.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return UsageError(
                where, "Choose another place (of an artifact: with --out), or change its permissions."
            )
        case errno.EEXIST | errno.ENOTDIR | errno.EISDIR | errno.ENAMETOOLONG | errno.ELOOP:
            return UsageError(where, "Choose another path.")
        case _:
            return problem
