"""The typed configuration: type, range and mutual constraints of every recipe key.

Values live in recipes, meanings beside them in `recipes/base.yaml`; there are no defaults here.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Size = Annotated[int, Field(ge=1, le=8192)]
Unit = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Env(Section):
    family: Annotated[
        str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="the name of a family, in lower case")
    ]
    task: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._|-]{0,63}(,[a-z_]{1,32}=[A-Za-z0-9._+-]{1,32}){0,16}$",
            description="the name of a task, perhaps with options (balance,n_agents=4)",
        ),
    ]
    backend: Literal["original", "native"]
    mask_actions: bool
    scale_obs: bool
    bootstrap_at_time_limit: bool


class Agent(Section):
    core: Literal["gru", "feedforward"]
    hidden_size: Size
    previous_action: bool
    agent_id: bool
    head: Literal["mlp", "bilinear"]


class Sale(Section):
    enabled: bool
    size: Size
    hidden_size: Size
    global_state: bool
    clip_targets: bool


class WorldModel(Section):
    enabled: bool
    latent_size: Size
    hidden_size: Size
    action_embedding_size: Size
    imagination_length: Annotated[int, Field(ge=0, le=64)]
    kl_balance: Unit


class Mixer(Section):
    size: Size
    hypernet_size: Size
    global_state: bool


class LossWeights(Section):
    td: Weight
    sale: Weight
    sale_global: Weight
    rec: Weight
    avail: Weight
    kl: Weight
    reg: Weight
    inv: Weight
    core: Weight


class Optimiser(Section):
    name: Literal["rmsprop", "adam"]
    learning_rate: Rate
    rmsprop_smoothing: Unit
    epsilon: Rate
    max_grad_norm: Annotated[float, Field(gt=0.0, le=1e9, allow_inf_nan=False)]
    target_update_period: Positive


class Exploration(Section):
    start: Unit
    finish: Unit
    anneal_env_steps: Count


class Replay(Section):
    capacity_episodes: Positive
    batch_episodes: Positive
    chunk_length: Count
    burn_in: Count
    observations: Literal["float32", "float16"]


class Train(Section):
    env_steps: Positive
    num_envs: Annotated[int, Field(ge=1, le=65536)]
    updates_per_episode: Annotated[float, Field(gt=0.0, le=1000.0, allow_inf_nan=False)]
    reward_scale: Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]
    checkpoint_period: Positive
    checkpoint_minutes: Annotated[float, Field(ge=0.0, le=10000.0, allow_inf_nan=False)]
    keep_checkpoints: Literal["latest", "best", "every"]
    log_period: Positive
    threads: Annotated[int, Field(ge=1, le=1024)]


UNSEEN = ("train.checkpoint_minutes", "train.keep_checkpoints")
"""Keys that say how a run is kept and change nothing it computes: not in the fingerprint, so that they can
differ when a run goes on, and base.yaml's value stands in where an older config.yaml has none."""


class Pretrain(Section):
    episodes: Annotated[int, Field(ge=4, le=10**7)]
    holdout: Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
    max_epochs: Positive
    patience_epochs: Positive
    min_improvement: Unit
    train_core: bool


class Evaluation(Section):
    episodes: Positive
    period: Positive
    num_envs: Annotated[int, Field(ge=1, le=65536)]


MODEL_BASED = ("mmsa",)
"""Algorithms with the parts that the sections `sale` and `world_model` describe; the others ignore them."""


class Config(Section):
    """Everything that decides a result, except the seed; and how a run is kept."""

    algorithm: Literal["mmsa", "qmix", "vdn", "iql"]
    discount: Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
    env: Env
    agent: Agent
    sale: Sale
    world_model: WorldModel
    mixer: Mixer
    loss_weights: LossWeights
    optimiser: Optimiser
    exploration: Exploration
    replay: Replay
    train: Train
    pretrain: Pretrain
    evaluation: Evaluation

    @property
    def with_sale(self) -> bool:
        return self.algorithm in MODEL_BASED and self.sale.enabled

    @property
    def with_world_model(self) -> bool:
        return self.algorithm in MODEL_BASED and self.world_model.enabled

    @model_validator(mode="after")
    def _sections_fit(self) -> "Config":
        imagines = self.with_world_model and self.world_model.imagination_length > 0
        problems = []  # each names its keys in full: messages add where they were given
        if self.exploration.finish > self.exploration.start:
            problems.append("exploration.finish must not exceed exploration.start")
        if self.replay.batch_episodes > self.replay.capacity_episodes:
            problems.append("replay.batch_episodes must not exceed replay.capacity_episodes")
        if self.algorithm in MODEL_BASED and not self.mixer.global_state and not imagines:
            problems.append(
                "mixer.global_state: false leaves the mixer without input unless an imagined roll-out "
                "feeds it (world_model.enabled: true, world_model.imagination_length ≥ 1)"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self
