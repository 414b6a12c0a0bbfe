"""Runs as the seeds of recipes, and what a legend calls each recipe."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from marl_sale.analysis.runs import Kind, Task, TrainingRun
from marl_sale.config.effect import effective
from marl_sale.config.keys import keys
from marl_sale.config.library import changes_of
from marl_sale.errors import ConfigError, UsageError

MAX_LABEL = 120

_IN_TITLE = ("algorithm", "env.family", "env.task", "env.backend", "env.mask_actions")
"""What the first word of a label says, or the title of its panel."""
_WATCHED = ("train.env_steps", "train.log_period", "train.checkpoint_period", "evaluation.", "pretrain.")
"""The length, which the axis shows; how a run is watched; what made its world model, which is an input."""


@dataclass(frozen=True)
class Group:
    """The seeds of one recipe on one task."""

    task: Task
    label: str
    runs: tuple[TrainingRun, ...]

    @property
    def failed(self) -> list[TrainingRun]:
        return [run for run in self.runs if run.status == "failed"]


def group(runs: Sequence[TrainingRun]) -> list[Group]:
    """Runs of the same configuration, task and kind of start, in the order of task and label.

    Raises UsageError where a group has the same seed twice: they are not independent.
    """
    members: dict[Kind, list[TrainingRun]] = {}
    for run in sorted(runs, key=lambda run: (run.seed, run.id)):
        members.setdefault(run.kind, []).append(run)
    problems = [
        f"{b.folder}: the same recipe and seed {b.seed} as {a.folder}"
        for found in members.values()
        for a, b in pairwise(found)
        if a.seed == b.seed
    ]
    if problems:
        raise UsageError("\n".join(problems), "leave one of them out: they would count as two seeds")
    groups = []
    for task in {run.task for run in runs}:
        of_task = [tuple(found) for found in members.values() if found[0].task == task]
        names = labels([found[0] for found in of_task])
        groups += [Group(task, name, found) for name, found in zip(names, of_task, strict=True)]
    return sorted(groups, key=lambda group: (group.task.name, group.task.protocol, group.label))


def learning(run: TrainingRun) -> dict[str, Any]:
    """The settings that decide how a run learns, whatever its task and length."""
    found = effective(run.settings)
    return {key: value for key, value in found.items() if not key.startswith((*_IN_TITLE, *_WATCHED))}


def labels(runs: Sequence[TrainingRun]) -> list[str]:
    """What a panel calls its recipes, of each of which `runs` has one run; no two are called alike.

    A label has the algorithm, the overlays, the start, and each setting in which the recipes of the panel
    differ. Resolved configurations are compared, not command lines: recipes change with versions.
    """
    settings = _shown(runs, [learning(run) for run in runs])
    texts = [_cut(_name(run), _spelled(found)) for run, found in zip(runs, settings, strict=True)]
    effects, whole = [effective(run.settings) for run in runs], [dict(run.settings) for run in runs]

    def apart(i: int, settings: Sequence[dict[str, Any]]) -> str:
        """Where run `i` differs from those that are called as it is."""
        alike = [i, *(j for j, text in enumerate(texts) if text == texts[i] and j != i)]
        return _spelled(_shown([runs[j] for j in alike], [settings[j] for j in alike])[0])

    more: list[Callable[[int], str]] = [
        lambda i: apart(i, effects),
        lambda i: apart(i, whole),
        lambda i: f"#{runs[i].fingerprint[:8]}",
        lambda i: runs[i].id,
    ]
    for further in more:
        count = Counter(texts)
        texts = [_cut(text, further(i)) if count[text] > 1 else text for i, text in enumerate(texts)]
    return texts


def _shown(runs: Sequence[TrainingRun], settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the settings of each run those to name: where they differ, or where one was asked for by --set.

    Not those that an overlay of the run sets, as it is named itself; nor what was asked for and all have.
    """
    own = [
        {key: value for key, value in found.items() if key not in overlaid}
        for found, overlaid in zip(settings, map(_overlaid, runs), strict=True)
    ]
    asked = {change.partition("=")[0].strip() for run in runs for change in run.overrides}
    names = set()
    for key in dict.fromkeys(key for found in own for key in found):
        values = [found[key] for found in own if key in found]
        shared = 1 < len(values) == len(runs)
        wanted = key in asked or key.partition(".")[0] in asked  # a whole section can be set
        if any(value != values[0] for value in values) or (wanted and not shared):
            names.add(key)
    return [{key: value for key, value in found.items() if key in names} for found in own]


def _overlays(run: TrainingRun) -> list[str]:
    return [part for part in run.recipe.split("+")[1:] if part not in (run.algorithm, "masked")]


def _overlaid(run: TrainingRun) -> set[str]:
    """Keys that the overlays of a run's recipe set, as far as this version knows them."""
    found: set[str] = set()
    for overlay in _overlays(run):
        with suppress(ConfigError):
            found.update(changes_of(f"+{overlay}"))
    return found


def _name(run: TrainingRun) -> str:
    return " ".join([run.algorithm, *_overlays(run), *(f"from {role}" for role in run.input_roles)])


def _spelled(settings: Mapping[str, Any]) -> str:
    """`head=bilinear batch_episodes=16`; a key in full where its last part alone could be another's."""
    return " ".join(_words(settings))


def _words(settings: Mapping[str, Any]) -> Iterator[str]:
    known = Counter(key.rpartition(".")[2] for key in keys())
    for key, value in settings.items():
        last = key.rpartition(".")[2]
        text = str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
        yield f"{last if known[last] == 1 else key}={text}"


def _cut(text: str, more: str) -> str:
    """Both together in at most MAX_LABEL letters; what is missing is missing from the longer one."""
    whole = f"{text} {more}" if more else text
    if len(whole) <= MAX_LABEL:
        return whole
    if len(more) > len(text):
        return whole[: MAX_LABEL - 1] + "…"
    return f"{text[: MAX_LABEL - len(more) - 2]}… {more}"
