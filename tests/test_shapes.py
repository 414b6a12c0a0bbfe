"""The hook of tests/conftest.py is active: what the annotations say is checked while tests run."""

from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch

from marl_sale.data.episodes import Episodes
from marl_sale.functional.targets import greedy_actions
from marl_sale.seeding import episode_seeds
from marl_sale.spec import EnvSpec


def test_a_wrong_shape_raises() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="avail_actions"):
        greedy_actions(torch.zeros(2, 3, 4), torch.ones(2, 3, 5, dtype=torch.bool))


def test_a_wrong_dtype_raises() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="avail_actions"):
        greedy_actions(torch.zeros(2, 3), torch.ones(2, 3))


def test_fields_that_do_not_fit_each_other_raise(spec: EnvSpec) -> None:
    episodes = Episodes.empty(spec, 2)
    with pytest.raises(jaxtyping.TypeCheckError, match="reward"):
        replace(episodes, reward=episodes.reward[:, :-1])


def test_a_class_of_another_kind_raises() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="seed"):
        episode_seeds(np.array([1]), 0, 1)  # type: ignore[arg-type]
