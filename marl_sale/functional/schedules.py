"""Schedules over env steps."""


def linear(start: float, finish: float, anneal: int, now: int) -> float:
    """From `start` at 0 to `finish` at `anneal` and after.

    By hand: linear(1, 0, 10, 5) = 0.5.
    """
    if now >= anneal:
        return finish
    return start + (finish - start) * now / anneal
