"""Ray Core, started or joined. Never Ray Tune or RLlib.

Where RAY_ADDRESS names a cluster, that is used; otherwise a Ray of our own starts on this machine, known by
its loopback address, without dashboard. Ray listens on every interface and runs what it is sent, so here it
always asks for a token.
"""

import io
import os
import secrets
import sys
from contextlib import ExitStack, redirect_stdout
from functools import cache
from typing import Any

from marl_sale.errors import EnvironmentFault, UsageError

OBJECT_STORE_BYTES = 80 << 20
"""About the least that Ray takes."""
STARTS = 3


class Cluster:
    """A Ray cluster, or a Ray on this machine that lives as long as this object is not closed."""

    def __init__(self, *, cpus: int, store_bytes: int = OBJECT_STORE_BYTES) -> None:
        """`cpus` to give away, and memory for what is on its way, where it is on this machine.

        Raises EnvironmentFault without Ray, UsageError without a token.
        """
        address = os.environ.get("RAY_ADDRESS")
        if address and os.environ.get("RAY_AUTH_MODE") != "token":
            raise UsageError(
                f"RAY_ADDRESS={address}: --engine ray uses a cluster only where it asks for a token",
                "start it with RAY_AUTH_MODE=token, and set that and RAY_AUTH_TOKEN here (docs/sweeps.md)",
            )
        environment = {"RAY_USAGE_STATS_ENABLED": "0"}
        if not address:
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
        self._before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)  # read when Ray is imported
        self._open = ExitStack()
        self._open.callback(self._forget)
        # Ray prints remarks, which are in its logs as well; but stdout belongs to the command's result.
        self._open.enter_context(redirect_stdout(io.StringIO()))
        try:
            self.ray = _import()
            if address:
                _start(self.ray)
            else:
                _start(
                    self.ray,
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    object_store_memory=max(store_bytes, OBJECT_STORE_BYTES),
                )
        except BaseException:
            self._open.close()
            raise

    def close(self) -> None:
        """Let go of it; what is still under way is lost."""
        self.ray.shutdown()
        self._open.close()

    def _forget(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def is_elsewhere() -> bool:
    """Whether the user has named a cluster to use."""
    return bool(os.environ.get("RAY_ADDRESS"))


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@cache
def _token() -> str:
    """For every Ray that this process starts: Ray itself keeps the first it was given."""
    return secrets.token_hex(32)


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
                    "look into session_latest/logs in Ray's temporary folder, or leave --engine ray out",
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
