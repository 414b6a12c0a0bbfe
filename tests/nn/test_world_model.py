"""World model: shapes, limits, and what each part may depend on."""

import pytest
import torch
from torch import Tensor, nn

from marl_sale.nn.sale import ActionEmbedding
from marl_sale.nn.world_model import RolloutEncoder, WorldModel, likely_available

N, A, H, D = 3, 4, 8, 5


def built(*, sale_size: int | None = 6, masks_actions: bool = True) -> WorldModel:
    return WorldModel(
        H,
        N,
        A,
        latent_size=D,
        layer_size=7,
        action_embedding_size=2,
        sale_size=sale_size,
        masks_actions=masks_actions,
    )


def test_posterior_and_decoder_are_shared_and_per_agent() -> None:
    model, h = built(), torch.randn(4, N, H)
    mean = model.posterior(h).mean
    assert torch.allclose(model.posterior(h.flip(1)).mean, mean.flip(1), atol=1e-6)
    decoded = model.decode(mean)
    assert decoded.shape == h.shape
    assert decoded.abs().max().item() <= 1
    assert decoded.min().item() < 0  # recurrent states can be negative


@pytest.mark.parametrize("of", [0, 1, 2])
def test_prior_of_one_agent_depends_on_all(of: int) -> None:
    """On latents, actions and embeddings of every agent."""
    model, z, features, output = built(), torch.randn(1, N, D), torch.randn(1, N, 7), nn.Linear(7, 6)
    actions = torch.zeros(1, N, dtype=torch.int64)
    base = model.prior(z, actions, ActionEmbedding(features, output)).mean[0, 0]
    changed: list[tuple[Tensor, Tensor, Tensor]] = []
    for what in range(3):
        inputs = [z.clone(), actions.clone(), features.clone()]
        inputs[what][0, of] += 1
        changed.append((inputs[0], inputs[1], inputs[2]))
    for z_, actions_, features_ in changed:
        other = model.prior(z_, actions_, ActionEmbedding(features_, output)).mean[0, 0]
        assert not torch.allclose(other, base)


def test_standard_deviations_stay_in_range() -> None:
    model = built()
    log_std = model.posterior(1e6 * torch.randn(50, N, H)).log_std
    assert log_std.min().item() >= -5
    assert log_std.max().item() <= 2


def test_parts_that_are_off_own_nothing() -> None:
    assert not any("avail" in name for name, _ in built(masks_actions=False).named_parameters())
    assert built(masks_actions=False).avail_logits(torch.zeros(1, N, D)) is None
    with_sale, without = built(), built(sale_size=None)
    shapes = [[part.shape[0] for part in model.prior_input.parts] for model in (with_sale, without)]
    assert shapes == [[N * D, N * 2, N * 6], [N * D, N * 2]]


def test_inverse_heads_have_the_shapes_of_what_they_rebuild() -> None:
    z, logits = built().invert(torch.randn(4, N, D))
    assert z.shape == (4, N, D)
    assert logits.shape == (4, N, A)


def test_rollout_is_read_from_the_farthest_to_the_nearest() -> None:
    encoder, latents = RolloutEncoder(N * D, 9), torch.randn(3, 4, N, D)
    state = torch.zeros(1, 4, 9)
    for step in (2, 1, 0):
        state = encoder.memory(latents[step].flatten(1).unsqueeze(0), state)[1]
    assert torch.allclose(encoder(latents), state[0], atol=1e-6)
    assert encoder(latents).shape == (4, 9)


def test_likely_available() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.0], [-3.0, -1.0, -2.0]])
    found = likely_available(logits, torch.zeros(2, D), 3)
    assert found.tolist() == [[True, False, True], [False, True, False]]
    assert likely_available(None, torch.zeros(2, N, D), A).tolist() == [[[True] * A] * N] * 2
