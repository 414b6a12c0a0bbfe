"""The recipe that a command names."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._console import complain

if TYPE_CHECKING:
    from marl_sale.config.recipe import Recipe


def resolve(name: str, overrides: Sequence[str] | None, *, quiet: bool) -> "Recipe":
    """The recipe of this name; says which overlays do nothing, such as a mask where a task masks anyway."""
    from marl_sale.config.recipe import idle_overlays, load_recipe

    recipe = load_recipe(name, overrides or ())
    if "+" in name and not quiet:
        for overlay in idle_overlays(name, overrides or ()):
            complain(f"note: {overlay} changes nothing here: {name} is the same recipe without it")
    return recipe
