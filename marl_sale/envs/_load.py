"""Environment families by name: every module or folder here without a leading underscore is one.

A family is imported only when a recipe asks for it, so that a package nobody uses need not be installed.
"""

import difflib
import pkgutil
from collections.abc import Callable, Iterable
from importlib import import_module

from marl_sale import envs
from marl_sale.config import schema
from marl_sale.envs._findings import Finding, package
from marl_sale.envs._requirement import requirement
from marl_sale.errors import ConfigError, EnvironmentFault
from marl_sale.spec import EnvSpec, VectorEnv


def families() -> tuple[str, ...]:
    """Names a recipe may give as `env.family`."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(envs.__path__) if not m.name.startswith("_")))


def require_family(name: str) -> None:
    """Raises ConfigError where there is no such family."""
    known = families()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        raise ConfigError(
            [f"env.family: found {name!r}, allowed: {', '.join(known)}"],
            f"did you mean {nearest[0]!r}?" if nearest else "see docs/add-an-environment.md to add a family",
        )


def make_env(config: schema.Env, num_envs: int) -> VectorEnv:
    """`num_envs` copies of the configured task, not yet reset.

    Raises ConfigError where family or task is unknown, EnvironmentFault where its package is missing.
    """
    require_family(config.family)
    try:
        make: Callable[[schema.Env, int], VectorEnv]
        make = import_module(f"{envs.__name__}.{config.family}").make
        return make(config, num_envs)
    except ModuleNotFoundError as error:
        name = _missing(error)
        raise EnvironmentFault(
            f"env.family {config.family!r} needs the package {name!r}, which is not installed",
            f'pip install "{requirement(name)}"',
        ) from error


def describe(config: schema.Env) -> EnvSpec:
    """Sizes and rules of the configured task; builds one copy of it. Raises as `make_env`."""
    env = make_env(config, 1)
    try:
        return env.spec
    finally:
        env.close()


def diagnose(family: str) -> tuple[Finding, ...]:
    """What the family needs and what was found of it; raises ConfigError where there is no such family."""
    require_family(family)
    try:
        module = import_module(f"{envs.__name__}.{family}")
    except ModuleNotFoundError as error:
        return (package(_missing(error)),)
    look: Callable[[], Iterable[Finding]] | None = getattr(module, "diagnose", None)
    return tuple(look()) if look else ()


def _missing(error: ModuleNotFoundError) -> str:
    """The package that is not installed; raises the error again where it is one of our own modules."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "marl_sale"):
        raise error
    return name
