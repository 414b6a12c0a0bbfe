"""What an environment shows, checked before it is stored.

A wrong shape would be broadcast, and what is not finite learned from.
"""

from collections.abc import Iterator

from torch import Tensor

from marl_sale.errors import EnvironmentFault
from marl_sale.spec import EnvSpec, Observation, Transition

_HINT = "docs/add-an-environment.md has the contract, and a check of every clause (check_contract)"


def require_observation(spec: EnvSpec, num_envs: int, shown: Observation, step: int) -> None:
    """EnvironmentFault unless shapes are those of the spec, numbers finite, and every agent can do something.

    `step`: env steps of the episodes so far.
    """
    agents = (num_envs, spec.n_agents)
    shapes = ((*agents, spec.obs_size), (num_envs, spec.state_size), (*agents, spec.n_actions))
    problem = next(_unsound(shown._asdict(), shapes), None)
    if problem is None and not bool((able := shown.avail_actions.any(dim=2)).all()):
        problem = f"no action is available to an agent of environment {_first(~able.all(dim=1))}"
    if problem is not None:
        raise EnvironmentFault(f"{spec.family}/{spec.task}: after {step} env steps {problem}", _HINT)


def require_transition(spec: EnvSpec, num_envs: int, shown: Transition, step: int) -> None:
    """`require_observation` of what a step returned, and the same for reward and flags."""
    require_observation(spec, num_envs, shown.observation, step)
    rest = {name: value for name, value in shown._asdict().items() if name != "observation"}
    for problem in _unsound(rest, ((num_envs,),) * len(rest)):
        raise EnvironmentFault(f"{spec.family}/{spec.task}: after {step} env steps {problem}", _HINT)


def _unsound(tensors: dict[str, Tensor], shapes: tuple[tuple[int, ...], ...]) -> Iterator[str]:
    for (name, tensor), shape in zip(tensors.items(), shapes, strict=True):
        if tuple(tensor.shape) != shape:
            yield f"{name} has shape {tuple(tensor.shape)}, expected {shape}"
        # A sum is finite only where every number is, and costs a fraction of looking at each.
        elif tensor.is_floating_point() and not bool(tensor.sum().isfinite()):
            finite = tensor.flatten(1).isfinite().all(dim=1) if tensor.dim() > 1 else tensor.isfinite()
            if not bool(finite.all()):
                yield f"{name} is not finite in environment {_first(~finite)}"


def _first(wrong: Tensor) -> int:
    return int(wrong.nonzero()[0])
