"""The compiled loops: where they are, and that threads change nothing. Their users test what they compute."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from marl_sale import kernels
from marl_sale.nn.gru import unroll_gru
from marl_sale.nn.mlp import Mlp
from marl_sale.nn.sale import Sale
from marl_sale.nn.utility import SaleHead

COMPILED = kernels.instruction_set() != "none"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_what_a_compiler_could_make_is_used() -> None:
    assert COMPILED


def test_they_take_what_they_were_compiled_for() -> None:
    assert kernels.usable(torch.zeros(1)) == COMPILED
    assert not kernels.usable(torch.zeros(1, dtype=torch.float16))
    assert not kernels.usable(torch.zeros(1, device="meta"))


def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARL_SALE_KERNELS", "off")
    kernels.library._library.cache_clear()
    try:
        assert kernels.instruction_set() == "none"
        assert not kernels.usable(torch.zeros(1))
    finally:
        kernels.library._library.cache_clear()


@pytest.mark.skipif(not COMPILED, reason="no kernels here: the package was installed without a C compiler")
def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After a pull into an editable install its calls could be others."""
    for path in kernels.library.FOLDER.iterdir():
        if path.suffix in (".c", ".h", ".so"):
            shutil.copy(path, tmp_path)
    monkeypatch.setattr(kernels.library, "FOLDER", tmp_path)
    kernels.library._library.cache_clear()
    try:
        assert kernels.instruction_set() != "none"
        (tmp_path / "real.h").write_text("/* changed */")
        kernels.library._library.cache_clear()
        with pytest.warns(UserWarning, match="compiled from other sources"):
            assert kernels.instruction_set() == "none"
    finally:
        kernels.library._library.cache_clear()


def computed() -> list[Tensor]:
    """Of every kernel, in float32, with enough rows for several threads."""
    torch.manual_seed(0)
    gru, sizes = nn.GRU(5, 9), [101, 70, 70, 1]
    x = torch.randn(sum(sizes), 5, requires_grad=True)
    h = unroll_gru(gru, x, torch.tensor(sizes))
    gradients = torch.autograd.grad(h.square().sum(), [x, *gru.parameters()])

    sale, head = Sale(9, 4, 1, 6, 7), SaleHead(9, 4, 6)
    z_s = sale.f(x.new_ones(5000, 9).cumsum(0).sin())
    gradients += torch.autograd.grad(z_s.square().sum(), list(sale.encoder.parameters()))
    with torch.no_grad():
        avail, shares = torch.rand(len(h), 4) < 0.5, head.shares(h, sale)
        needs = {**sale.for_kernel(), **head.for_kernel(sale.action_output)}
        chosen = kernels.choose(avail, shares, needs)
        alike = kernels.choose_from(avail, h, head.source(sale), needs)
    return [h, z_s, *gradients, *chosen, *alike]


@pytest.mark.skipif(not COMPILED, reason="no kernels here: the package was installed without a C compiler")
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = computed()
    monkeypatch.setattr(
        torch, "get_num_threads", lambda: 3
    )  # of the kernels alone: torch's sums stay as they are
    for one, several in zip(alone, computed(), strict=True):
        assert torch.equal(one, several)


@pytest.mark.skipif(not COMPILED, reason="no kernels here: the package was installed without a C compiler")
def test_what_is_not_a_number_is_passed_on() -> None:
    """Otherwise an update that went wrong would not be noticed."""
    gru, sizes = nn.GRU(2, 3), torch.tensor([2, 2])
    x = torch.zeros(4, 2)
    x[0] = torch.nan
    with torch.no_grad():
        h = unroll_gru(gru, x, sizes)
    assert h[[0, 2]].isnan().all()
    assert h[[1, 3]].isfinite().all()

    sale, head = Sale(9, 4, 1, 6, 7), SaleHead(9, 4, 6)
    with torch.no_grad():
        sale.action_input.every(1)[2] = torch.nan
        needs = {**sale.for_kernel(), **head.for_kernel(sale.action_output)}
        every = torch.ones(5, 4, dtype=torch.bool)
        chosen = kernels.choose_from(every, torch.randn(5, 9), head.source(sale), needs)
    assert chosen.q.isnan().all()
    assert chosen.actions.tolist() == [2] * 5


@pytest.mark.skipif(not COMPILED, reason="no kernels here: the package was installed without a C compiler")
@pytest.mark.parametrize(
    ("size", "dtype", "says"),
    [(5, torch.float32, "from 5 to 4"), (3, torch.float64, "float64")],
)
def test_a_weight_that_does_not_fit_is_refused(size: int, dtype: torch.dtype, says: str) -> None:
    """C would read beyond its end."""
    x, mlp = torch.zeros(2, size, dtype=dtype), Mlp([3, 4])
    with pytest.raises(ValueError, match=says):
        mlp(x)


@pytest.mark.skipif(not COMPILED, reason="no kernels here: the package was installed without a C compiler")
def test_rows_that_are_not_those_of_the_batch_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="batch sizes"):
        unroll_gru(nn.GRU(2, 3), torch.zeros(4, 2), torch.tensor([3, 2]))
