"""Pictures of grid worlds, drawn in memory: no display, no window system."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_BOARD = 400  # pixels of the longer side
_CAPTION = 32  # pixels below the board
_NARROWEST = 260  # pixels, room for the caption
_FINE = 3  # drawn this much larger, then shrunk: smooth edges
_PAPER, _INK = "#fbfaf7", "#3c3a36"
_CELLS = ("#f1eee6", "#e9e5da")
_AGENTS = ("#2f6fb2", "#3f9268", "#8a5fb0", "#b8862b", "#2d8c99", "#a8527d", "#5b6b7d", "#7c8a34", "#94604a")
FOOD = "#cf4a3c"


@dataclass(frozen=True)
class Piece:
    """Something in one cell: a disc (agent) or a square (object) with a short label."""

    row: int
    col: int
    label: str
    colour: str
    shape: Literal["disc", "square"] = "disc"


def agent_colour(index: int) -> str:
    return _AGENTS[index % len(_AGENTS)]


def draw_board(rows: int, cols: int, pieces: Sequence[Piece], caption: str) -> UInt8[np.ndarray, "h w 3"]:
    """Picture of a board, its longer side about 400 pixels; pieces that share a cell stand side by side."""
    cell = _BOARD // max(rows, cols)
    width, height = max(cell * cols, _NARROWEST), cell * rows + _CAPTION
    left = (width - cell * cols) // 2
    image = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
    pen = ImageDraw.Draw(image)
    for row in range(rows):
        for col in range(cols):
            corner = ((left + col * cell) * _FINE, row * cell * _FINE)
            opposite = (corner[0] + cell * _FINE - 1, corner[1] + cell * _FINE - 1)
            pen.rectangle((*corner, *opposite), fill=_CELLS[(row + col) % 2])
    for number, piece in enumerate(pieces):
        mates = [k for k, other in enumerate(pieces) if (other.row, other.col) == (piece.row, piece.col)]
        share = 1 / len(mates)
        x = (left + (piece.col + (mates.index(number) + 0.5) * share) * cell) * _FINE
        y = (piece.row + 0.5) * cell * _FINE
        radius = 0.38 * cell * max(share, 0.5) * _FINE
        box = (x - radius, y - radius, x + radius, y + radius)
        if piece.shape == "disc":
            pen.ellipse(box, fill=piece.colour)
        else:
            pen.rounded_rectangle(box, radius=radius / 3, fill=piece.colour)
        pen.text((x, y), piece.label, fill="white", anchor="mm", font=ImageFont.load_default(1.1 * radius))
    below = (width * _FINE / 2, (height - _CAPTION / 2) * _FINE)
    pen.text(below, caption, fill=_INK, anchor="mm", font=ImageFont.load_default(14 * _FINE))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
