"""Options of a task, written behind its name: `balance,n_agents=4`, `HalfCheetah-2x3,agent_obsk=0`.

They are part of the name, so that artifacts and curves of a task with other options never meet.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from marl_sale.errors import ConfigError

Value = bool | int | float | str


@dataclass(frozen=True)
class Option:
    """One option of a family: its default decides the type; numbers lie in [low, high], words in `words`."""

    default: Value
    about: str
    low: float = 0.0
    high: float = 1e9
    words: tuple[str, ...] = ()

    def read(self, text: str) -> Value:
        """The value that `text` says. Raises ValueError naming what is allowed."""
        if isinstance(self.default, bool):
            if text not in ("true", "false"):
                raise ValueError("true or false")
            return text == "true"
        if isinstance(self.default, str):
            if text not in self.words:
                raise ValueError(", ".join(self.words))
            return text
        kind = type(self.default)
        allowed = f"{'an integer' if kind is int else 'a number'} from {self.low:g} to {self.high:g}"
        try:
            number = kind(text)
        except ValueError:
            raise ValueError(allowed) from None
        if not self.low <= number <= self.high:
            raise ValueError(allowed)
        return number


def split_task(family: str, task: str, options: Mapping[str, Option]) -> tuple[str, dict[str, Value]]:
    """Name of `name[,key=value…]`, and the value of every option. Raises ConfigError with all problems."""
    name, *given = task.split(",")
    values = {key: option.default for key, option in options.items()}
    problems, seen = [], set()
    for part in given:
        key, _, text = part.partition("=")
        if key not in options:
            guess = difflib.get_close_matches(key, options, n=1)
            known = ", ".join(options) or "none"
            problems.append(
                f"unknown option {key!r}"
                + (f"; did you mean {guess[0]}?" if guess else f"; there are: {known}")
            )
        elif key in seen:
            problems.append(f"{key} is given twice")
        else:
            try:
                values[key] = options[key].read(text)
            except ValueError as error:
                problems.append(f"{key}: found {text!r}, allowed: {error}")
        seen.add(key)
    if problems:
        raise ConfigError(
            [f"env.task {task!r}: {problem}" for problem in problems],
            f"docs/env-{family}.md lists every option",
        )
    return name, values


def join_task(name: str, values: Mapping[str, Value], options: Mapping[str, Option]) -> str:
    """The canonical name: options in their order, those with their default left out."""
    given = [
        f"{key}={_text(values[key])}" for key, option in options.items() if values[key] != option.default
    ]
    return ",".join([name, *given])


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
