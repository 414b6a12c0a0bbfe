"""docs/metrics.md names every column that is written."""

import re
from pathlib import Path

import pytest

from marl_sale.algorithms.qmix import Qmix
from marl_sale.analysis.world_model_report import OpenLoopError
from marl_sale.config.schema import LossWeights
from marl_sale.stages._progress import Counters
from marl_sale.stages.evaluate import EpisodeRow, summarise
from marl_sale.stages.train import EVALUATION_COLUMNS

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([a-z_0-9]+)`", PAGE))


@pytest.mark.parametrize(
    "columns",
    [
        tuple(Counters.__annotations__),
        tuple(f"loss_{name}" for name in LossWeights.model_fields if name != "core"),
        ("core", "epsilon", "loss", "grad_norm"),
        Qmix.noted_names,
        EVALUATION_COLUMNS,
        tuple(EpisodeRow.__annotations__),
        tuple(summarise([EpisodeRow(0, 1, 0.5, 3, True)])),
        tuple(OpenLoopError.__annotations__),
    ],
)
def test_every_column_is_explained(columns):
    assert set(columns) <= NAMED
