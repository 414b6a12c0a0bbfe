"""Level-Based Foraging, twice: our batched rules (`native`) and the published package (`original`)."""

from collections.abc import Iterator
from dataclasses import replace

from marl_sale.config import schema
from marl_sale.envs._findings import Finding, package
from marl_sale.envs.lbf.native import NativeForaging
from marl_sale.envs.lbf.task import Task
from marl_sale.spec import VectorEnv


def make(config: schema.Env, num_envs: int) -> VectorEnv:
    """Copies of the task `config.task`. Raises ConfigError for a wrong name."""
    task = Task.parse(config.task)
    if config.backend == "native":
        return NativeForaging(task, config.mask_actions, config.scale_obs, num_envs)
    from marl_sale.envs.lbf.original import OriginalForaging  # half a second, for those who want it only

    return OriginalForaging(task, config.mask_actions, config.scale_obs, num_envs)


def diagnose() -> Iterator[Finding]:
    """For `marl-sale doctor`; the native backend needs nothing."""
    yield replace(package("lbforaging"), what="package lbforaging (backend original)", needed=False)
