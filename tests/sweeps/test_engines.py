"""What an engine is handed runs, its exit code comes back; what is missing says how to get it."""

import gc
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from marl_sale.errors import EnvironmentFault, UsageError
from marl_sale.sweeps.engines import Ended, Job, Local, Work, ended
from marl_sale.sweeps.on_ray import Ray
from marl_sale.sweeps.on_slurm import Slurm, sbatch_options

needs_submitit = pytest.mark.skipif(
    find_spec("submitit") is None, reason="submitit is not installed: pip install '.[slurm]'"
)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'")


def work(folder: Path, *words: str) -> Work:
    """A command that ends at once: by default one that exits with 2, as there is no such recipe."""
    return Work("a-cell", ("marl-sale", *(words or ("train", "none"))), Path("cell/x.log"), folder, 1, 0)


def wait(job: Job, seconds: float = 120.0) -> Ended:
    deadline = time.monotonic() + seconds
    while (end := job.poll()) is None:
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.05)
    return end


def test_a_signal_is_no_exit_code() -> None:
    assert ended(0) == Ended(0)
    assert ended(75) == Ended(75)
    assert ended(-9) == Ended(None, "killed by SIGKILL")


def test_local(tmp_path: Path) -> None:
    assert wait(Local(1).submit(work(tmp_path))) == Ended(2)
    assert "none" in (tmp_path / "cell/x.log").read_text()


def test_a_local_cell_does_not_share_the_terminal_of_the_sweep(tmp_path: Path) -> None:
    """Else Ctrl-C would reach it twice: from the terminal and from the sweep."""
    job = Local(1).submit(work(tmp_path))
    try:
        assert os.getsid(job._process.pid) == job._process.pid != os.getsid(0)
    finally:
        job.stop()
        wait(job)


@pytest.mark.parametrize("engine", ["slurm", "ray"])
def test_a_missing_package_says_how_to_get_it(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, {"slurm": "submitit", "ray": "ray"}[engine], None)
    before = dict(os.environ)
    with pytest.raises(EnvironmentFault, match=rf"pip install 'marl-sale\[{engine}\]'"):
        Slurm(tmp_path, {}, cpus=1, gpus=0) if engine == "slurm" else Ray(cpus=1, gpus=0, parallel=1)
    assert dict(os.environ) == before


def test_options_of_sbatch() -> None:
    assert sbatch_options(["time=04:00:00", "mem-per-cpu=2G"]) == {"time": "04:00:00", "mem_per_cpu": "2G"}


@pytest.mark.parametrize(
    "text", ["time", "=x", "time=", "Time=1", "--time=1", "comment=a\n#SBATCH --x", "x=a b"]
)
def test_what_is_no_option_of_sbatch_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--slurm"):
        sbatch_options([text])


@needs_submitit
@pytest.mark.pipeline
def test_the_stand_in_of_submitit_leaves_no_process(tmp_path: Path) -> None:
    engine = Slurm(tmp_path / "slurm", {}, cpus=1, gpus=0, cluster="local")
    job = engine.submit(work(tmp_path))
    assert wait(job) == Ended(2)
    engine.close()
    del job, engine
    gc.collect()  # a process not waited for warns here


@needs_submitit
def test_without_slurm_the_engine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit alone would quietly run everything here."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="sbatch"):
        Slurm(tmp_path, {}, cpus=1, gpus=0)


STAND_IN = {
    "sbatch": 'cp "$1" "$SLURM_STAND_IN/script"; setsid bash "$1" >/dev/null 2>&1 & echo $! > '
    '"$SLURM_STAND_IN/job"; echo "Submitted batch job $!"',
    "srun": 'while [ "${1#--}" != "$1" ]; do case $1 in --output|--error) shift;; esac; shift; done\n'
    'export SLURM_JOB_ID=$PPID SLURM_PROCID=0; exec "$@"',
    "sacct": 'id=$(cat "$SLURM_STAND_IN/job"); state=COMPLETED; kill -0 "$id" 2>/dev/null && state=RUNNING\n'
    'printf "JobID|State|NodeList\\n%s|%s|here\\n" "$id" "$state"',
    "scancel": 'until kill -s KILL -- "-$1" 2>/dev/null; do sleep 0.1; done',
}
"""The four programs of SLURM that submitit calls: jobs are process groups of this machine."""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stand-in's files, which is on PATH; leaves no process behind."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    for name, script in STAND_IN.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STAND_IN", str(folder))
    return folder


@needs_submitit
@pytest.mark.pipeline
def test_a_job_of_slurm(tmp_path: Path, slurm: Path) -> None:
    """Through submitit's own SLURM executor: what sbatch is told, the log, the exit code."""
    engine = Slurm(tmp_path / "slurm", {"partition": "gpu", "time": "04:00:00"}, cpus=3, gpus=0)
    assert wait(engine.submit(work(tmp_path))) == Ended(2)
    assert "none" in (tmp_path / "cell/x.log").read_text()
    script = (slurm / "script").read_text()
    for option in ("partition=gpu", "time=04:00:00", "cpus-per-task=3", "signal=USR1@120", "job-name=a-cell"):
        assert f"#SBATCH --{option}\n" in script


@needs_submitit
@pytest.mark.pipeline
def test_a_job_of_slurm_that_is_cancelled_has_no_exit_code(tmp_path: Path, slurm: Path) -> None:
    job = Slurm(tmp_path / "slurm", {}, cpus=1, gpus=0).submit(work(tmp_path))
    job.stop()
    end = wait(job)
    assert end.code is None
    assert "COMPLETED" in end.why  # what the stand-in calls it


@needs_submitit
def test_a_job_that_slurm_refuses_is_a_try(tmp_path: Path, slurm: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/bash\necho 'error: Invalid partition' >&2; exit 1\n")
    end = Slurm(tmp_path / "slurm", {}, cpus=1, gpus=0).submit(work(tmp_path)).poll()
    assert end is not None
    assert end.code is None
    assert end.why.startswith("sbatch: ")


def test_a_cluster_of_ray_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(UsageError, match="token"):
        Ray(cpus=1, gpus=0, parallel=1)


RAY = """
import os, sys, time
from pathlib import Path
from marl_sale.sweeps.engines import Work
from marl_sale.sweeps.on_ray import Ray

engine = Ray(cpus=1, gpus=0, parallel=1)
assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
job = engine.submit(Work("a-cell", ("marl-sale", "train", "none"), Path("cell/x.log"), Path.cwd(), 1, 0))
while (end := job.poll()) is None:
    time.sleep(0.1)
engine.close()
assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & set(os.environ)
print(end.code)
"""


@needs_ray
@pytest.mark.pipeline
def test_a_task_of_ray(tmp_path: Path) -> None:
    """In a process of its own: Ray keeps threads and handlers of signals."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", RAY],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"]
    assert "none" in (tmp_path / "cell/x.log").read_text()


def test_the_first_signal_is_a_flag_and_the_handlers_come_back() -> None:
    from marl_sale.stop import stop_on_signal

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before: list[Callable[..., object] | int | None] = [signal.getsignal(number) for number in numbers]
    with stop_on_signal() as stop:
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
        assert stop.signal == "SIGTERM"
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the second one ends the process
    assert [signal.getsignal(number) for number in numbers] == before
