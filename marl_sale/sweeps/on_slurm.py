"""SLURM as an engine, through submitit.

A job *is* the command, in the process that SLURM started: what SLURM signals is what writes the checkpoint,
and no process in between can be lost. Its exit code comes back in a file of ours; the pickled results that
submitit keeps are never read.
"""

import os
import re
import runpy
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from marl_sale.errors import EnvironmentFault, UsageError
from marl_sale.sweeps.engines import Ended, Work, open_log

MINUTES = 240
"""Time limit of a job where `--slurm time=…` sets none. A run that needs longer goes on in another job."""
WARNING_SECONDS = 120
"""SLURM sends SIGUSR1 this long before the limit: time to end a round of episodes and save it."""


class SlurmJob:
    """A job of SLURM (or of submitit's stand-in for it)."""

    def __init__(self, job: Any, code: Path) -> None:
        self._job, self._code = job, code
        self._stopping = False

    def poll(self) -> Ended | None:
        found = self._read()
        if found is None and self._job.done(force_check=self._stopping):
            # Written before the job ended; a moment ago perhaps.
            found = self._read() or Ended(None, f"job {self._job.job_id} ended: {self._job.state}")
        return found

    def stop(self) -> None:
        self._stopping = True
        self._job.cancel(check=False)

    def _read(self) -> Ended | None:
        try:
            return Ended(int(self._code.read_text(encoding="ascii")))
        except (OSError, ValueError):
            return None


class _Refused:
    """A job that SLURM did not take."""

    def __init__(self, why: str) -> None:
        self._why = why

    def poll(self) -> Ended:
        return Ended(None, self._why)

    def stop(self) -> None: ...


class Slurm:
    """Jobs of SLURM."""

    def __init__(
        self,
        folder: Path,
        options: Mapping[str, str],
        *,
        cpus: int,
        gpus: int,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        """`folder`: for submitit's files; `options`: of sbatch; `local`: submitit's stand-in, for tests.

        Raises EnvironmentFault where submitit or SLURM is missing.
        """
        try:
            import submitit
        except ImportError:
            raise EnvironmentFault(
                "--engine slurm: submitit is not installed", "install it with: pip install 'marl-sale[slurm]'"
            ) from None
        if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise EnvironmentFault(
                "--engine slurm: neither sbatch nor srun here",
                "run it where jobs are submitted, usually a login node",
            )
        self.period = 10.0 if cluster == "slurm" else 0.5
        self.parallel = 1024
        self._folder = folder.resolve()
        self._here: list[Any] = []
        """Jobs of the stand-in: processes of this one, which has to wait for them."""
        self._is_here = cluster == "local"
        self._executor = submitit.AutoExecutor(folder=self._folder, cluster=cluster)
        self._executor.update_parameters(
            timeout_min=MINUTES,
            cpus_per_task=cpus,
            gpus_per_node=gpus,
            slurm_additional_parameters={"signal": f"USR1@{WARNING_SECONDS}", **options},
        )

    def submit(self, work: Work) -> SlurmJob | _Refused:
        code = self._folder / f"{secrets.token_hex(8)}.code"
        self._executor.update_parameters(name=work.name)
        try:
            job = self._executor.submit(run, work, str(code))
        except Exception as error:  # whatever sbatch says: the sweep tries again later
            return _Refused(f"sbatch: {error}")
        if self._is_here:
            self._here.append(job)
        return SlurmJob(job, code)

    def close(self) -> None:
        for job in self._here:
            job.wait()


def sbatch_options(texts: Sequence[str]) -> dict[str, str]:
    """`partition=gpu`, `time=04:00:00` → options of sbatch. UsageError for what cannot be one."""
    options = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z-]*", key) or not re.fullmatch(r"[\x21-\x7e]+", value):
            raise UsageError(
                f"--slurm {text}: expected an option of sbatch", "for instance --slurm time=04:00:00"
            )
        options[key.replace("-", "_")] = value
    return options


def run(work: Work, code: str) -> None:
    """The command in this process, its output in its log, its exit code in a file."""
    os.chdir(work.cwd)
    sys.stdout.flush()
    sys.stderr.flush()
    with open_log(work) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = list(work.argv)
    ended = 0
    try:
        runpy.run_module("marl_sale_cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        ended = end.code if isinstance(end.code, int) else int(end.code is not None)
    written = Path(f"{code}.new")
    written.write_text(str(ended), encoding="ascii")
    written.replace(code)
