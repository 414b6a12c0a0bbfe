"""Pictures of a battle from above, drawn in memory: no display, no window system."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from marl_sale.envs.micro.combat import HEALTH, SHIELD, Combat, X, Y
from marl_sale.envs.micro.terrain import SIZE
from marl_sale.envs.micro.units import KINDS, UNITS

_CELL = 14  # pixels
_CAPTION = 28
_FINE = 3  # drawn this much larger, then shrunk: smooth edges
_GROUND, _WALL, _INK = "#f1eee6", "#cfc9ba", "#3c3a36"
_AGENT, _ENEMY, _SHIELD = "#2f6fb2", "#cf4a3c", "#6fb7d6"
_BAR = {True: "#3f9268", False: "#b8862b"}


def picture(combat: Combat, index: int, caption: str) -> UInt8[np.ndarray, "height width 3"]:
    """Battle `index`: agents blue, enemies red, each with its initial and bars of health and shield."""
    side, scale = SIZE * _CELL, _CELL * _FINE
    image = Image.new("RGB", (side * _FINE, (side + _CAPTION) * _FINE), _WALL)
    pen = ImageDraw.Draw(image)
    for left, bottom, right, top in combat.scenario.terrain.rooms:
        pen.rectangle(
            (left * scale, (SIZE - top) * scale, right * scale, (SIZE - bottom) * scale), fill=_GROUND
        )
    pen.rectangle((0, side * _FINE, side * _FINE, (side + _CAPTION) * _FINE), fill=_GROUND)
    for number, unit in enumerate(combat.units[:, :, index].T.tolist()):
        if unit[HEALTH] > 0:
            kind = KINDS[int(combat.kind[number, index])]
            health, shield = unit[HEALTH] / UNITS[kind].health, unit[SHIELD] / max(UNITS[kind].shield, 1)
            colour = _AGENT if number < combat.agents else _ENEMY
            _draw(pen, unit[X] * scale, (SIZE - unit[Y]) * scale, kind, colour, health, shield)
    below = (side * _FINE / 2, (side + _CAPTION / 2) * _FINE)
    pen.text(below, caption, fill=_INK, anchor="mm", font=ImageFont.load_default(13 * _FINE))
    return np.asarray(image.resize((side, side + _CAPTION), Image.Resampling.LANCZOS))


def _draw(
    pen: ImageDraw.ImageDraw, x: float, y: float, kind: str, colour: str, health: float, shield: float
) -> None:
    radius = UNITS[kind].radius * _CELL * _FINE
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    initial = kind[:2] if kind in ("marauder", "medivac") else kind[0]
    pen.text((x, y), initial, fill="white", anchor="mm", font=ImageFont.load_default(1.1 * radius))
    height = 1.5 * _FINE
    for row, (share, fill) in enumerate(((health, _BAR[health > 0.4]), (shield, _SHIELD))):
        top = y - radius - (row + 1) * 1.6 * height
        pen.rectangle((x - radius, top, x - radius + 2 * radius * share, top + height), fill=fill)
