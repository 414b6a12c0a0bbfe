"""From a command to its cells: recipes × values × seeds, each with a folder of its own and its commands."""

import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from marl_sale.artifacts.sweep import MAX_SWEEP_BYTES, Cell, Step, Sweep
from marl_sale.config.recipe import Recipe, load_recipe
from marl_sale.errors import ConfigError, UsageError

MOST_CELLS = 4096
_RANGE = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?")
_CLOSING = {"[": "]", "{": "}", '"': '"', "'": "'"}


def seeds_of(text: str) -> tuple[int, ...]:
    """`0-2,7` → 0, 1, 2, 7. UsageError for anything else, for a seed given twice, or for too many."""
    seeds: list[int] = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < 2**63:
            raise UsageError(
                f"--seeds {text}: {part!r} is no seed and no range", "for instance --seeds 0-4,7"
            )
        if last - first >= MOST_CELLS:
            raise UsageError(f"--seeds {text}: at most {MOST_CELLS} cells make a sweep")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text}: names a seed twice")
    return tuple(seeds)


def values_of(text: str) -> tuple[str, list[str]]:
    """`key=a,b` → the key and its values. Commas within quotes or brackets belong to a value, as in YAML.

    Each value keeps its quotes: it is what `--set` of `train` reads. UsageError without key or value.
    """
    key, equals, listed = text.partition("=")
    values, waiting = [""], ""
    for character in listed:
        if not waiting and character == ",":
            values.append("")
            continue
        if waiting and character == waiting[-1]:
            waiting = waiting[:-1]
        elif character in _CLOSING and waiting[-1:] not in ('"', "'"):
            waiting += _CLOSING[character]
        values[-1] += character
    values = [value.strip() for value in values]
    if not equals or not key.strip() or not all(values) or waiting:
        raise UsageError(
            f"--set {text}: expected key=value or key=value,value,…",
            "a value that holds a comma stands in quotes: --set 'env.task=\"balance,n_agents=3\",wheel'",
        )
    return key.strip(), values


def make_sweep(
    names: Sequence[str],
    changes: Sequence[str],
    seeds: Sequence[int],
    folder: Path | None,
    *,
    pretrain: bool = False,
    device: str = "auto",
) -> tuple[Sweep, Path]:
    """The sweep over recipes, `key=value,…` changes and seeds; and its folder, named by its id if None.

    With `pretrain`, what has a world model or SALE pre-trains it first, in each cell. Raises ConfigError
    with the problems of every recipe, UsageError where two cells would be the same.
    """
    given = [values_of(change) for change in changes]
    if twice := sorted({key for key, _ in given if [k for k, _ in given].count(key) > 1}):
        raise UsageError(f"--set {twice[0]}: given twice", f"for instance --set {twice[0]}=first,second")
    varied = tuple(f"{key}=" for key, values in given if len(values) > 1)
    count = len(names) * len(seeds) * math.prod(len(values) for _, values in given)
    if count > MOST_CELLS:
        raise UsageError(f"{count:,} cells: at most {MOST_CELLS} make a sweep", "split it into several")
    choices = list(itertools.product(*([f"{key}={value}" for value in values] for key, values in given)))
    chosen = _recipes([(name, choice) for name in names for choice in choices])
    cells = [
        (recipe, name, seed, _cell_name(name, recipe, seed, varied))
        for name, recipe in chosen
        for seed in seeds
    ]
    _require_different(cells)
    whole = "\n".join([*(cell[-1] for cell in cells), f"pretrain: {pretrain}"])
    identity = f"sweep-{hashlib.sha256(whole.encode()).hexdigest()[:10]}"
    folder = folder or Path("results") / "sweeps" / identity
    made = (_cell(*cell, folder, pretrain=pretrain, device=device) for cell in cells)
    try:
        sweep = Sweep(id=identity, cells=tuple(made))
    except ValidationError:  # the rest of a cell was checked before
        raise UsageError(
            f"--out {folder.as_posix()!r}: letters that no path of an artifact may have",
            "choose another folder",
        ) from None
    if len(sweep.to_bytes()) > MAX_SWEEP_BYTES:
        raise UsageError(f"{count:,} cells: too long a list to be read again", "split it into several")
    return sweep, folder


def _recipes(wanted: Sequence[tuple[str, tuple[str, ...]]]) -> list[tuple[str, Recipe]]:
    """Each recipe with its choice of values. ConfigError with the problems of all, each once."""
    problems: dict[str, None] = {}
    hints: dict[str, None] = {}
    found = []
    for name, choice in wanted:
        try:
            found.append((name, load_recipe(name, choice)))
        except ConfigError as error:
            problems.update(dict.fromkeys(error.problems))
            hints.setdefault(error.hint)
    if problems:
        raise ConfigError(list(problems), "; ".join(filter(None, hints)))
    return found


def _cell_name(name: str, recipe: Recipe, seed: int, varied: tuple[str, ...]) -> str:
    """For people: recipe, values that vary, seed; for uniqueness: the start of the fingerprint."""
    values = [change for change in recipe.overrides if change.startswith(varied)] if varied else []
    words = "_".join([recipe.name, *values])
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "-", words).strip("-._+")[:90]
    return f"{readable}_seed{seed}-{recipe.fingerprint[:8]}"


def _require_different(cells: Sequence[tuple[Recipe, str, int, str]]) -> None:
    """UsageError where two cells have one configuration and one seed: they would count as two runs."""
    seen: dict[tuple[str, int], str] = {}
    for recipe, _, seed, name in cells:
        first = seen.setdefault((recipe.fingerprint, seed), name)
        if first is not name:
            raise UsageError(
                f"the same configuration and seed twice:\n  {first}\n  {name}",
                "name each recipe and each value once",
            )


def _cell(
    recipe: Recipe, given: str, seed: int, name: str, folder: Path, *, pretrain: bool, device: str
) -> Cell:
    config = recipe.config
    changes = [word for change in recipe.overrides for word in ("--set", change)]
    common = [given, *changes, "--seed", str(seed), *([] if device == "auto" else ["--device", device])]
    pretrains = pretrain and (config.with_world_model or config.with_sale)
    steps = []
    if pretrains:
        steps.append(_step("pretrain-wm", "world-model", name, folder, common))
        common = [*common, "--world-model", (folder / name / "world-model").as_posix()]
    steps.append(_step("train", "agent", name, folder, common))
    return Cell(
        name=name,
        recipe=given,
        overrides=recipe.overrides,
        seed=seed,
        fingerprint=recipe.fingerprint,
        env_steps=config.train.env_steps,
        cpus=config.train.threads,
        gpus=int(device == "cuda"),
        steps=tuple(steps),
    )


def _step(command: str, kind: str, cell: str, folder: Path, options: Sequence[str]) -> Step:
    out = f"{cell}/{kind}"
    argv = ("marl-sale", command, *options, "--out", (folder / out).as_posix())
    return Step.model_validate({"kind": kind, "out": out, "argv": argv})
