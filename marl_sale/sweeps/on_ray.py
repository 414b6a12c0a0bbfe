"""Ray Core as an engine: each command is a subprocess of a Ray task."""

import subprocess
from typing import Any

from marl_sale.cluster import Cluster, cores, is_elsewhere
from marl_sale.sweeps.engines import Ended, Work, ended, start


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
        self.period = 0.5
        self.parallel = parallel or (1024 if is_elsewhere() else max(1, cores() // cpus))
        self._cluster = Cluster(cpus=self.parallel * cpus)
        self._ray = self._cluster.ray
        self._task = self._ray.remote(max_retries=0, num_cpus=cpus, num_gpus=gpus)(run)

    def submit(self, work: Work) -> RayJob:
        return RayJob(self._ray, self._task.options(name=work.name).remote(work))

    def close(self) -> None:
        self._cluster.close()


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
