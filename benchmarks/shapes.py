"""Tasks of the sizes that matter, episodes of them without an environment, and the learners compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from marl_sale.algorithms._load import build
from marl_sale.algorithms.qmix import Qmix
from marl_sale.config.recipe import load_recipe
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay
from marl_sale.seeding import torch_generator
from marl_sale.spec import EnvSpec


def synthetic_spec(
    name: str, agents: int, obs: int, state: int, actions: int, limit: int, *, masked: bool
) -> EnvSpec:
    """A task that is nothing but its sizes."""
    return EnvSpec(
        family="synthetic",
        task=name,
        backend="none",
        n_agents=agents,
        n_actions=actions,
        obs_size=obs,
        state_size=state,
        episode_limit=limit,
        masks_actions=masked,
        has_success=False,
    )


LBF_2 = synthetic_spec("LBF 2 agents", 2, 15, 30, 6, 50, masked=False)
LBF_4 = synthetic_spec("LBF 4 agents", 4, 27, 108, 6, 50, masked=False)
SMAC_2S3Z = synthetic_spec("2s3z", 5, 80, 120, 11, 120, masked=True)
SMAC_3S5Z = synthetic_spec("3s5z", 8, 128, 216, 14, 150, masked=True)


@dataclass(frozen=True)
class Learner:
    """What is updated: overlays on the Level-Based Foraging recipe, and changes of single keys."""

    overlays: str
    changes: tuple[str, ...] = ()

    def config(self, *more: str) -> Config:
        """Its configuration, with more changes; Adam, as the recipe says."""
        return load_recipe(f"lbf/8x8-2p-2f-coop{self.overlays}", [*self.changes, *more]).config

    def build(self, spec: EnvSpec, device: str, *more: str) -> Qmix:
        """It, untrained, for tasks of these sizes."""
        return build(self.config(*more), spec, device=device)


QMIX = Learner("+qmix")
FEED_FORWARD = Learner("+qmix", ("agent.core=feedforward",))
MMSA = Learner("", ("agent.head=mlp", "world_model.imagination_length=3"))
MMSA_BILINEAR = Learner("", ("agent.head=bilinear", "world_model.imagination_length=3"))
MMSA_WITHOUT_SALE = Learner("", ("sale.enabled=false", "world_model.imagination_length=3"))


def full_lengths(spec: EnvSpec, count: int) -> list[int]:
    """Every episode at the limit."""
    return [spec.episode_limit] * count


def spread_lengths(spec: EnvSpec, count: int, lowest: float = 0.0) -> list[int]:
    """Lengths evenly from `lowest` to 1 of the limit: a uniform draw without its luck.

    For two episodes of at most 8 steps, from 0: 2 and 6, the middles of both halves.
    """
    shares = (lowest + (1 - lowest) * (i + 0.5) / count for i in range(count))
    return [max(1, round(share * spec.episode_limit)) for share in shares]


def synthetic_episodes(spec: EnvSpec, lengths: Sequence[int]) -> Episodes:
    """Episodes of noise; the first action is always available, the others mostly where the task masks."""
    generator, count = torch_generator(0, "benchmark episodes"), len(lengths)
    episodes = Episodes.empty(spec, count)
    for values in (episodes.obs, episodes.state, episodes.reward):
        values.normal_(generator=generator)
    avail = torch.rand(episodes.avail_actions.shape, generator=generator) < 0.6
    avail[..., 0] = True
    episodes.avail_actions[:] = avail if spec.masks_actions else True
    preferred = torch.rand(*episodes.actions.shape, spec.n_actions, generator=generator)
    episodes.actions[:] = preferred.masked_fill(~episodes.avail_actions[:, :-1], -1.0).argmax(-1)
    episodes.terminated[:], episodes.success[:] = False, False
    episodes.length[:] = torch.tensor(lengths)
    return episodes


def new_replay(spec: EnvSpec, capacity: int, observations: torch.dtype = torch.float32) -> Replay:
    """An empty replay."""
    return Replay(spec, capacity, bootstrap_at_time_limit=False, observations=observations)


def synthetic_batch(spec: EnvSpec, lengths: Sequence[int], device: str) -> Batch:
    """Episodes of noise of these lengths, packed as a replay packs them."""
    replay = new_replay(spec, len(lengths))
    replay.add(synthetic_episodes(spec, lengths))
    return replay.sample(len(lengths), torch_generator(0, "benchmark batch")).to(torch.device(device))
