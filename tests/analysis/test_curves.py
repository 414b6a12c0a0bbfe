import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_sale.analysis.curves import MAX_POINTS, SeedCurve, aggregate, common_grid, seed_curve


def curve(x, y=None, seed=0):
    return SeedCurve("run", seed, np.array(x, float), np.array(x if y is None else y, float))


def test_seed_curve_leaves_out_nulls_and_keeps_the_last_of_equal_steps():
    rows = [
        {"env_steps": 0, "win_rate": None},
        {"env_steps": 10, "win_rate": 0.5},
        {"env_steps": 10, "win_rate": 0.75},
        {"env_steps": 20, "win_rate": 1},
        {"env_steps": None, "win_rate": 0.1},
    ]
    found = seed_curve("run", 3, rows, "env_steps", "win_rate")
    assert found is not None
    assert (found.x.tolist(), found.y.tolist(), found.seed) == ([10, 20], [0.75, 1.0], 3)
    assert seed_curve("run", 3, rows[:1], "env_steps", "win_rate") is None
    assert seed_curve("run", 3, rows, "env_steps", "loss_td") is None


@pytest.mark.parametrize("second", [{"t": 1, "v": 0.0}, {"t": 3, "v": "high"}, {"t": "3", "v": 1.0}])
def test_seed_curve_refuses_damage(second):
    with pytest.raises(ValueError, match="t "):
        seed_curve("run", 0, [{"t": 2, "v": 0.0}, second], "t", "v")


def test_the_grid_is_the_multiples_inside_the_common_range_and_its_ends():
    curves = [curve([0, 1013, 2050, 3001]), curve([7, 990, 2000, 3999])]
    assert common_grid(curves, 1000.0).tolist() == [7, 1000, 2000, 3000, 3001]
    assert common_grid([curve([1000, 2000, 3000])], 1000.0).tolist() == [1000, 2000, 3000]
    assert common_grid([curve([5])], 1000.0).tolist() == [5]
    assert common_grid([curve([0, 1]), curve([2, 3])], 1.0).tolist() == []


def test_a_long_curve_is_thinned_by_doubling_the_period():
    grid = common_grid([curve([0, 1_000_000])], 1000.0)
    assert grid.tolist() == list(range(0, 1_000_001, 4000))
    assert len(grid) <= MAX_POINTS


def test_the_grid_of_time_has_as_many_points_as_the_rows():
    assert common_grid([curve([0, 1, 4]), curve([0, 2, 6])], None).tolist() == [0, 2, 4]


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0, 1e6),
    st.floats(1e-3, 1e9, exclude_min=True),
    st.none() | st.floats(1e-2, 1e7),
    st.integers(2, 3000),
)
def test_the_grid_increases_within_its_limits(first, length, period, rows):
    x = np.unique(np.linspace(first, first + length, rows))
    grid = common_grid([curve(x)], period)
    assert len(grid) <= MAX_POINTS
    assert (np.diff(grid) > 0).all()
    assert (grid[0], grid[-1]) == (x[0], x[-1])


def test_aggregate_interpolates_before_it_averages():
    # y = x in one seed and y = 3 x in the other, seen at different x: at 10 the values are 10 and 30.
    found = aggregate([curve([0, 7, 20]), curve([0, 13, 20], [0, 39, 60])], 10.0, np.random.default_rng(0))
    assert found is not None
    assert found.x.tolist() == [0, 10, 20]
    assert found.centre.tolist() == pytest.approx([0, 20, 40])
    assert found.low is not None
    assert found.high is not None
    assert (found.low[1], found.high[1]) == pytest.approx((10, 30))


def test_one_seed_is_its_own_line_without_a_band():
    found = aggregate([curve([0, 10, 20], [1, 5, 2])], 10.0, np.random.default_rng(0))
    assert found is not None
    assert found.centre.tolist() == [1, 5, 2]
    assert found.low is None


def test_no_common_range_no_line():
    assert aggregate([curve([0, 1]), curve([2, 3])], 1.0, np.random.default_rng(0)) is None
