"""What all tests share: checked shapes, one thread, a small task, and episodes of unequal length.

Every shape annotation of the library is checked while it is tested: the hook has to be in place before the
library is first imported. Integers pass as floats (PEP 484), which beartype allows only on request.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import jaxtyping

HOOK = jaxtyping.install_import_hook(
    "marl_sale", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from marl_sale import kernels  # noqa: E402
from marl_sale.config.recipe import Recipe, load_recipe  # noqa: E402
from marl_sale.config.schema import Config  # noqa: E402
from marl_sale.data.episodes import Episodes, action_dtype  # noqa: E402
from marl_sale.observer import Silent  # noqa: E402
from marl_sale.spec import EnvSpec  # noqa: E402
from marl_sale.stages import pretrain_wm, train  # noqa: E402

torch.set_num_threads(1)
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")

SMALL = (
    "agent.hidden_size=8",
    "sale.size=6",
    "sale.hidden_size=7",
    "world_model.latent_size=3",
    "world_model.hidden_size=8",
    "world_model.action_embedding_size=2",
    "mixer.size=5",
    "mixer.hypernet_size=6",
    "replay.batch_episodes=4",
    "replay.capacity_episodes=24",
)
"""Networks of a few units, all of different sizes, so that no two axes can be mistaken for each other."""

RecipeMaker = Callable[..., Recipe]
ConfigMaker = Callable[..., Config]
EpisodesMaker = Callable[..., Episodes]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long form of tests/trust; keeps its figures")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture(params=["kernels", "torch"])
def kernels_or_torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The compiled loops, where a compiler made them, and what stands in for them elsewhere."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "usable", lambda x: False)
    elif kernels.instruction_set() == "none":
        pytest.skip("no kernels here: the package was installed without a C compiler")
    return str(request.param)


@cache
def _recipe(name: str, overrides: tuple[str, ...]) -> Recipe:
    return load_recipe(name, [*SMALL, *overrides])


@pytest.fixture(scope="session")
def small_recipe() -> RecipeMaker:
    """`small_recipe("qmix", changes=["discount=0.9"])`: tiny/match with overlays and small networks."""

    def make(*overlays: str, changes: Sequence[str] = (), task: str = "tiny/match+tiny") -> Recipe:
        return _recipe("+".join([task, *overlays]), tuple(changes))

    return make


@pytest.fixture(scope="session")
def small_config(small_recipe: RecipeMaker) -> ConfigMaker:
    """The configuration of `small_recipe`."""
    return lambda *overlays, **more: small_recipe(*overlays, **more).config


@pytest.fixture
def spec() -> EnvSpec:
    """A task whose sizes are all different."""
    return EnvSpec(
        family="none",
        task="none",
        backend="none",
        n_agents=3,
        n_actions=4,
        obs_size=5,
        state_size=9,
        episode_limit=6,
        masks_actions=True,
        has_success=True,
    )


@pytest.fixture(scope="session")
def random_episodes() -> EpisodesMaker:
    """Random episodes of the given lengths, each with some available actions; padding is not a number."""

    def make(spec: EnvSpec, lengths: Sequence[int], seed: int = 0) -> Episodes:
        generator = torch.Generator().manual_seed(seed)
        b, t, n = len(lengths), spec.episode_limit, spec.n_agents
        length = torch.tensor(lengths)
        avail = torch.rand(b, t + 1, n, spec.n_actions, generator=generator) < 0.6
        if not spec.masks_actions:
            avail[:] = True
        actions = torch.randint(spec.n_actions, (b, t, n), generator=generator)
        avail[:, :-1].scatter_(-1, actions.unsqueeze(-1), True)
        avail[:, -1, :, 0] = True
        episodes = Episodes(
            obs=torch.randn(b, t + 1, n, spec.obs_size, generator=generator),
            state=torch.randn(b, t + 1, spec.state_size, generator=generator),
            avail_actions=avail,
            actions=actions.to(action_dtype(spec)),
            reward=torch.randn(b, t, generator=generator),
            terminated=torch.rand(b, generator=generator) < 0.5,
            success=torch.rand(b, generator=generator) < 0.5,
            length=length,
        )
        for i, steps in enumerate(lengths):
            episodes.obs[i, steps + 1 :] = float("nan")
            episodes.state[i, steps + 1 :] = float("nan")
            episodes.reward[i, steps:] = float("nan")
        return episodes

    return make


SHORT = (
    "train.env_steps=150",
    "train.num_envs=2",
    "train.checkpoint_period=60",
    "train.log_period=40",
    "evaluation.period=50",
    "evaluation.episodes=3",
    "evaluation.num_envs=3",
    "exploration.anneal_env_steps=100",
    "optimiser.target_update_period=5",
    "replay.capacity_episodes=12",
    "pretrain.episodes=16",
)
"""Some fifteen episodes: several rows, copies, evaluations and checkpoints, and a replay that overflows."""


@pytest.fixture(scope="session")
def short_recipe(small_recipe: RecipeMaker) -> RecipeMaker:
    """`small_recipe` for whole stages that take a second or two."""
    return lambda *overlays, changes=(), **more: small_recipe(*overlays, changes=[*SHORT, *changes], **more)


@pytest.fixture(scope="session")
def world_model(short_recipe: RecipeMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world-model artifact of `short_recipe()`, with its dataset beside it in `dataset`."""
    folder = tmp_path_factory.mktemp("pretrained")
    pretrain_wm.run(
        short_recipe(),
        folder / "world-model",
        seed=0,
        device="cpu",
        observer=Silent(),
        command="marl-sale pretrain-wm",
        save_dataset=folder / "dataset",
    )
    return folder / "world-model"


@pytest.fixture(scope="session")
def agent(short_recipe: RecipeMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent artifact of `short_recipe()`."""
    out = tmp_path_factory.mktemp("trained") / "agent"
    train.run(short_recipe(), out, seed=0, device="cpu", observer=Silent(), command="marl-sale train")
    return out
