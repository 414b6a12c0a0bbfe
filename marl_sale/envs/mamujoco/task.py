"""What the name of a Multi-Agent MuJoCo task says: a body, how its joints are shared out, options."""

import difflib
import re
from dataclasses import dataclass, replace

from marl_sale.envs._options import Option, join_task, split_task
from marl_sale.errors import ConfigError

JOINTS: dict[str, dict[str, tuple[int, ...]]] = {
    "Ant": {"2x4": (4, 4), "2x4d": (4, 4), "4x2": (2, 2, 2, 2)},
    "HalfCheetah": {"2x3": (3, 3), "6x1": (1, 1, 1, 1, 1, 1)},
    "Hopper": {"3x1": (1, 1, 1)},
    "Humanoid": {"9|8": (9, 8)},
    "HumanoidStandup": {"9|8": (9, 8)},
    "Pusher": {"3p": (3, 1, 3)},
    "Reacher": {"2x1": (1, 1)},
    "Swimmer": {"2x1": (1, 1)},
    "Walker2d": {"2x3": (3, 3)},
}
"""The package's partitions of each body: joints of each agent."""
SEGMENTED = {"ManySegmentAnt": 4, "ManySegmentSwimmer": 1}
"""Bodies of as many segments as the partition `<agents>x<segments of each>` asks for; joints of a segment."""
MOST_SEGMENTS = 64
REFUSED = {
    "CoupledHalfCheetah": "gymnasium-robotics 1.4.2 cannot observe it (IndexError on the tendon's Jacobian)",
    "InvertedPendulum": "it has one joint, so there is nothing to share out",
    "InvertedDoublePendulum": "it has one joint, so there is nothing to share out",
}
MOST_TABLE_ACTIONS = 1000
"""Most actions of one unit: a value is learned, and an availability stored, for each."""

_LIMITS = {"Reacher": 50, "Pusher": 100}
_GRAMMAR = "<body>-<partition>[,option=value…]"
_EXAMPLE = "for instance --set env.task=HalfCheetah-2x3,agent_obsk=0"


def options_of(body: str) -> dict[str, Option]:
    """Options of a body's tasks; the default limit is the one its single-agent task is registered with."""
    return {
        "agent_obsk": Option(1, "joints up to this many away are observed", 0, 16),
        "full_obs": Option(False, "every agent observes the state"),
        "bins": Option(5, "torques per joint, equally spaced; odd, so that 0 is one of them", 3, 101),
        "heads": Option(
            "factorised",
            "factorised: one acting unit per joint; table: one per agent, an action per combination",
            words=("factorised", "table"),
        ),
        "limit": Option(_LIMITS.get(body, 1000), "env steps of the longest episode", 1, 100_000),
    }


@dataclass(frozen=True)
class Task:
    """A parsed name. `str(task)` is its canonical form, which `parse` reads back."""

    body: str
    partition: str
    agent_obsk: int
    full_obs: bool
    bins: int
    heads: str
    limit: int

    @classmethod
    def parse(cls, task: str) -> "Task":
        """Read `<body>-<partition>[,option=value…]`. Raises ConfigError with what is wrong."""
        body, _, partition = task.partition(",")[0].partition("-")
        partition = partition.replace("-", "|")  # Humanoid-9-8: a bar is awkward in shells and file names
        _require_known(task, body, partition)
        _, given = split_task("mamujoco", task, options_of(body))
        read = cls(
            body,
            partition,
            int(given["agent_obsk"]),
            bool(given["full_obs"]),
            int(given["bins"]),
            str(given["heads"]),
            int(given["limit"]),
        )
        if max(read.joints) == 1:  # both heads are the same then
            read = replace(read, heads="factorised")
        problems = {
            f"bins={read.bins}: must be odd, so that a torque of 0 is among the values": read.bins % 2 == 0,
            f"agent_obsk={read.agent_obsk}: full_obs=true shows every agent the state": (
                read.full_obs and read.agent_obsk != 1
            ),
            f"heads=table: {read.bins} torques for each of {max(read.joints)} joints are "
            f"{read.n_actions:,} actions, allowed: up to {MOST_TABLE_ACTIONS:,}; factorised heads "
            "cost in proportion to the joints": read.n_actions > MOST_TABLE_ACTIONS,
        }
        if any(problems.values()):
            raise ConfigError(
                [f"env.task {task!r}: {text}" for text, wrong in problems.items() if wrong], _EXAMPLE
            )
        return read

    def __str__(self) -> str:
        options = options_of(self.body)
        return join_task(
            f"{self.body}-{self.partition}", {key: getattr(self, key) for key in options}, options
        )

    @property
    def joints(self) -> tuple[int, ...]:
        """Joints of each agent."""
        if self.body in JOINTS:
            return JOINTS[self.body][self.partition]
        agents, each = self.partition.split("x")
        return (int(each) * SEGMENTED[self.body],) * int(agents)

    @property
    def per_joint(self) -> bool:
        """Whether every joint is an acting unit of its own, rather than every agent."""
        return self.heads == "factorised"

    @property
    def n_units(self) -> int:
        """What the learner takes for agents."""
        return sum(self.joints) if self.per_joint else len(self.joints)

    @property
    def n_actions(self) -> int:
        """Actions of the unit that has most."""
        return self.bins if self.per_joint else self.bins ** max(self.joints)

    @property
    def masks_actions(self) -> bool:
        """Whether some agents have fewer actions than others."""
        return not self.per_joint and len(set(self.joints)) > 1

    @property
    def segments(self) -> int:
        """Segments of a segmented body."""
        agents, each = self.partition.split("x")
        return int(agents) * int(each)


def _require_known(task: str, body: str, partition: str) -> None:
    """ConfigError where the package has no such body or partition, or none that works."""
    where = f"env.task {task!r}"
    if body in REFUSED:
        raise ConfigError([f"{where}: {body}: {REFUSED[body]}"], _EXAMPLE)
    known = (*JOINTS, *SEGMENTED)
    if body not in known:
        guess = difflib.get_close_matches(body, known, n=1)
        raise ConfigError(
            [f"{where}: allowed in family 'mamujoco': {_GRAMMAR}, bodies {', '.join(known)}"],
            f"did you mean {guess[0]}?" if guess else _EXAMPLE,
        )
    if body in JOINTS:
        if partition not in JOINTS[body]:
            raise ConfigError(
                [f"{where}: partitions of {body}: {', '.join(JOINTS[body])}"],
                f"for instance --set 'env.task={body}-{next(iter(JOINTS[body]))}'",
            )
        return
    shares = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", partition)
    if shares is None or int(shares[1]) < 2 or not int(shares[1]) * int(shares[2]) <= MOST_SEGMENTS:
        raise ConfigError(
            [
                f"{where}: a partition of {body} is <agents>x<segments of each>, from 2 agents to "
                f"{MOST_SEGMENTS} segments in all"
            ],
            f"for instance --set env.task={body}-10x2",
        )
