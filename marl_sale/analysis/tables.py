"""The content of a report as Markdown, for people."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marl_sale.analysis.report import MEASURES, QUANTITIES
from marl_sale.analysis.statistics import LEVEL

READING = f"""\
How to read it: the unit is the seed. A value is the interquartile mean (IQM) over seeds; in parentheses the
{LEVEL:.0%} percentile interval of a bootstrap over seeds, stratified by task (none for a single seed, and too
narrow for few). **Final** is the last evaluation of each run, **best** the highest of all its evaluations (an
optimistic figure: the maximum of noisy ones), **area** the mean height of its curve over env steps. Different
protocols are different tasks: never compare across them. Tasks are pooled where a recipe has the same
settings on each of them, and as many seeds (– otherwise: one task would outweigh another)."""


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
            "Seed",
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
                    "–" if entry["seed"] is None else entry["seed"],
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
        "Evaluations over seeds",
        ("Task", "Protocol", "Recipe", "Seed bank", "Seeds", "Win rate", "Episode return"),
        [
            (
                *(*_where(entry), entry["bank"], entry["seeds"]),
                *(_shown(entry["win_rate"]), _shown(entry["episode_return"])),
            )
            for entry in content["evaluated"]
        ],
        "The unit is the seed: IQM over the agents' means, each of the latest checkpoint that was evaluated; "
        f"in parentheses the {LEVEL:.0%} bootstrap interval (none for a single seed, too narrow for few).",
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


def _where(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return entry["task"], entry["protocol"], entry["label"]


def _shown(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "–"
    value, interval = estimate["value"], estimate["ci95"]
    return f"{number(value)} ({number(interval[0])} to {number(interval[1])})" if interval else number(value)


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
