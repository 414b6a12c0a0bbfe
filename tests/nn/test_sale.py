"""State-action embeddings."""

import pytest
import torch

from marl_sale.nn.pairs import Every, Taken
from marl_sale.nn.sale import Sale


def built(n_choices: int = 1) -> Sale:
    return Sale(in_size=5, n_actions=4, n_choices=n_choices, size=6, hidden_size=7).double()


def test_f_has_mean_size_one() -> None:
    z_s = built().f(torch.randn(3, 2, 5, dtype=torch.float64))
    assert torch.allclose(z_s.abs().mean(-1), torch.ones(3, 2, dtype=torch.float64))


def test_g_is_one_of_every() -> None:
    sale, z_s = built(), torch.randn(3, 2, 6, dtype=torch.float64)
    actions = torch.tensor([[0, 3], [1, 2], [2, 2]])
    share = sale.share(z_s)
    every = sale.g_of(share, Every())
    gathered = every.value().gather(-2, actions[..., None, None].expand(3, 2, 1, 6)).squeeze(-2)
    assert torch.allclose(sale.g(z_s, actions.unsqueeze(-1)).value(), gathered, rtol=1e-12)
    assert torch.allclose(sale.g_of(share, Taken(actions)).value(), gathered, rtol=1e-12)
    third = every.of(lambda rows: rows[2:]).value()
    assert torch.equal(third, every.value()[2:])


def test_every_choice_counts_by_its_place() -> None:
    sale, z_s = built(n_choices=3), torch.randn(1, 6, dtype=torch.float64)
    embedded = [sale.g(z_s, torch.tensor([actions])).value() for actions in ([0, 1, 2], [1, 0, 2], [0, 1, 3])]
    assert (embedded[0] - embedded[1]).abs().max().item() > 1e-3
    assert (embedded[0] - embedded[2]).abs().max().item() > 1e-3


@pytest.mark.parametrize("n_choices", [1, 3])
def test_every_parameter_is_used(n_choices: int) -> None:
    sale = built(n_choices)
    actions = torch.randint(4, (9, n_choices))
    sale.g(sale.f(torch.randn(9, 5, dtype=torch.float64)), actions).value().square().sum().backward()
    for name, parameter in sale.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum().item() > 0, name
