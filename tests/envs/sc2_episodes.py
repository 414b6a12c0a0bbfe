"""One random episode of each task of `smac` or `smacv2`: `sc2_episodes.py smacv2 terran_5_vs_5 …`.

A process of its own, as the two packages must not meet, and only one for all tasks, as starting costs more
than playing. Writes one line of JSON per task.
"""

import json
import sys

import numpy as np

from marl_sale.envs._sc2 import smac_battles, smacv2_battles


def episode(family: str, task: str) -> dict[str, object]:
    if family == "smac":
        copy = smac_battles(task, "7")
    else:
        race, agents, _, enemies = task.split("_")
        copy = smacv2_battles(race, int(agents), int(enemies), "7")
    draws, total, length = np.random.default_rng(0), 0.0, 0
    view, over = copy.reset(3), False
    while not over:
        actions = [int(draws.choice(np.flatnonzero(row))) for row in view.avail_actions]
        view, outcome = copy.step(actions)
        total, length = total + outcome.reward, length + 1
        over = outcome.terminated or outcome.truncated
    shapes = [list(np.shape(part)) for part in view]
    copy.close()
    return {
        "task": f"{family}/{task}",
        "sizes": copy.sizes,
        "shapes": shapes,
        "length": length,
        "return": total,
        "truncated": outcome.truncated,
    }


if __name__ == "__main__":
    family, *tasks = sys.argv[1:]
    for task in tasks:
        sys.stdout.write(json.dumps(episode(family, task)) + "\n")
        sys.stdout.flush()
