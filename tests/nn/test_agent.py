"""The agents' network: stepping is unrolling, choosing in blocks is choosing at once."""

from collections.abc import Callable
from typing import Literal

import pytest
import torch

from marl_sale.algorithms._api import build_agent
from marl_sale.config.schema import Config
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import replay_of
from marl_sale.functional.targets import greedy_actions
from marl_sale.nn import agent as agent_module
from marl_sale.nn.agent import Agent, Core
from marl_sale.nn.sale import ActionEmbedding
from marl_sale.spec import EnvSpec, Observation


def core(
    spec: EnvSpec, kind: Literal["gru", "feedforward"], *, previous_action: bool = True, agent_id: bool = True
) -> Core:
    return Core(
        spec.obs_size,
        spec.n_actions,
        spec.n_agents,
        8,
        kind=kind,
        previous_action=previous_action,
        agent_id=agent_id,
    ).double()


@pytest.fixture(params=["mlp", "bilinear", None], ids=str)
def agent(request: pytest.FixtureRequest, small_config: Callable[..., Config], spec: EnvSpec) -> Agent:
    head = request.param
    return build_agent(small_config(changes=[f"agent.head={head}" if head else "sale.enabled=false"]), spec)


@pytest.mark.parametrize("kind", ["gru", "feedforward"])
def test_stepping_is_unrolling(
    kind: Literal["gru", "feedforward"], spec: EnvSpec, random_episodes: Callable[..., Episodes]
) -> None:
    network, lengths = core(spec, kind), [6, 4, 1]
    batch = replay_of(spec, random_episodes(spec, lengths), bootstrap_at_time_limit=False).pack(
        torch.arange(3)
    )
    obs = batch.obs.double()
    unrolled = network.unroll(obs, batch.prev_actions, batch.batch_sizes)
    h, first = torch.zeros(3, spec.n_agents, 8, dtype=torch.float64), 0
    for alive in batch.batch_sizes.tolist():
        rows = slice(first, first + alive)
        h = network.step(obs[rows], batch.prev_actions[rows], h[:alive])
        assert torch.allclose(h, unrolled[rows], rtol=1e-10, atol=1e-12)
        first += alive
    assert first == len(obs)


def test_what_a_core_sees_is_the_recipes_choice(spec: EnvSpec) -> None:
    h = torch.zeros(1, spec.n_agents, 8, dtype=torch.float64)
    obs = torch.ones(1, spec.n_agents, spec.obs_size, dtype=torch.float64)
    before = torch.tensor([[0, 1, spec.n_actions]])
    blind = core(spec, "gru", previous_action=False, agent_id=False).step(obs, before, h)[0]
    assert torch.equal(blind[0], blind[1])
    assert torch.equal(blind[0], blind[2])
    for sees in ({"previous_action": True, "agent_id": False}, {"previous_action": False, "agent_id": True}):
        told_apart = core(spec, "gru", **sees).step(obs, before, h)[0]  # type: ignore[arg-type]
        assert not torch.equal(told_apart[0], told_apart[1])
        assert not torch.equal(told_apart[1], told_apart[2])


def q_every(agent: Agent, h: torch.Tensor, n_actions: int) -> torch.Tensor:
    """Values of every action, one action at a time."""
    shares = agent.shares(h)
    taken = [agent.take(shares, torch.full(h.shape[:-1], action)).q_i for action in range(n_actions)]
    return torch.stack([q_i for q_i in taken if q_i is not None], -1)


@pytest.mark.usefixtures("kernels_or_torch")
@pytest.mark.parametrize("available", [0.0, 0.2, 0.9])
def test_the_chosen_is_the_best_of_every_available_action(
    agent: Agent, spec: EnvSpec, available: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However rows are divided into blocks; action 0 where none is available."""
    agent = agent.double()
    h = torch.randn(67, spec.n_agents, 8, dtype=torch.float64)
    avail = torch.rand(67, spec.n_agents, spec.n_actions) < available
    for pairs_at_once in (10**6, 1, 7 * spec.n_agents * spec.n_actions):
        monkeypatch.setattr(agent_module, "PAIRS_AT_ONCE", pairs_at_once)
        chosen = agent.choose(agent.shares(h), avail)
        assert torch.equal(chosen.actions, greedy_actions(q_every(agent, h, spec.n_actions), avail))
        embedded = agent.z_sa(h, chosen.actions)
        assert (chosen.z_sa is None) == (embedded is None)
        if chosen.z_sa is not None and embedded is not None:
            assert torch.allclose(chosen.z_sa.value(), embedded.value(), rtol=1e-10)
        taken = agent.take(agent.shares(h), chosen.actions)
        if chosen.q_i is not None and taken.q_i is not None:
            assert torch.allclose(chosen.q_i, taken.q_i, rtol=1e-10)
        alike = agent.choose_at(h, avail)
        assert torch.equal(alike.actions, chosen.actions)
        for one, other in ((alike.q_i, chosen.q_i), (alike.z_sa, chosen.z_sa)):
            assert (one is None) == (other is None)
            if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
                assert torch.allclose(one, other, rtol=1e-10)
            if isinstance(one, ActionEmbedding) and isinstance(other, ActionEmbedding):
                assert torch.allclose(one.features, other.features, rtol=1e-10)


@pytest.mark.usefixtures("kernels_or_torch")
def test_the_value_of_an_action_is_one_of_every(agent: Agent, spec: EnvSpec) -> None:
    agent = agent.double()
    h = torch.randn(9, spec.n_agents, 8, dtype=torch.float64)
    actions = torch.randint(spec.n_actions, (9, spec.n_agents))
    every = q_every(agent, h, spec.n_actions).gather(-1, actions.unsqueeze(-1)).squeeze(-1)
    taken = agent.take(agent.shares(h), actions)
    assert taken.q_i is not None
    assert torch.allclose(taken.q_i, every, rtol=1e-10)
    assert torch.allclose(agent.value_of(h, actions), every, rtol=1e-10)
    embedded = agent.z_sa(h, actions)
    assert (taken.z_sa is None) == (embedded is None)
    if taken.z_sa is not None and embedded is not None:
        assert torch.allclose(taken.z_sa.value(), embedded.value(), rtol=1e-10)


def test_acting_uses_the_agents_own_history_alone(agent: Agent, spec: EnvSpec) -> None:
    """Neither the state nor a mate's observation moves what an agent remembers, and acts by."""
    memory = agent.initial_memory(2)
    assert memory.abs().sum().item() == 0
    obs = torch.randn(1, spec.n_agents, spec.obs_size).repeat(2, 1, 1)
    obs[1, 1:] += 1.0  # in the second environment the mates see something else
    state = torch.randn(2, spec.state_size)
    avail = torch.ones(2, spec.n_agents, spec.n_actions, dtype=torch.bool)
    before = torch.full((2, spec.n_agents), spec.n_actions)
    actions, memory = agent.act(Observation(obs, state, avail), before, memory)
    assert actions[0, 0] == actions[1, 0]
    assert torch.equal(actions, agent.choose(agent.shares(memory), avail).actions)
    assert torch.allclose(memory[0, 0], memory[1, 0], atol=1e-6)
    assert not torch.allclose(memory[0, 1], memory[1, 1], atol=1e-6)


def test_the_fixed_embedding_is_frozen(agent: Agent) -> None:
    if agent.sale is not None:
        assert not any(parameter.requires_grad for parameter in agent.sale.parameters())
        q_every(agent, torch.randn(2, 3, 8), 4).sum().backward()
        assert all(parameter.grad is None for parameter in agent.sale.parameters())
