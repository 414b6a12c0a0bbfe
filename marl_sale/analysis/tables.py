"""The final figures of each recipe, as Markdown for people and as JSON values for programs."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float64

from marl_sale.analysis.groups import Group, labels, learning
from marl_sale.analysis.runs import EvaluationRun
from marl_sale.analysis.statistics import (
    LEVEL,
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

READING = f"""\
How to read it: the unit is the seed. A value is the interquartile mean (IQM) over seeds; in parentheses the
{LEVEL:.0%} percentile interval of a bootstrap over seeds, stratified by task (none for a single seed, and too
narrow for few). **Final** is the last evaluation of each run, **best** the highest of all its evaluations (an
optimistic figure: the maximum of noisy ones), **area** the mean height of its curve over env steps. Different
protocols are different tasks: never compare across them. Tasks are pooled where a recipe has the same
settings on each of them, and as many seeds (– otherwise: one task would outweigh another)."""


@dataclass(frozen=True)
class Estimate:
    """A value over seeds or episodes, with its interval (None where there is none)."""

    value: float
    interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "ci95": list(self.interval) if self.interval else None}

    def __str__(self) -> str:
        if self.interval is None:
            return number(self.value)
        return f"{number(self.value)} ({number(self.interval.low)} to {number(self.interval.high)})"


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
        "evaluations": [_evaluation(run) for run in evaluations],
    }


def markdown(content: Mapping[str, Any], notes: Sequence[str]) -> str:
    """The content of a report as Markdown. Text from recipes cannot become markup."""
    parts = ["# Results", *(f"> {_escape(note)}" for note in notes)]
    head = ("Task", "Protocol", "Recipe", "Seeds", "Env steps", "Wall seconds", "Final", "Best", "Area")
    for quantity, title in QUANTITIES.items():
        rows: list[tuple[object, ...]] = [
            (
                *(
                    *_where(entry),
                    _seeds(str(len(entry["runs"])), _failed(entry)),
                    _range(entry, "env_steps"),
                    _range(entry, "seconds"),
                ),
                *(_shown(entry[quantity][measure]) for measure in MEASURES),
            )
            for entry in content["groups"]
            if entry[quantity]
        ]
        if quantity == "win_rate":
            rows += [
                (
                    *(" + ".join(entry["tasks"]), entry["protocol"], entry["label"]),
                    *(_seeds(" + ".join(map(str, entry["seeds"])), entry["failed"]), "", ""),
                    *(_shown(entry[quantity] and entry[quantity][measure]) for measure in MEASURES),
                )
                for entry in content["across_tasks"]
            ]
        parts += _section(title, head, rows)
    parts += [READING] if content["groups"] else []
    parts += _section(
        "Probability of improvement",
        ("Task", "Protocol", "Recipe", "Better than", "Seeds", "Chance"),
        [
            (*_where(entry), entry["than"], " and ".join(map(str, entry["seeds"])), _shown(entry["chance"]))
            for entry in content["improvement"]
        ],
        "The chance that a random seed of the first ends with a higher return than one of the second; in "
        f"parentheses the {LEVEL:.0%} interval of a bootstrap over the seeds of both (none for a single "
        "seed, too narrow for few).",
    )
    parts += _section(
        "Evaluations",
        (
            "Task",
            "Protocol",
            "Recipe",
            "Agent",
            "Checkpoint",
            "Seed bank",
            "Episodes",
            "Win rate",
            "Episode return",
        ),
        [
            (
                *(
                    *_where(entry),
                    entry["agent"],
                    "–" if entry["checkpoint"] is None else f"{entry['checkpoint']:,}",
                    entry["bank"],
                    entry["episodes"],
                ),
                *(_shown(entry["win_rate"]), _shown(entry["episode_return"])),
            )
            for entry in content["evaluations"]
        ],
        f"The unit is the episode; {LEVEL:.0%} intervals: Wilson's for a win rate, Student's t for a return.",
    )
    parts += _section(
        "Runs",
        ("Task", "Protocol", "Recipe", "Seed", "Status", "Env steps", "Wall seconds", "Run"),
        [
            (
                *_where(entry),
                run["seed"],
                run["status"],
                f"{run['env_steps']:,}",
                f"{run['seconds']:,.0f}",
                run["id"],
            )
            for entry in content["groups"]
            for run in entry["runs"]
        ],
    )
    return "\n\n".join(parts) + "\n"


def number(value: float) -> str:
    """Three decimals below 10, fewer above: 0.967, 12.35, 5120."""
    size = abs(value)
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0}f}"


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


def _evaluation(run: EvaluationRun) -> dict[str, Any]:
    estimates = over_episodes(run)
    return {
        "task": run.task.name,
        "protocol": run.task.protocol,
        "label": run.recipe,
        "id": run.id,
        "agent": run.agent,
        "checkpoint": run.checkpoint,
        "bank": run.bank,
        "episodes": len(run.returns),
    } | {name: estimate and estimate.to_json() for name, estimate in estimates.items()}


def _where(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return entry["task"], entry["protocol"], entry["label"]


def _shown(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "–"
    return str(Estimate(estimate["value"], Interval(*estimate["ci95"]) if estimate["ci95"] else None))


def _failed(entry: Mapping[str, Any]) -> int:
    return sum(run["status"] == "failed" for run in entry["runs"])


def _seeds(count: str, failed: int) -> str:
    return f"{count} ({failed} failed)" if failed else count


def _range(entry: Mapping[str, Any], counter: str) -> str:
    values = [round(run[counter]) for run in entry["runs"]]
    return "–".join(f"{value:,}" for value in sorted({min(values), max(values)}))


def _section(title: str, head: Sequence[str], rows: Sequence[Iterable[object]], key: str = "") -> list[str]:
    if not rows:
        return []
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(_escape(str(cell)) for cell in row) for row in rows]
    return [f"## {title}", "\n".join(f"| {line} |" for line in lines), *([key] if key else [])]


def _escape(text: str) -> str:
    """Foreign text in Markdown: neither markup, nor HTML, nor the end of a cell or line."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return re.sub(r"([\\`*_<>|$~\[\]])", r"\\\1", plain)
