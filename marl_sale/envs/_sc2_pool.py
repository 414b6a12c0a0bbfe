"""What the families `smac` and `smacv2` make of a recipe."""

from marl_sale.config import schema
from marl_sale.envs._options import Option
from marl_sale.envs._pool import Pool
from marl_sale.envs._worker import Factory, Sizes
from marl_sale.errors import ConfigError
from marl_sale.spec import EnvSpec

OPTIONS = {"difficulty": Option("7", "of the game's computer player", words=tuple("123456789A"))}
_PATIENCE = 60.0  # seconds for a step; the game needs up to 30 to start


def battles(config: schema.Env, task: str, factory: Factory, num_envs: int, notes: str = "") -> Pool:
    """Copies of `task`, the canonical name. Raises ConfigError where a key of `env` cannot be honoured."""
    problems = []
    if config.backend != "original":
        problems.append(f"env.backend: found {config.backend!r}, allowed in {config.family!r}: original")
    if not config.mask_actions:
        problems.append("env.mask_actions: found false, allowed: true (unavailable actions are refused)")
    if problems:
        raise ConfigError(
            problems, "--set env.backend=original --set env.mask_actions=true, as in its recipes"
        )

    def describe(sizes: Sizes, found: str) -> EnvSpec:
        return EnvSpec(
            family=config.family,
            task=task,
            backend="original",
            **sizes._asdict(),
            masks_actions=True,
            has_success=True,
            notes=f"{found}; {notes}" if notes else found,
        )

    return Pool(factory, num_envs, describe, patience=_PATIENCE)
