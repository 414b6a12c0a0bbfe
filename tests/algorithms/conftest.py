"""A batch of four ragged episodes, for tests of what an update does with it."""

from collections.abc import Callable

import pytest
import torch

from marl_sale.data.batch import Batch
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import replay_of
from marl_sale.spec import EnvSpec


@pytest.fixture
def batch(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> Batch:
    return replay_of(spec, random_episodes(spec, [6, 2, 4, 1]), bootstrap_at_time_limit=False).pack(
        torch.arange(4)
    )
