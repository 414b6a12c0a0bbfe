"""A played episode as an animation."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image

from marl_sale.artifacts.manifest import require_outside
from marl_sale.data.collect import Exploration, Policy, random_available
from marl_sale.errors import RunExistsError, UsageError
from marl_sale.spec import VectorEnv

MILLISECONDS_PER_STEP = 200


def require_gif(file: Path, out: Path) -> None:
    """UsageError for a file of another kind, or one that cannot be written; RunExistsError for one inside an
    artifact, such as the one to be written to `out`. Known before the episodes are played; writes nothing.
    """
    if file.suffix.lower() != ".gif":
        raise UsageError(
            f"--render {file}: only .gif is written", f"try {file.parent / (file.stem or 'episode')}.gif"
        )
    hint = "an artifact holds what its manifest lists; choose another place with --render"
    require_outside(file, hint)
    if out.resolve() in file.resolve().parents:
        raise RunExistsError(f"--render {file}: lies inside the evaluation to be written, {out}", hint)
    with _refused(file):
        there = next(path for path in (file, *file.absolute().parents) if path.exists())
        if not (there.is_file() if there is file else there.is_dir()):
            raise OSError(errno.EISDIR if there is file else errno.ENOTDIR, f"{there} is in the way")
        if not os.access(there, os.W_OK):
            raise OSError(errno.EACCES, f"{there} may not be written to")


@contextmanager
def _refused(file: Path) -> Iterator[None]:
    """UsageError, naming the option, for what the system says of `file`; a full disk is another matter."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UsageError(
            f"--render {file}: cannot be written: {error.strerror or error}", "name another file"
        ) from error


@torch.no_grad()
def render_episode(
    env: VectorEnv,
    policy: Policy | None,
    seeds: Int64[np.ndarray, " envs"],
    file: Path,
    random: Exploration | None = None,
) -> None:
    """Play the first seed in environment 0 and write it to `file` (.gif): greedily, or, with `policy` None,
    the random available actions that `random` stands for, as `play` does.
    """
    spec = env.spec
    observation = env.reset(seeds)
    memory = None if policy is None else policy.initial_memory(env.num_envs)
    actions = torch.full((env.num_envs, spec.n_agents), spec.n_actions)
    frames = [env.render(0)]
    for t in range(spec.episode_limit):
        if policy is None:
            assert random is not None
            actions = random_available(observation.avail_actions, random.noise[:, t, :, 1])
        else:
            assert memory is not None
            actions, memory = policy.act(observation, actions, memory)
        transition = env.step(actions)
        frames.append(env.render(0))
        observation = transition.observation
        if transition.terminated[0] or transition.truncated[0]:
            break
    pictures = [Image.fromarray(frame) for frame in frames]
    more, pace = pictures[1:], MILLISECONDS_PER_STEP
    with _refused(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        pictures[0].save(file, save_all=True, append_images=more, duration=pace, loop=0)
