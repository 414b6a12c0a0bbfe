"""Which keys of a configuration have an effect: the others tell no recipes apart."""

from collections.abc import Mapping
from typing import Any

from marl_sale.config.schema import MODEL_BASED, UNSEEN

_PARTS = {  # section that can be switched off → what else it leaves without effect then
    "sale": ("agent.head", "loss_weights.sale", "loss_weights.sale_global"),
    "world_model": tuple(f"loss_weights.{name}" for name in ("rec", "avail", "kl", "reg", "inv")),
}


def effective(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of dotted keys and their values, those that a result depends on.

    Left out is what the algorithm or another key leaves without effect: the mixer of VDN, the sizes of a SALE
    that is switched off. Lenient: keys of an older version stay, and none need be there.
    """
    algorithm = values.get("algorithm")
    model_based = algorithm in MODEL_BASED
    idle = [*UNSEEN, "evaluation.num_envs"]
    for section, others in _PARTS.items():
        if not model_based or not values.get(f"{section}.enabled"):
            idle += [f"{section}.", *others]
    if not model_based:
        idle += ["pretrain.", "mixer.global_state", "loss_weights.core"]
    if algorithm in ("vdn", "iql"):
        idle += ["mixer."]
    if values.get("optimiser.name") == "adam":
        idle += ["optimiser.rmsprop_smoothing"]
    if values.get("replay.chunk_length") == 0:
        idle += ["replay.burn_in"]
    switches = [f"{section}.enabled" for section in _PARTS if model_based]
    return {key: value for key, value in values.items() if key in switches or not key.startswith(tuple(idle))}
