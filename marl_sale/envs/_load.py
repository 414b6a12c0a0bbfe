"""Environment families by name: every module or folder here without a leading underscore is one.

A family is imported only when a recipe asks for it, so that a package nobody uses need not be installed.
"""

import difflib
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module, metadata

from marl_sale import envs
from marl_sale.config import schema
from marl_sale.errors import ConfigError, EnvironmentFault
from marl_sale.spec import EnvSpec, VectorEnv


def families() -> tuple[str, ...]:
    """Names a recipe may give as `env.family`."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(envs.__path__) if not m.name.startswith("_")))


def make_env(config: schema.Env, num_envs: int) -> VectorEnv:
    """`num_envs` copies of the configured task, not yet reset.

    Raises ConfigError where family or task is unknown, EnvironmentFault where its package is missing.
    """
    known = families()
    if config.family not in known:
        nearest = difflib.get_close_matches(config.family, known, n=1)
        raise ConfigError(
            [f"env.family: found {config.family!r}, allowed: {', '.join(known)}"],
            f"did you mean {nearest[0]!r}?" if nearest else "see docs/add-an-environment.md to add a family",
        )
    try:
        make: Callable[[schema.Env, int], VectorEnv]
        make = import_module(f"{envs.__name__}.{config.family}").make
        return make(config, num_envs)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "marl_sale"):
            raise
        raise EnvironmentFault(
            f"env.family {config.family!r} needs the package {package!r}, which is not installed",
            f'pip install "{_requirement(package)}"',
        ) from error


def describe(config: schema.Env) -> EnvSpec:
    """Sizes and rules of the configured task; builds one copy of it. Raises as `make_env`."""
    env = make_env(config, 1)
    try:
        return env.spec
    finally:
        env.close()


def _requirement(package: str) -> str:
    """What to install for `package`, with the version this project asks for where it names one."""
    for line in metadata.requires("marl-sale") or ():
        requirement = line.partition(";")[0].strip()
        name = re.match(r"[\w.-]*\w", requirement)
        if name and re.sub(r"[-.]", "_", name.group()) == package:
            return requirement
    return package
