"""Processes of the command line that start at once: forked from an interpreter that has imported everything.

As a program it reads lines from stdin: for a command it forks, lets the child run it as `marl-sale` would,
and prints the child's process id; for "ended" it says whether the child has (1 or 0), for "status" it waits
for it and prints how. Nobody waits before, so the id stays the child's.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class Launcher:
    """Starts commands, one after the other."""

    def __init__(self, commands: IO[str], answers: IO[str]) -> None:
        self._commands, self._answers = commands, answers

    def start(self, arguments: list[str], stderr: Path) -> int:
        """The id of the process that runs `marl-sale` with these arguments; call `status` before the next."""
        return self._ask([arguments, str(stderr)])

    def status(self) -> int:
        """Waits for the process: its exit code, or the negative number of the signal that ended it."""
        return self._ask("status")

    def ended(self) -> bool:
        """Whether the process has."""
        return bool(self._ask("ended"))

    def _ask(self, question: object) -> int:
        self._commands.write(json.dumps(question) + "\n")
        self._commands.flush()
        return int(self._answers.readline())


@contextmanager
def launcher() -> Iterator[Launcher]:
    command = [sys.executable, __file__]  # one thread (see the Makefile): a forked child has no other
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Launcher(process.stdin, process.stdout)
        process.stdin.close()


def answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def serve() -> None:
    from marl_sale_cli.app import main

    import marl_sale.envs.tiny
    import marl_sale.stages.pretrain_wm
    import marl_sale.stages.train  # noqa: F401 — imported here once, not in every child

    child = 0
    for line in sys.stdin:
        question = json.loads(line)
        if question == "ended":
            answer(int(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None))
            continue
        if question == "status":
            answer(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            continue
        arguments, stderr = question
        child = os.fork()
        if child == 0:
            sys.stderr = Path(stderr).open("a", encoding="utf-8")  # noqa: SIM115 — until the process ends
            os.dup2(sys.stderr.fileno(), 1)  # stdout is for this program's answers
            sys.argv = ["marl-sale", *arguments]
            code = 0
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                sys.stderr.flush()
                os._exit(code)
        answer(child)


if __name__ == "__main__":
    serve()
