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


def require_training(config: Config, train_columns: Sequence[str], evaluation_columns: Sequence[str]) -> None:
    """UsageError where a period is too short for the length of the run; names its key."""
    train, evaluation = config.train, config.evaluation
    rounds = math.ceil(train.env_steps / train.num_envs)  # no episode has less than one step

    def times(period: int) -> int:
        return min(train.env_steps // period, rounds) + 1

    require_rows(f"train.log_period={train.log_period}", times(train.log_period), train_columns)
    require_rows(f"evaluation.period={evaluation.period}", times(evaluation.period) + 1, evaluation_columns)
    saves = times(train.checkpoint_period) + times(evaluation.period)
    segments = min(saves, config.replay.capacity_episodes // train.num_envs + 2)
    files = segments + (saves if train.keep_checkpoints == "every" else 0) + _OTHER_FILES
    if files > MAX_FILES:
        asked = f"train.checkpoint_period={train.checkpoint_period}"
        if train.keep_checkpoints == "every":
            asked += ", train.keep_checkpoints=every"
        raise UsageError(f"{asked}: up to {files:,} files, and at most {MAX_FILES:,} can be read again")
