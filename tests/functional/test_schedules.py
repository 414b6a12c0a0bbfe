"""Linear schedules."""

import pytest

from marl_sale.functional.schedules import linear


@pytest.mark.parametrize(
    ("now", "value"), [(0, 1.0), (5, 0.525), (9, 0.145), (10, 0.05), (11, 0.05), (10**9, 0.05)]
)
def test_from_start_to_finish_and_no_further(now: int, value: float) -> None:
    assert linear(1.0, 0.05, 10, now) == pytest.approx(value)


def test_no_annealing_starts_at_the_end() -> None:
    assert linear(1.0, 0.05, 0, 0) == 0.05
