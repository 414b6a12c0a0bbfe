"""The final figures of each recipe, as JSON values: over seeds, over tasks, and against each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float64

from marl_sale.analysis.groups import Group, labels, learning
from marl_sale.analysis.runs import EvaluationRun
from marl_sale.analysis.statistics import (
    Interval,
    area_under_curve,
    bootstrap_interval,
    improvement_interval,
    iqm,
    mean_interval,
    probability_of_improvement,
    wilson_interval,
)

QUANTITIES: Mapping[str, str] = {"episode_return": "Episode return", "win_rate": "Win rate"}
MEASURES = ("final", "best", "area")


@dataclass(frozen=True)
class Estimate:
    """A value over seeds or episodes, with its interval (None where there is none)."""

    value: float
    interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci95": list(self.interval) if self.interval else None}


@dataclass(frozen=True)
class Summary:
    """One quantity of one group."""

    per_seed: Mapping[str, Float64[np.ndarray, " seeds"]]
    """Measure (final, best, area) → its value for each run of the group, in their order."""
    estimates: Mapping[str, Estimate]


def summarise(group: Group, quantity: str, generator: np.random.Generator) -> Summary | None:
    """Final, best and area of `quantity` over env steps; None where a run of the group does not have it."""
    curves = [run.curve("evaluation", "env_steps", quantity) for run in group.runs]
    found = [curve for curve in curves if curve is not None]
    if len(found) < len(curves):
        return None
    per_seed = {
        "final": np.array([curve.y[-1] for curve in found]),
        "best": np.array([curve.y.max() for curve in found]),
        "area": np.array([area_under_curve(curve.x, curve.y) for curve in found]),
    }
    return Summary(per_seed, {name: over_seeds([values], generator) for name, values in per_seed.items()})


def over_seeds(strata: Sequence[Float64[np.ndarray, " _"]], generator: np.random.Generator) -> Estimate:
    """IQM of the values of all seeds of all tasks, and its stratified bootstrap interval."""
    band = bootstrap_interval(strata, generator)
    interval = None if band is None else Interval(float(band.low), float(band.high))
    return Estimate(float(iqm(np.concatenate(strata))), interval)


def over_episodes(run: EvaluationRun) -> dict[str, Estimate | None]:
    """Mean return (Student's t interval) and win rate (Wilson's; None without success) of an evaluation."""
    wins, episodes = run.successes, len(run.returns)
    return {
        "episode_return": Estimate(float(run.returns.mean()), mean_interval(run.returns)),
        "win_rate": None if wins is None else Estimate(wins / episodes, wilson_interval(wins, episodes)),
    }


def report(
    groups: Sequence[Group], evaluations: Sequence[EvaluationRun], generator: np.random.Generator
) -> dict[str, Any]:
    """Everything in the tables, as JSON values."""
    summaries = [{name: summarise(group, name, generator) for name in QUANTITIES} for group in groups]
    return {
        "groups": [_group(*pair) for pair in zip(groups, summaries, strict=True)],
        "across_tasks": list(_across_tasks(groups, summaries, generator)),
        "improvement": list(_improvements(groups, summaries, generator)),
        "evaluations": [_evaluation(run, _trained(groups).get(run.agent)) for run in evaluations],
        "evaluated": list(_evaluated(groups, evaluations, generator)),
    }


def _group(group: Group, summaries: Mapping[str, Summary | None]) -> dict[str, Any]:
    first = group.runs[0]
    return {
        "task": group.task.name,
        "protocol": group.task.protocol,
        "label": group.label,
        "recipe": first.recipe,
        "overrides": list(first.overrides),
        "fingerprint": first.fingerprint,
        "runs": [
            {
                "id": run.id,
                "seed": run.seed,
                "status": run.status,
                "env_steps": int(run.reached("env_steps")),
                "seconds": run.reached("seconds"),
            }
            for run in group.runs
        ],
    } | {name: summary and _summary(summary) for name, summary in summaries.items()}


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        name: estimate.to_json() | {"per_seed": summary.per_seed[name].tolist()}
        for name, estimate in summary.estimates.items()
    }


def _across_tasks(
    groups: Sequence[Group],
    summaries: Sequence[Mapping[str, Summary | None]],
    generator: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    """Win rates pooled over the tasks of a recipe. Not returns: those of two tasks have different scales."""
    pooled: dict[Any, list[tuple[Group, Summary]]] = {}
    for group, of_group in zip(groups, summaries, strict=True):
        if summary := of_group["win_rate"]:
            run = group.runs[0]
            same = group.task.protocol, run.algorithm, run.input_roles, repr(sorted(learning(run).items()))
            pooled.setdefault(same, []).append((group, summary))
    several = [
        found for found in pooled.values() if len({group.task for group, _ in found}) == len(found) > 1
    ]
    names = labels([found[0][0].runs[0] for found in several])
    entries = [_pooled(name, found, generator) for name, found in zip(names, several, strict=True)]
    yield from sorted(entries, key=lambda entry: (entry["protocol"], entry["tasks"], entry["label"]))


def _pooled(
    label: str, found: Sequence[tuple[Group, Summary]], generator: np.random.Generator
) -> dict[str, Any]:
    seeds = [len(group.runs) for group, _ in found]
    return {
        "protocol": found[0][0].task.protocol,
        "label": label,
        "tasks": [group.task.name for group, _ in found],
        "seeds": seeds,
        "failed": sum(len(group.failed) for group, _ in found),
        "win_rate": {
            name: over_seeds([summary.per_seed[name] for _, summary in found], generator).to_json()
            for name in MEASURES
        }
        if len(set(seeds)) == 1
        else None,
    }


def _improvements(
    groups: Sequence[Group],
    summaries: Sequence[Mapping[str, Summary | None]],
    generator: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    for (ours, of_ours), (theirs, of_theirs) in combinations(zip(groups, summaries, strict=True), 2):
        a, b = of_ours["episode_return"], of_theirs["episode_return"]
        if ours.task == theirs.task and a and b:
            final = a.per_seed["final"], b.per_seed["final"]
            chance = Estimate(probability_of_improvement(*final), improvement_interval(*final, generator))
            yield {
                "task": ours.task.name,
                "protocol": ours.task.protocol,
                "label": ours.label,
                "than": theirs.label,
                "seeds": [len(values) for values in final],
                "chance": chance.to_json(),
            }


def _trained(groups: Sequence[Group]) -> dict[str, tuple[Group, int]]:
    """Id of an agent → its group and seed."""
    return {run.id: (group, run.seed) for group in groups for run in group.runs}


def _evaluated(
    groups: Sequence[Group], evaluations: Sequence[EvaluationRun], generator: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Evaluations of the seeds of one recipe in one bank of episodes, as one row."""
    trained, latest = _trained(groups), dict[tuple[int, str], EvaluationRun]()
    for run in sorted(evaluations, key=lambda run: run.checkpoint or 0):
        if run.agent in trained and run.task == trained[run.agent][0].task:
            latest[run.bank, run.agent] = run
    for group in groups:
        for bank in sorted({bank for bank, _ in latest}):
            found = [latest[bank, run.id] for run in group.runs if (bank, run.id) in latest]
            if not found:
                continue
            rates = [run.successes / len(run.returns) for run in found if run.successes is not None]
            means = np.array([float(run.returns.mean()) for run in found])
            yield {
                "task": group.task.name,
                "protocol": group.task.protocol,
                "label": group.label,
                "bank": bank,
                "seeds": len(found),
                "win_rate": over_seeds([np.array(rates)], generator).to_json()
                if len(rates) == len(found)
                else None,
                "episode_return": over_seeds([means], generator).to_json(),
            }


def _evaluation(run: EvaluationRun, trained: tuple[Group, int] | None) -> dict[str, Any]:
    """As its agent is called in the other tables, where that stands there."""
    group, seed = trained or (None, None)
    estimates = over_episodes(run)
    return {
        "task": run.task.name,
        "protocol": run.task.protocol,
        "label": group.label if group and group.task == run.task else run.recipe,
        "seed": seed,
        "id": run.id,
        "agent": run.agent,
        "checkpoint": run.checkpoint,
        "bank": run.bank,
        "episodes": len(run.returns),
    } | {name: estimate and estimate.to_json() for name, estimate in estimates.items()}
