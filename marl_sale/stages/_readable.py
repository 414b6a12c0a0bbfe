"""Before a stage writes anything: whether what it would write could be read again.

A reader takes so many rows and files and no more (docs/artifacts.md). A run of days must not find out at its
end that it has written more.
"""

import math
from collections.abc import Sequence

from marl_sale.artifacts.manifest import MAX_FILES
from marl_sale.artifacts.metrics import rows_that_fit
from marl_sale.config.schema import Config
from marl_sale.errors import UsageError

_OTHER_FILES = 100
"""Of an agent, beside checkpoints and replay: more than there are."""


def require_rows(asked: str, rows: int, columns: Sequence[str]) -> None:
    """UsageError where `asked`, a key or an option with its value, makes more rows than a reader takes."""
    if rows > (most := rows_that_fit(columns)):
        raise UsageError(f"{asked}: up to {rows:,} rows in one file, and at most {most:,} can be read again")


def _times(config: Config, period: int) -> int:
    """How often a training run crosses a multiple of so many env steps, or ends, at most."""
    rounds = math.ceil(config.train.env_steps / config.train.num_envs)  # no episode has less than one step
    return min(config.train.env_steps // period, rounds) + 1


def most_saves(config: Config) -> int:
    """Scheduled checkpoints of a training run, at most."""
    return _times(config, config.train.checkpoint_period) + _times(config, config.evaluation.period)


def require_training(config: Config, train_columns: Sequence[str], evaluation_columns: Sequence[str]) -> None:
    """UsageError where a period is too short for the length of the run; names its key."""
    train, evaluation = config.train, config.evaluation
    logged, evaluated = _times(config, train.log_period), _times(config, evaluation.period) + 1
    require_rows(f"train.log_period={train.log_period}", logged, train_columns)
    require_rows(f"evaluation.period={evaluation.period}", evaluated, evaluation_columns)
    saves = most_saves(config)
    segments = min(saves, config.replay.capacity_episodes // train.num_envs + 2)
    files = segments + (saves if train.keep_checkpoints == "every" else 0) + _OTHER_FILES
    if files > MAX_FILES:
        asked = f"train.checkpoint_period={train.checkpoint_period}"
        if train.keep_checkpoints == "every":
            asked += ", train.keep_checkpoints=every"
        raise UsageError(f"{asked}: up to {files:,} files, and at most {MAX_FILES:,} can be read again")
