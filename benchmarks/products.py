"""How many operations the matrix products of an update take: what no implementation can do without.

A product of [rows, n_in] with [n_in, n_out] is 2 · rows · n_in · n_out operations; look-ups of one-hot inputs
and everything element by element count as nothing.
"""

from marl_sale.config.schema import Config
from marl_sale.spec import EnvSpec

FORWARD = 1
TRAINED = 3
"""Forward, and the gradients of the weights and of the inputs."""
TRAINED_FIRST = 2
"""A first layer's inputs are data: they need no gradient."""


def qmix_operations(spec: EnvSpec, config: Config, rows: int, steps: int) -> int:
    """Operations of the matrix products of one QMIX update on `rows` observations with `steps` between them.

    Of the agents: core and head on every row, trained (greedy actions and those taken read the same values);
    of the target network, forward, the core on every row and the head on every step. Of the mixers:
    hyper-networks on every step, trained and forward; mixing is element by element.

    By hand, feed-forward, one agent, all sizes 1, one step between two rows. Core: two layers of 1 · 1, on
    2 rows, once 2 + 1 and once 3 + 1 times: 14. Head: 3 times on 2 rows and once on 1: 7. Mixer on 1 row:
    first layers of four hyper-networks, 4 · (2 + 1), and three second layers, 3 · (3 + 1): 24. Twice the sum
    of 45: 90.
    """
    hidden, mixing, hyper = config.agent.hidden_size, config.mixer.size, config.mixer.hypernet_size
    agents, of_agents = spec.n_agents, rows * spec.n_agents

    core_first = of_agents * spec.obs_size * hidden
    core = of_agents * hidden * hidden * (6 if config.agent.core == "gru" else 1)
    head = hidden * spec.n_actions
    heads = TRAINED * of_agents * head + FORWARD * steps * agents * head
    mixer_first = steps * spec.state_size * (2 * hyper + 2 * mixing)
    mixer = steps * (hyper * agents * mixing + hyper * mixing + mixing)

    first = (TRAINED_FIRST + FORWARD) * (core_first + mixer_first)
    rest = (TRAINED + FORWARD) * (core + mixer)
    return 2 * (first + rest + heads)
