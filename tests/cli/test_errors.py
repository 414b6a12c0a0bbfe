import errno
from collections.abc import Callable

import pytest
import typer
from marl_sale_cli._errors import translated

from marl_sale.errors import ArtifactError, ConfigError, DivergedError, ExitCode, RunExistsError, StoppedError


def ends_with(problem: BaseException, *, debug: bool = False) -> int:
    @translated
    def command(debug: bool) -> None:
        raise problem

    with pytest.raises(typer.Exit) as end:
        command(debug=debug)
    return end.value.exit_code


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (ConfigError(["a", "b"]), 2),
        (ArtifactError("gone"), 3),
        (RunExistsError("there"), 4),
        (DivergedError("nan"), 6),
        (StoppedError("stopped"), 75),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 8),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2),
        (FileExistsError(errno.EEXIST, "File exists", "x"), 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x"), 2),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 2),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "x"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_no_traceback(
    problem: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(problem) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    assert "bug" not in printed.err


def test_a_full_disk_behind_stdout_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """What is written there has no name."""
    ends_with(OSError(errno.ENOSPC, "No space left on device"))
    assert capsys.readouterr().err.startswith("error: output: No space left on device\n")


def test_what_and_hint_are_printed_with_every_problem(capsys: pytest.CaptureFixture[str]) -> None:
    ends_with(ConfigError(["first [red]problem", "second"], "do this"))
    assert capsys.readouterr().err == "error: first [red]problem\nsecond\n  do this\n"


def test_a_bug_says_so_and_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends_with(ZeroDivisionError("x")) == ExitCode.BUG
    brief = capsys.readouterr().err
    assert "bug in marl-sale" in brief
    assert "--debug" in brief
    assert "Traceback" not in brief
    ends_with(ZeroDivisionError("x"), debug=True)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("passing", [typer.Exit(0), BrokenPipeError()])
def test_what_is_no_error_passes(passing: BaseException) -> None:
    @translated
    def command() -> None:
        raise passing

    with pytest.raises(type(passing)) as end:
        command()
    assert end.value is passing


def test_the_signature_stays_for_typer() -> None:
    import inspect

    def command(number: int, debug: bool = False) -> str:
        return str(number)

    wrapped: Callable[..., str] = translated(command)
    assert inspect.signature(wrapped) == inspect.signature(command)
    assert wrapped(3) == "3"
