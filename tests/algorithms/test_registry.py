"""What every algorithm of the registry keeps, a new one included."""

import copy
from collections.abc import Callable

import pytest
import torch

from marl_sale.algorithms._load import REGISTRY, build, build_policy
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.spec import EnvSpec

pytestmark = pytest.mark.parametrize("name", REGISTRY)


@pytest.fixture
def config(name: str, small_config: Callable[..., Config]) -> Config:
    return small_config(changes=[f"algorithm={name}"])


def test_an_update_changes_what_it_trains_alone(config: Config, spec: EnvSpec, batch: Batch) -> None:
    algorithm = build(config, spec)
    before = {name: value.clone() for name, value in algorithm.named_parameters()}
    losses = algorithm.update(batch)
    assert all(value.isfinite() for value in losses.values())
    for name, value in algorithm.named_parameters():
        assert value.requires_grad or torch.equal(value, before[name]), name
    assert any(not torch.equal(value, before[name]) for name, value in algorithm.named_parameters())


def test_an_update_repeats_from_what_is_saved(config: Config, spec: EnvSpec, batch: Batch) -> None:
    """Tensors, optimiser and generators: whatever else an update depends on would be lost on the way."""
    first, second = build(config, spec, seed=1), build(config, spec, seed=2)
    first.update(batch)
    second.update(batch)  # an optimiser has state once it was used
    second.load_state_dict(first.state_dict())
    second.optimiser.load_state_dict(copy.deepcopy(first.optimiser.state_dict()))
    for name, generator in second.generators().items():
        generator.set_state(first.generators()[name].get_state())
    for algorithm in (first, second):
        algorithm.update(batch)
        algorithm.copy_targets()
        algorithm.update(batch)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_every_generator_is_declared_and_seeded(config: Config, spec: EnvSpec) -> None:
    def held(seed: int) -> list[torch.Generator]:
        algorithm = build(config, spec, seed=seed)
        found = [value for part in algorithm.modules() for value in vars(part).values()]
        generators = [value for value in found if isinstance(value, torch.Generator)]
        assert all(any(value is each for each in algorithm.generators().values()) for value in generators)
        return list(algorithm.generators().values())

    for one, again, other in zip(held(1), held(1), held(2), strict=True):
        assert torch.equal(one.get_state(), again.get_state())
        assert not torch.equal(one.get_state(), other.get_state())


def test_a_policy_is_the_agent_of_its_algorithm(config: Config, spec: EnvSpec) -> None:
    build_policy(config, spec).load_state_dict(build(config, spec, seed=3).agent.state_dict())
