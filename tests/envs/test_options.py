"""Options behind the name of a task."""

import pytest

from marl_sale.envs._options import Option, join_task, split_task
from marl_sale.errors import ConfigError

OPTIONS = {
    "n_agents": Option(3, "agents", low=1, high=9),
    "mass": Option(1.0, "of the package"),
    "shared": Option(True, "reward"),
    "rule": Option("near", "who is fed", words=("near", "far")),
}


@pytest.mark.parametrize(
    ("task", "canonical"),
    [
        ("balance", "balance"),
        ("balance,n_agents=3", "balance"),
        ("balance,shared=false,n_agents=4", "balance,n_agents=4,shared=false"),
        ("balance,mass=0.50,rule=far", "balance,mass=0.5,rule=far"),
    ],
)
def test_canonical_name(task: str, canonical: str) -> None:
    name, values = split_task("vmas", task, OPTIONS)
    assert join_task(name, values, OPTIONS) == canonical
    assert split_task("vmas", canonical, OPTIONS) == (name, values)


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        split_task("vmas", "balance,n_agent=4,mass=heavy,shared=yes,rule=off,n_agents=12,mass=2", OPTIONS)
    text = str(caught.value)
    for part in (
        "did you mean n_agents?",
        "a number from 0",
        "true or false",
        "near, far",
        "from 1 to 9",
        "twice",
    ):
        assert part in text, part
    assert "docs/env-vmas.md" in text
