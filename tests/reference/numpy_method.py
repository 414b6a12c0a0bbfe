"""The method in NumPy and float64, from its description: padded episodes, masks, loops over time.

Written without a look at how the library computes: actions are one-hot vectors, inputs are concatenated, all
actions are tried one by one, and every mean is a masked one. Letters as in docs/glossary.md; `w` is a mapping
of weights by their name in the library's state dict.

Where gradients stop can be seen by moving the weights `w` of a loss a little: sg(x) is x computed with
weights `held` that do not move with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Weights = Mapping[str, Array]


@dataclass
class Padded:
    """Episodes with T steps and T + 1 observations; what `alive` and `valid` leave out is never looked at."""

    obs: Array  # B T+1 N O
    state: Array  # B T+1 S
    avail: Mask  # B T+1 N A
    actions: NDArray[np.int64]  # B T N
    reward: Array  # B T
    terminated: Mask  # B T
    valid: Mask  # B T
    alive: Mask  # B T+1


# --- building blocks


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def one_hot(index: NDArray[np.int64], size: int) -> Array:
    return np.eye(size)[index]


def linear(w: Weights, name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def joined_linear(w: Weights, name: str, *inputs: Array) -> Array:
    """A layer over the concatenation of its inputs."""
    matrix = np.concatenate([w[f"{name}.parts.{i}"] for i in range(len(inputs))])
    return np.concatenate(inputs, -1) @ matrix + w[f"{name}.bias"]


def mlp(w: Weights, name: str, x: Array, layers: int) -> Array:
    """Layers with ELU between them; in the state dict activations take a number too."""
    for i in range(layers):
        x = linear(w, f"{name}.{2 * i}", elu(x) if i else x)
    return x


def gru_step(w: Weights, name: str, x: Array, h: Array) -> Array:
    """Cho et al. 2014, with the reset gate inside the new state's product."""
    gx = x @ w[f"{name}.weight_ih_l0"].T + w[f"{name}.bias_ih_l0"]
    gh = h @ w[f"{name}.weight_hh_l0"].T + w[f"{name}.bias_hh_l0"]
    (xr, xu, xn), (hr, hu, hn) = np.split(gx, 3, -1), np.split(gh, 3, -1)
    update = sigmoid(xu + hu)
    return (1 - update) * np.tanh(xn + sigmoid(xr + hr) * hn) + update * h


def masked_mean(x: Array, mask: Mask) -> float:
    """Mean over the entries of [B, T, …] whose step is real."""
    chosen = x[mask]
    return float(chosen.sum() / chosen.size)


# --- the equations


def avg_l1_norm(x: Array) -> Array:
    """E1."""
    return x / np.maximum(np.abs(x).mean(-1, keepdims=True), 1e-8)


def squared_error(x: Array, y: Array, mask: Mask) -> float:
    """E2, E3 and the first half of E7."""
    return masked_mean((x - y) ** 2, mask)


def bernoulli_cross_entropy(logits: Array, bits: Mask, mask: Mask) -> float:
    """E4."""
    p = sigmoid(logits)
    return masked_mean(-(bits * np.log(p) + (1 - bits) * np.log(1 - p)), mask)


def gaussian_kl(q_mean: Array, q_std: Array, p_mean: Array, p_std: Array) -> Array:
    """KL(q ‖ p) of diagonal Gaussians, entry by entry."""
    return np.log(p_std / q_std) + (q_std**2 + (q_mean - p_mean) ** 2) / (2 * p_std**2) - 0.5


def negative_log_probability(logits: Array, actions: NDArray[np.int64], mask: Mask) -> float:
    """The second half of E7, a mean over steps and agents."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return masked_mean(-np.log(np.take_along_axis(p, actions[..., None], -1)), mask)


def td_target(reward: Array, terminated: Mask, next_value: Array, discount: float) -> Array:
    """E8, with the reward of the team for every value."""
    return reward[..., None] + discount * (1.0 - terminated[..., None]) * next_value


# --- agents


def recurrent_states(w: Weights, name: str, data: Padded, n_actions: int) -> Array:
    """h of every observation; the action before the first one is an extra, empty one."""
    b, times, n, _ = data.obs.shape
    h, states = np.zeros((b, n, w[f"{name}.input.bias"].size)), []
    for t in range(times):
        before = data.actions[:, t - 1] if t else np.full((b, n), n_actions)
        who = np.broadcast_to(np.eye(n), (b, n, n))
        x = joined_linear(w, f"{name}.input", data.obs[:, t], one_hot(before, n_actions + 1), who)
        h = gru_step(w, f"{name}.memory", relu(x), h)
        states.append(h)
    return np.stack(states, 1)


def sale_f(w: Weights, name: str, x: Array) -> Array:
    return avg_l1_norm(mlp(w, f"{name}.encoder", x, 3))


def sale_g(w: Weights, name: str, z_s: Array, action: Array) -> Array:
    """`action`: one-hot, or several joined."""
    x = elu(joined_linear(w, f"{name}.action_input", z_s, action))
    return linear(w, f"{name}.action_output", elu(linear(w, f"{name}.action_hidden", x)))


def utilities(w: Weights, agent: str, h: Array, held_h: Array, n_actions: int) -> Array:
    """Q^i of every action, one action at a time. Embeddings are made of sg(h), and fixed."""
    if f"{agent}.head.linear.weight" in w:
        return linear(w, f"{agent}.head.linear", h)
    values = []
    for action in range(n_actions):
        a = np.broadcast_to(np.eye(n_actions)[action], (*h.shape[:-1], n_actions))
        z_s = sale_f(w, f"{agent}.sale", held_h)
        z_sa = sale_g(w, f"{agent}.sale", z_s, a)
        if f"{agent}.head.u.bias" in w:
            u = joined_linear(w, f"{agent}.head.u", avg_l1_norm(h), z_s)[..., action]
            values.append(u + (joined_linear(w, f"{agent}.head.v", avg_l1_norm(h), z_s) * z_sa).sum(-1))
        else:
            inner = avg_l1_norm(joined_linear(w, f"{agent}.head.inner", h, a))
            first = joined_linear(w, f"{agent}.head.first", inner, z_s, z_sa)
            values.append(mlp(w, f"{agent}.head.rest", elu(first), 2)[..., 0])
    return np.stack(values, -1)


def greedy(q_i: Array, avail: Mask) -> NDArray[np.int64]:
    return np.where(avail, q_i, -np.inf).argmax(-1)


# --- mixers


def qmix(w: Weights, name: str, q_i: Array, context: Array, size: int, hypernet: int) -> Array:
    """Hyper-networks of one hidden layer for both weights and the last bias, of none for the first bias."""
    n = q_i.shape[-1]
    parts = np.split(linear(w, f"{name}.first", context), np.cumsum([hypernet, hypernet, size]), -1)
    w1 = np.abs(linear(w, f"{name}.to_w1", relu(parts[0]))).reshape(*q_i.shape[:-1], n, size)
    w2 = np.abs(linear(w, f"{name}.to_w2", relu(parts[1])))
    b2 = linear(w, f"{name}.to_b2", relu(parts[3]))
    hidden = elu(np.einsum("...n,...nm->...m", q_i, w1) + parts[2])
    return (hidden * w2).sum(-1, keepdims=True) + b2


def vdn(q_i: Array) -> Array:
    return q_i.sum(-1, keepdims=True)


def iql(q_i: Array) -> Array:
    return q_i


# --- world model


def gaussian(parameters: Array) -> tuple[Array, Array]:
    """Mean and standard deviation; its logarithm is kept between −5 and 2."""
    mean, log_std = np.split(parameters, 2, -1)
    return mean, np.exp(np.clip(log_std, -5, 2))


def posterior(w: Weights, name: str, h: Array) -> tuple[Array, Array]:
    return gaussian(mlp(w, f"{name}.to_posterior", h, 2))


def decode(w: Weights, name: str, z: Array) -> Array:
    return np.tanh(mlp(w, f"{name}.decoder.0", z, 2))


def joint(x: Array) -> Array:
    """All agents' vectors as one."""
    return x.reshape(*x.shape[:-2], -1)


def prior(
    w: Weights, name: str, z: Array, actions: NDArray[np.int64], z_sa: Array | None
) -> tuple[Array, Array]:
    inputs = [joint(z), joint(w[f"{name}.action_embedding.weight"][actions])]
    inputs += [] if z_sa is None else [joint(z_sa)]
    first = elu(joined_linear(w, f"{name}.prior_input", *inputs))
    mean, std = gaussian(mlp(w, f"{name}.to_prior.1", first, 2))
    return mean.reshape(z.shape), std.reshape(z.shape)


def imagine(
    w: Weights, held: Weights, z: Array, held_z: Array, h: Array, avail: Mask, n_actions: int, length: int
) -> tuple[list[Array], list[Array]]:
    """Latents after 1 … `length` imagined steps, and sg of them. Actions and their embeddings are sg too."""
    latents, held_latents = [], []
    for _ in range(length):
        action = greedy(utilities(held, "agent", h, h, n_actions), avail)
        z_sa = None
        if "agent.sale.action_output.bias" in w:
            z_sa = sale_g(held, "agent.sale", sale_f(held, "agent.sale", h), one_hot(action, n_actions))
        z, _ = prior(w, "world_model", z, action, z_sa)
        held_z, _ = prior(held, "world_model", held_z, action, z_sa)
        latents.append(z)
        held_latents.append(held_z)
        h = decode(held, "world_model", held_z)
        avail = np.ones_like(avail)
        if "world_model.avail_head.0.weight" in w:
            p = sigmoid(mlp(held, "world_model.avail_head", held_z, 2))
            avail = (p >= 0.5) | (p == p.max(-1, keepdims=True))
    return latents, held_latents


def encode_rollout(w: Weights, latents: Sequence[Array]) -> Array:
    """ζ: from the farthest latent to the nearest."""
    size = w["rollout_encoder.memory.bias_hh_l0"].size // 3
    zeta = np.zeros((*latents[0].shape[:-2], size))
    for z in reversed(latents):
        zeta = gru_step(w, "rollout_encoder.memory", joint(z), zeta)
    return zeta


# --- whole losses


@dataclass(frozen=True)
class Settings:
    """What of a recipe the losses depend on."""

    mixer: str
    n_actions: int
    discount: float
    mixer_size: int
    hypernet_size: int
    mixer_sees_state: bool = True
    imagination_length: int = 0
    kl_balance: float = 0.5
    target_range: tuple[float, float] | None = None


def qmix_loss(
    w: Weights,
    held: Weights,
    settings: Settings,
    data: Padded,
    context: Array | None = None,
    target: Array | None = None,
) -> float:
    """E9: the temporal-difference loss of QMIX, VDN, IQL and MMSA. Contexts are the state by default."""
    context = data.state if context is None else context
    target = data.state if target is None else target

    def mix(name: str, q_i: Array, seen: Array) -> Array:
        if settings.mixer == "qmix":
            return qmix(w, name, q_i, seen, settings.mixer_size, settings.hypernet_size)
        return {"vdn": vdn, "iql": iql}[settings.mixer](q_i)

    h = recurrent_states(w, "agent.core", data, settings.n_actions)
    held_h = recurrent_states(held, "agent.core", data, settings.n_actions)
    target_h = recurrent_states(w, "target_agent.core", data, settings.n_actions)
    q_i = utilities(w, "agent", h, held_h, settings.n_actions)
    target_q_i = utilities(w, "target_agent", target_h, target_h, settings.n_actions)

    best = greedy(utilities(held, "agent", held_h, held_h, settings.n_actions), data.avail)
    taken = np.take_along_axis(q_i[:, :-1], data.actions[..., None], -1)[..., 0]
    target_taken = np.take_along_axis(target_q_i, best[..., None], -1)[:, 1:, :, 0]
    value = mix("mixer", taken, context[:, :-1])
    next_value = mix("target_mixer", target_taken, target[:, 1:])
    if settings.target_range is not None:
        next_value = np.clip(next_value, *settings.target_range)
    y = td_target(data.reward, data.terminated, next_value, settings.discount)
    return squared_error(value, y, data.valid)


def mmsa_losses(
    w: Weights,
    held: Weights,
    settings: Settings,
    data: Padded,
    posterior_noise: Array,
    prior_noise: Array,
) -> dict[str, float]:
    """E2 … E9 of MMSA; parts without weights are switched off."""
    n_actions, losses = settings.n_actions, {}
    held_h = recurrent_states(held, "agent.core", data, n_actions)
    target_h = recurrent_states(w, "target_agent.core", data, n_actions)
    chosen = one_hot(data.actions, n_actions)
    zeta: list[Array] = []
    held_zeta: list[Array] = []

    if "sale.action_output.bias" in w:
        pred = sale_g(w, "sale", sale_f(w, "sale", held_h[:, :-1]), chosen)
        losses["sale"] = squared_error(pred, sale_f(held, "sale", held_h[:, 1:]), data.valid)
    if "state_sale.action_output.bias" in w:
        pred = sale_g(w, "state_sale", sale_f(w, "state_sale", data.state[:, :-1]), joint(chosen))
        losses["sale_global"] = squared_error(pred, sale_f(held, "state_sale", data.state[:, 1:]), data.valid)

    if "world_model.decoder.0.0.weight" in w:
        z_sa = None
        if "agent.sale.action_output.bias" in w:
            z_sa = sale_g(w, "agent.sale", sale_f(w, "agent.sale", held_h[:, :-1]), chosen)

        def latents(w: Weights) -> tuple[Array, Array, Array, Array, Array]:
            q_mean, q_std = posterior(w, "world_model", target_h)
            z = q_mean + q_std * posterior_noise
            return q_mean, q_std, z, *prior(w, "world_model", z[:, :-1], data.actions, z_sa)

        q_mean, q_std, z, p_mean, p_std = latents(w)
        held_q_mean, held_q_std, held_z, held_p_mean, held_p_std = latents(held)
        losses["rec"] = squared_error(decode(w, "world_model", z), target_h, data.alive)
        if "world_model.avail_head.0.weight" in w:
            bits = mlp(w, "world_model.avail_head", z, 2)
            losses["avail"] = bernoulli_cross_entropy(bits, data.avail, data.alive)
        of_prior = gaussian_kl(held_q_mean[:, 1:], held_q_std[:, 1:], p_mean, p_std)
        of_posterior = gaussian_kl(q_mean[:, 1:], q_std[:, 1:], held_p_mean, held_p_std)
        share = settings.kl_balance
        losses["kl"] = masked_mean(share * of_prior + (1 - share) * of_posterior, data.valid)
        losses["reg"] = masked_mean(
            gaussian_kl(p_mean, p_std, np.zeros_like(p_mean), np.ones_like(p_std)), data.valid
        )
        sampled = joint(p_mean + p_std * prior_noise)
        earlier = mlp(w, "world_model.latent_inverse", sampled, 2).reshape(p_mean.shape)
        logits = mlp(w, "world_model.action_inverse", sampled, 2).reshape(chosen.shape)
        losses["inv"] = squared_error(earlier, held_z[:, :-1], data.valid)
        losses["inv"] += negative_log_probability(logits, data.actions, data.valid)
        if settings.imagination_length:
            start = (q_mean, held_q_mean, held_h, data.avail)
            imagined, held_imagined = imagine(w, held, *start, n_actions, settings.imagination_length)
            zeta, held_zeta = [encode_rollout(w, imagined)], [encode_rollout(held, held_imagined)]

    seen = [data.state] if settings.mixer_sees_state else []
    context, target = [*seen, *zeta], [*seen, *held_zeta]
    if "state_sale.action_output.bias" in w:
        context.append(sale_f(w, "fixed_state_sale", data.state))
        target.append(sale_f(w, "target_state_sale", data.state))
    contexts = (np.concatenate(context, -1), np.concatenate(target, -1))
    losses["td"] = qmix_loss(w, held, settings, data, *contexts)
    return losses
