"""Names of VMAS tasks: the scenarios there are, their options, and why some are refused."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from marl_sale.envs._options import Option, Value, join_task, split_task
from marl_sale.errors import ConfigError

EXAMPLE = "for instance --set env.task=balance,n_agents=4"

_COMMON = {
    "limit": Option(100, "time limit in env steps", low=1, high=100_000),
    "levels": Option(
        "3", "forces per axis; an agent has their square of actions", words=("3", "5", "7", "9")
    ),
}


def _agents(default: int, low: int = 1, high: int = 64) -> Option:
    return Option(default, "number of agents", low=low, high=high)


_MOST_IN_DISCOVERY = 64
"""Agents and targets together; with twice as many the package looks for free places without end."""


# Defaults are those of the package; a recipe's task says what the published protocol changes.
SCENARIOS: Mapping[str, Mapping[str, Option]] = {
    "balance": {
        "n_agents": _agents(3, low=2),
        "package_mass": Option(5.0, "mass of the package", low=0.01, high=1000),
        "random_package_pos_on_line": Option(
            True, "the package starts anywhere on the line, not in its middle"
        ),
    },
    "ball_passage": {
        "n_passages": Option(1, "passages in the wall", low=1, high=5),
        "fixed_passage": Option(False, "the passages are always in the same place"),
    },
    "discovery": {
        "n_agents": _agents(5),
        "n_targets": Option(7, "targets", low=1, high=64),
        "agents_per_target": Option(2, "agents that must be near a target together", low=1, high=64),
        "targets_respawn": Option(True, "a covered target comes back elsewhere"),
        "shared_reward": Option(False, "every agent is rewarded for every target, not for its own"),
        "use_agent_lidar": Option(False, "agents sense each other"),
        "covering_range": Option(0.25, "how near is near", low=0.01, high=10),
        "lidar_range": Option(0.35, "how far agents sense", low=0.01, high=10),
        "agent_collision_penalty": Option(0.0, "when two agents touch", low=-1000),
        "time_penalty": Option(0.0, "in every env step", low=-1000),
    },
    "dispersion": {
        "n_agents": _agents(4),
        "n_food": Option(0, "pieces of food; 0: as many as agents", high=64),
        "share_reward": Option(False, "every agent is rewarded for every food, not for its own"),
        "food_radius": Option(0.05, "size of the food", low=0.001, high=1),
        "penalise_by_time": Option(False, "−0.01 in every env step without food"),
    },
    "dropout": {
        "n_agents": _agents(4),
        "energy_coeff": Option(0.02, "price of force", high=100),
        "start_same_point": Option(False, "all agents start in one point"),
    },
    "flocking": {
        "n_agents": _agents(4),
        "n_obstacles": Option(5, "obstacles", high=64),
    },
    "give_way": {
        "done_on_completion": Option(False, "the episode ends when both agents are at their goals"),
        "mirror_passage": Option(False, "a second passage, mirrored"),
        "observe_rel_pos": Option(False, "agents see where the other one is"),
    },
    "multi_give_way": {"shared_rew": Option(True, "agents share the reward of progress")},
    "navigation": {
        "n_agents": _agents(4, high=20),  # 24 take long to be placed, 32 for ever
        "collisions": Option(True, "agents collide, and sense each other"),
        "shared_rew": Option(True, "agents share the reward of progress"),
        "observe_all_goals": Option(False, "agents see all goals"),
        "agents_with_same_goal": Option(
            1, "agents with the same goal; above 1 without collisions only", low=1
        ),
        "split_goals": Option(False, "two goals, half of the agents each"),
        "lidar_range": Option(0.35, "how far agents sense", low=0.01, high=10),
        "agent_collision_penalty": Option(-1.0, "when two agents touch", low=-1000),
        "final_reward": Option(0.01, "while all agents are at their goals", high=1000),
    },
    "passage": {
        "n_passages": Option(1, "passages in the wall", low=1, high=5),
        "shared_reward": Option(False, "agents share the reward of progress"),
    },
    "reverse_transport": {
        "n_agents": _agents(4),
        "package_width": Option(0.6, "inner width", low=0.1, high=2),
        "package_length": Option(0.6, "inner length", low=0.1, high=2),
        "package_mass": Option(50.0, "mass of the package", low=0.01, high=10_000),
    },
    "sampling": {
        "n_agents": _agents(3),
        "shared_rew": Option(True, "agents share the reward"),
        "n_gaussians": Option(3, "peaks of the density", low=1, high=32),
        "cov": Option(0.05, "variance of a peak", low=0.001, high=10),
        "lidar_range": Option(0.2, "how far agents sense", low=0.01, high=10),
    },
    "simple_spread": {
        "n_agents": _agents(3),
        "obs_agents": Option(True, "agents see where the others are"),
    },
    "transport": {
        "n_agents": _agents(4),
        "n_packages": Option(1, "packages", low=1, high=16),
        "package_width": Option(0.15, "width", low=0.01, high=2),
        "package_length": Option(0.15, "length", low=0.01, high=2),
        "package_mass": Option(50.0, "mass of a package", low=0.01, high=10_000),
    },
    "wheel": {
        "n_agents": _agents(4),
        "line_length": Option(2.0, "length of the line", low=0.1, high=10),
        "line_mass": Option(30.0, "mass of the line", low=0.01, high=10_000),
        "desired_velocity": Option(0.05, "angular velocity that costs nothing", high=10),
    },
}

_LEAKS = "resetting one of its worlds leaves traces of other episodes, on which the next one would depend"
_RIVALS = "its agents play against each other: there is no team reward"
_TALKS = "its agents have actions of speech, of other sizes than those of motion"
REFUSED: Mapping[str, str] = {
    "ball_trajectory": _LEAKS,
    "buzz_wire": _LEAKS,
    "football": "its scripted opponents draw random numbers for all environments of a batch at once, "
    "so that an episode would depend on its neighbours",
    "joint_passage": _LEAKS,
    "joint_passage_size": _LEAKS,
    "road_traffic": "it draws random numbers for all environments of a batch at once while it is played, "
    "so that an episode would depend on its neighbours",
    "simple": "it has one agent",
    "simple_adversary": _RIVALS,
    "simple_crypto": _RIVALS,
    "simple_push": _RIVALS,
    "simple_reference": _TALKS,
    "simple_speaker_listener": _TALKS,
    "simple_tag": _RIVALS,
    "simple_world_comm": _RIVALS,
    "wind_flocking": _LEAKS,
}


@dataclass(frozen=True)
class Task:
    """What the name of a task says. `str(task)` is its canonical name."""

    scenario: str
    limit: int
    """Env steps of the longest episode."""
    levels: int
    """Forces an agent can choose from on each axis: odd, so that one of them is none."""
    options: Mapping[str, Value] = field(default_factory=dict)
    """Value of every option of the scenario."""

    @classmethod
    def parse(cls, name: str) -> "Task":
        """Read `scenario[,option=value…]`. Raises ConfigError for what is unknown, refused or impossible."""
        scenario = name.partition(",")[0]
        if scenario in REFUSED:
            raise ConfigError(
                [f"env.task: scenario {scenario!r} is refused: {REFUSED[scenario]}"],
                "docs/env-vmas.md lists the scenarios that can be played",
            )
        if scenario not in SCENARIOS:
            guess = difflib.get_close_matches(scenario, SCENARIOS, n=1)
            raise ConfigError(
                [f"env.task: found {name!r}, allowed in family 'vmas': {', '.join(SCENARIOS)}, and options"],
                f"did you mean {guess[0]!r}?" if guess else EXAMPLE,
            )
        _, values = split_task("vmas", name, _options(scenario))
        limit, levels = int(values.pop("limit")), int(values.pop("levels"))
        if problem := _contradiction(scenario, values):
            raise ConfigError([f"env.task {name!r}: {problem}"], "docs/env-vmas.md lists every option")
        return cls(scenario, limit, levels, values)

    def __str__(self) -> str:
        values = {"limit": self.limit, "levels": str(self.levels), **self.options}
        return join_task(self.scenario, values, _options(self.scenario))

    @property
    def arguments(self) -> dict[str, Value]:
        """What the package's scenario is built with."""
        return {key: value for key, value in self.options.items() if (key, value) != ("n_food", 0)}


def _options(scenario: str) -> dict[str, Option]:
    return {**SCENARIOS[scenario], **_COMMON}


def _contradiction(scenario: str, values: Mapping[str, Value]) -> str | None:
    """What the package would meet with an assertion, or never finish."""
    if scenario == "discovery":
        agents, targets = int(values["n_agents"]), int(values["n_targets"])
        if agents + targets > _MOST_IN_DISCOVERY:
            return f"n_agents={agents}, n_targets={targets}: there is room for {_MOST_IN_DISCOVERY} together"
    if scenario == "navigation":
        agents, together = int(values["n_agents"]), int(values["agents_with_same_goal"])
        if together > agents:
            return f"agents_with_same_goal={together} is more than n_agents={agents}"
        if together > 1 and values["collisions"]:
            return "agents with the same goal cannot reach it together unless collisions=false"
        if values["split_goals"] and 2 * together != agents:
            return "split_goals=true asks for agents_with_same_goal to be half of n_agents"
    return None
