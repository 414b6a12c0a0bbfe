"""Ray Core as an engine: each command is a subprocess of a Ray task. Never Ray Tune or RLlib.

Where RAY_ADDRESS names a cluster, that is used; otherwise a Ray of our own starts on this machine, known by
its loopback address, without dashboard. Ray listens on every interface and runs what it is sent, so here it
always asks for a token.
"""

import os
import secrets
import subprocess
from typing import Any

from marl_sale.errors import EnvironmentFault, UsageError
from marl_sale.sweeps.engines import Ended, Work, cores, ended, start

OBJECT_STORE_BYTES = 80 << 20
"""About the least that Ray takes: results are exit codes."""
STARTS = 3


class RayJob:
    """A task of Ray."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def poll(self) -> Ended | None:
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            return ended(int(self._ray.get(self._reference)))
        except self._ray.exceptions.RayError as error:
            return Ended(None, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")

    def stop(self) -> None:
        self._ray.cancel(self._reference, force=False)


class Ray:
    """Tasks of a Ray cluster, or of a Ray on this machine that lives as long as the sweep."""

    def __init__(self, *, cpus: int, gpus: int, parallel: int | None) -> None:
        """`cpus`, `gpus`: of one job. Raises EnvironmentFault without Ray, UsageError without a token."""
        address = os.environ.get("RAY_ADDRESS")
        if address and os.environ.get("RAY_AUTH_MODE") != "token":
            raise UsageError(
                f"RAY_ADDRESS={address}: --engine ray uses a cluster only where it asks for a token",
                "start it with RAY_AUTH_MODE=token, and set that and RAY_AUTH_TOKEN here (docs/sweeps.md)",
            )
        self.period = 0.5
        self.parallel = parallel or (1024 if address else max(1, cores() // cpus))
        environment = {"RAY_USAGE_STATS_ENABLED": "0"}
        if not address:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)  # read when Ray is imported
        try:
            self._ray = _import()
            if address:
                _start(self._ray)
            else:
                _start(
                    self._ray,
                    address="local",
                    num_cpus=self.parallel * cpus,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    object_store_memory=OBJECT_STORE_BYTES,
                )
            self._task = self._ray.remote(max_retries=0, num_cpus=cpus, num_gpus=gpus)(run)
        except BaseException:
            self._forget()
            raise

    def submit(self, work: Work) -> RayJob:
        return RayJob(self._ray, self._task.options(name=work.name).remote(work))

    def close(self) -> None:
        self._ray.shutdown()
        self._forget()

    def _forget(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def run(work: Work) -> int:
    """The command as a subprocess of a Ray worker; its return code. Cancelled, it ends with a checkpoint."""
    process = start(work)
    while True:
        try:
            return process.wait(timeout=0.5)  # Ray cancels between two steps of Python, not within a wait
        except subprocess.TimeoutExpired:
            continue
        except BaseException:
            process.terminate()
            process.wait()
            raise


def _start(ray: Any, **settings: Any) -> None:
    """Start or join a Ray. Its own limit for that, 30 s, is not enough for a busy machine: so a few times."""
    for left in reversed(range(STARTS)):
        try:
            ray.init(**settings, log_to_driver=False, configure_logging=False)
        except Exception as error:  # Ray raises bare ones here
            ray.shutdown()
            if not left:
                raise EnvironmentFault(
                    f"--engine ray: Ray does not start: {str(error).strip().splitlines()[0]}",
                    "look into session_latest/logs in Ray's temporary folder, or use --engine local",
                ) from error
        else:
            return


def _import() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise EnvironmentFault(
            "--engine ray: Ray is not installed", "install it with: pip install 'marl-sale[ray]'"
        ) from None
    return ray
