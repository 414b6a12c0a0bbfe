"""Seeds: named streams that never meet."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_sale.seeding import (
    derive,
    episode_seeds,
    evaluation_seeds,
    numpy_generator,
    torch_generator,
    uniform_draws,
)


def test_values_are_fixed_forever() -> None:
    """A change here changes every run and every reported number."""
    assert derive(0, "weights") == 4362053507750869513
    assert evaluation_seeds(0, 2).tolist() == [4200640813131248823, 7380447987700396248]


@given(st.integers(0, 2**62), st.text(max_size=20), st.integers(0, 10**9))
def test_seeds_fit_63_bits(seed: int, stream: str, index: int) -> None:
    assert 0 <= derive(seed, stream, index) < 2**63
    assert derive(seed, stream, index) == derive(seed, stream, index)


def test_an_episode_has_its_seed_by_index_alone() -> None:
    assert episode_seeds(3, 0, 10)[4:7].tolist() == episode_seeds(3, 4, 3).tolist()
    assert evaluation_seeds(0, 10)[4:7].tolist() == evaluation_seeds(4, 3).tolist()


def test_no_two_streams_share_a_seed() -> None:
    streams = [
        *(episode_seeds(seed, 0, 500, stage) for seed in range(3) for stage in ("train", "pretraining")),
        *(evaluation_seeds(0, 500, bank) for bank in range(3)),
    ]
    assert len(np.unique(np.concatenate(streams))) == 500 * len(streams)


def test_the_evaluation_bank_does_not_depend_on_the_run() -> None:
    assert evaluation_seeds(0, 5).tolist() == evaluation_seeds(0, 5, bank=0).tolist()
    assert evaluation_seeds(0, 5).tolist() != evaluation_seeds(0, 5, bank=1).tolist()


def test_generators_of_a_stream_repeat() -> None:
    draws = [torch.rand(4, generator=torch_generator(1, name)).tolist() for name in ("a", "a", "b")]
    assert draws[0] == draws[1] != draws[2]
    arrays = [numpy_generator(1, "a", i).random(4).tolist() for i in (0, 0, 1)]
    assert arrays[0] == arrays[1] != arrays[2]


def test_draws_are_those_of_splitmix64() -> None:
    """The published generator's first three numbers from seed 0."""
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert uniform_draws(np.array([0]), 3).tolist() == [[(x >> 11) * 2.0**-53 for x in expected]]


def test_draws_depend_on_seed_and_place_alone() -> None:
    seeds = episode_seeds(0, 0, 200)
    draws = uniform_draws(seeds, 50)
    assert torch.equal(uniform_draws(seeds[7:9], 20), draws[7:9, :20])
    assert 0 <= float(draws.min()) < 0.001
    assert 0.999 < float(draws.max()) < 1
    assert abs(float(draws.mean()) - 0.5) < 0.015  # five standard errors
    assert abs(float(torch.corrcoef(draws[:, :2].T)[0, 1])) < 0.35
    assert draws.unique().numel() == draws.numel()
