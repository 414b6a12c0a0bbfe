"""From individual to joint action values."""

from jaxtyping import Float
from torch import Tensor, nn

from marl_sale.functional.mixing import monotonic_mix


class IndependentMixer(nn.Module):
    """IQL: no mixing; each agent learns from the team reward alone."""

    def forward(
        self, q_i: Float[Tensor, "rows agents"], context: Float[Tensor, "rows context"]
    ) -> Float[Tensor, "rows agents"]:
        return q_i


class SumMixer(nn.Module):
    """VDN: Q_tot = Σ_i Q^i."""

    def forward(
        self, q_i: Float[Tensor, "rows agents"], context: Float[Tensor, "rows context"]
    ) -> Float[Tensor, "rows 1"]:
        return q_i.sum(-1, keepdim=True)


class QmixMixer(nn.Module):
    """QMIX: monotone mixing with weights made by 2-layer hyper-networks of a training-only context.

    The first layers of the four hyper-networks are one matrix.
    """

    def __init__(self, n_agents: int, context_size: int, size: int, hypernet_size: int) -> None:
        super().__init__()
        self.n_agents, self.size = n_agents, size
        self.splits = [hypernet_size, hypernet_size, size, size]
        self.first = nn.Linear(context_size, sum(self.splits))
        self.to_w1 = nn.Linear(hypernet_size, n_agents * size)
        self.to_w2 = nn.Linear(hypernet_size, size)
        self.to_b2 = nn.Linear(size, 1)

    def forward(
        self, q_i: Float[Tensor, "rows agents"], context: Float[Tensor, "rows context"]
    ) -> Float[Tensor, "rows 1"]:
        for_w1, for_w2, b1, for_b2 = self.first(context).split(self.splits, -1)
        w1 = self.to_w1(for_w1.relu()).view(-1, self.n_agents, self.size)
        w2 = self.to_w2(for_w2.relu())
        b2 = self.to_b2(for_b2.relu()).squeeze(-1)
        return monotonic_mix(q_i, w1, b1, w2, b2).unsqueeze(-1)
