import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from marl_sale.analysis.statistics import (
    Interval,
    area_under_curve,
    bootstrap_interval,
    improvement_interval,
    iqm,
    mean_interval,
    probability_of_improvement,
    student_t,
    wilson_interval,
)

finite = st.floats(-1e6, 1e6, allow_subnormal=False)
samples = st.lists(finite, min_size=1, max_size=24).map(np.array)


def test_iqm_is_the_trimmed_mean_where_whole_values_are_cut():
    values = np.random.default_rng(0).normal(size=(8, 5))
    np.testing.assert_allclose(iqm(values), stats.trim_mean(values, 0.25, axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7], 7),
        ([1, 4], 2.5),
        ([5, 0, 1], (0.25 * 0 + 1 + 0.25 * 5) / 1.5),
        ([0, 1, 2, 3, 100], (0.75 * 1 + 2 + 0.75 * 3) / 2.5),
        ([0, 0, 1, 2, 9, 9], (0.5 * 0 + 1 + 2 + 0.5 * 9) / 3),
    ],
)
def test_iqm_by_hand(values, expected):
    assert float(iqm(np.array(values, dtype=float))) == pytest.approx(expected, rel=1e-12)


def test_iqm_equals_the_mean_of_the_sample_repeated_until_quarters_are_whole():
    # Every value four times: the same distribution, and the cut falls between whole values.
    for count in range(1, 12):
        values = np.random.default_rng(count).exponential(size=count)
        expected = stats.trim_mean(np.repeat(values, 4), 0.25)
        assert float(iqm(values)) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(samples, st.randoms(use_true_random=False))
def test_iqm_lies_between_and_ignores_the_order(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    centre = float(iqm(values))
    tolerance = 1e-9 * (1 + np.abs(values).max())
    assert values.min() - tolerance <= centre <= values.max() + tolerance
    assert float(iqm(np.array(shuffled))) == centre


@settings(deadline=None)
@given(samples, finite)
def test_iqm_moves_with_its_values(values, shift):
    assert float(iqm(values + shift)) == pytest.approx(float(iqm(values)) + shift, abs=1e-6)


def test_an_outlier_seed_does_not_move_the_iqm_of_four():
    assert float(iqm(np.array([0.0, 1, 2, 3]))) == float(iqm(np.array([0.0, 1, 2, 3e9])))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0, 2.0]])
def test_iqm_refuses_what_it_would_cut_in_silence(values):
    with pytest.raises(ValueError, match="finite"):
        iqm(np.array(values, dtype=float))


@pytest.mark.parametrize(("count", "least", "most"), [(5, 0.84, 0.94), (20, 0.90, 0.975)])
def test_the_bootstrap_covers_as_often_as_it_says(count, least, most):
    generator = np.random.default_rng(7)
    experiments = generator.normal(size=(400, count))
    bands = [bootstrap_interval([values], generator, resamples=200) for values in experiments]
    covered = np.mean([band is not None and band.low <= 0 <= band.high for band in bands])
    assert least <= covered <= most


def test_the_bootstrap_keeps_every_stratum():
    # Two tasks of different scale, no spread within: any draw that mixed them would show.
    band = bootstrap_interval([np.zeros(4), np.full(4, 10.0)], np.random.default_rng(0))
    assert band is not None
    assert (float(band.low), float(band.high)) == (5.0, 5.0)


def test_the_bootstrap_draws_whole_curves():
    curve = np.random.default_rng(1).normal(size=(6, 1))
    band = bootstrap_interval([curve * np.array([1.0, -1.0])], np.random.default_rng(2))
    assert band is not None
    assert band.low[0] == pytest.approx(-band.high[1], rel=1e-9)
    assert band.low[0] < float(iqm(curve)[0]) < band.high[0]


def test_the_bootstrap_is_seeded():
    values = [np.random.default_rng(3).normal(size=(5, 3))]
    first, again, other = (bootstrap_interval(values, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.low, again.low)
    assert not np.array_equal(first.low, other.low)


def test_one_seed_has_no_interval():
    assert bootstrap_interval([np.arange(3.0), np.ones(1)], np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        # (s + 1.9207 ± 1.95996 √(s(n−s)/n + 0.9604)) / (n + 3.8415)
        (0, 10, (0.0, 0.27753)),
        (10, 10, (0.72247, 1.0)),
        (5, 10, (0.23659, 0.76341)),
        (1, 1, (0.20654, 1.0)),
        (81, 263, (0.25530, 0.36618)),  # Newcombe 1998, table I
        (15, 148, (0.06242, 0.16051)),  # Newcombe 1998: 0.0624 to 0.1605
    ],
)
def test_wilson_by_hand(successes, trials, expected):
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=6e-5)


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_proportion_and_agrees_with_scipy(case):
    successes, trials = case
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_what_is_no_proportion(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 30, 319, 10_000])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_student_t_against_scipy(level, degrees):
    assert student_t(level, degrees) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


def test_mean_interval_against_scipy():
    values = np.random.default_rng(5).exponential(size=32)
    expected = stats.t.interval(0.95, 31, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected, rel=1e-9)
    assert mean_interval(values[:1]) is None
    assert mean_interval(np.ones(8)) == Interval(1.0, 1.0)


def test_mean_interval_covers_with_few_episodes():
    experiments = np.random.default_rng(11).normal(size=(2000, 4))
    intervals = [mean_interval(values) for values in experiments]
    covered = np.mean([i is not None and i.low <= 0 <= i.high for i in intervals])
    assert 0.935 <= covered <= 0.965


def test_area_under_curve():
    # Uneven spacing: (½·1·(0 + 2) + 3·2) / 4
    assert area_under_curve(np.array([0.0, 1, 4]), np.array([0.0, 2, 2])) == pytest.approx(1.75)
    assert area_under_curve(np.array([5.0]), np.array([0.3])) == 0.3


def test_probability_of_improvement():
    ours, theirs = np.array([1.0, 2, 3]), np.array([2.0, 0])
    # pairs: 1>0, 2=2, 2>0, 3>2, 3>0 of six
    assert probability_of_improvement(ours, theirs) == pytest.approx(4.5 / 6)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1.5 / 6)
    statistic = stats.mannwhitneyu(ours, theirs).statistic
    assert probability_of_improvement(ours, theirs) == pytest.approx(statistic / 6)


def test_improvement_interval():
    generator = np.random.default_rng(2)
    better, worse = np.array([2.0, 3, 4]), np.array([0.0, 1])
    assert improvement_interval(better, worse, generator) == Interval(1.0, 1.0)
    assert improvement_interval(better, worse[:1], generator) is None
    assert improvement_interval(better[:1], worse, generator) is None


def test_improvement_interval_covers_with_ten_seeds():
    """Two recipes that are alike: the chance is one half, and nearly as often in the interval as it says."""
    generator = np.random.default_rng(13)
    found = [
        improvement_interval(*generator.normal(size=(2, 10)), generator, resamples=200) for _ in range(300)
    ]
    covered = np.mean([i is not None and i.low <= 0.5 <= i.high for i in found])
    assert 0.88 <= covered <= 0.98
