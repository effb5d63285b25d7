"""Draws a scene: one coloured shape with nuisance variation of position, size, rotation, background and colour noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from icltool.world.scenes import COLOURS, SHAPES, Scene

SIZE = 64
_SCALE = 4  # drawn larger and scaled down, so that edges are smooth
_REACH = 1.1  # the farthest point of a shape from its centre, in radii: a star's rays
Point = tuple[float, float]


def render(scene: Scene, rng: np.random.Generator, size: int = SIZE) -> Image.Image:
    """An RGB image of `size` pixels; equal generators give equal images."""
    canvas = size * _SCALE
    base, slope, radius, (cx, cy) = _placed(rng, canvas)
    image = Image.new("RGB", (canvas, canvas), _rgb(base))
    draw = ImageDraw.Draw(image)
    for y in range(0, canvas, 16):  # a faint vertical gradient, so that no background is flat
        draw.rectangle((0, y, canvas, y + 16), fill=_rgb(base + slope * (y / canvas - 0.5)))
    colour = _rgb(np.array(list(COLOURS.values())[scene.colour]) + rng.normal(0, 7, 3))
    background = image.getpixel((int(cx), int(cy)))
    _draw_shape(draw, SHAPES[scene.shape], (cx, cy), radius, rng.uniform(-0.2, 0.2), colour, background)
    image = image.resize((size, size), Image.Resampling.LANCZOS)
    noisy = np.asarray(image, dtype=np.float32) + rng.normal(0, 2.5, (size, size, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


class Box(NamedTuple):
    """A box in pixels."""

    left: int
    top: int
    right: int
    bottom: int


def outline(rng: np.random.Generator, size: int = SIZE) -> Box:
    """The box around the shape that `render` draws with an equal generator."""
    _, _, radius, (cx, cy) = _placed(rng, size * _SCALE)
    reach = _REACH * radius
    edges = [(cx - reach) / _SCALE, (cy - reach) / _SCALE, (cx + reach) / _SCALE, (cy + reach) / _SCALE]
    return Box(*(int(np.clip(round(edge), 0, size)) for edge in edges))


def _placed(rng: np.random.Generator, canvas: int) -> tuple[np.ndarray, np.ndarray, float, Point]:
    """The background's colour and gradient, the shape's radius and centre: the first draws of every image."""
    base = rng.uniform(205, 250) + rng.normal(0, 6, 3)
    slope = rng.uniform(-14, 14, 3)
    radius = canvas * rng.uniform(0.24, 0.36)
    margin = radius * 1.05
    cx, cy = rng.uniform(margin, canvas - margin, 2)
    return base, slope, radius, (cx, cy)


def _rgb(values: np.ndarray) -> tuple[int, int, int]:
    r, g, b = (int(v) for v in np.clip(np.round(values), 0, 255))
    return r, g, b


def _turned(points: list[Point], centre: Point, turn: float) -> list[Point]:
    c, s = math.cos(turn), math.sin(turn)
    return [(centre[0] + x * c - y * s, centre[1] + x * s + y * c) for x, y in points]


def _star(radius: float) -> list[Point]:
    points = []
    for i in range(10):
        r = radius * (1.1 if i % 2 == 0 else 0.45)
        angle = -math.pi / 2 + i * math.pi / 5
        points.append((r * math.cos(angle), r * math.sin(angle)))
    return points


def _cross(r: float) -> list[Point]:
    a = r * 0.34
    return [(-a, -r), (a, -r), (a, -a), (r, -a), (r, a), (a, a), (a, r), (-a, r), (-a, a), (-r, a), (-r, -a), (-a, -a)]


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    shape: str,
    centre: Point,
    r: float,
    turn: float,
    colour: tuple[int, int, int],
    background: object,
) -> None:
    cx, cy = centre
    polygons: dict[str, list[Point]] = {
        "square": [(-0.82 * r, -0.82 * r), (0.82 * r, -0.82 * r), (0.82 * r, 0.82 * r), (-0.82 * r, 0.82 * r)],
        "triangle": [(0, -r), (0.95 * r, 0.75 * r), (-0.95 * r, 0.75 * r)],
        "star": _star(r),
        "cross": _cross(r),
        "bar": [(-r, -0.32 * r), (r, -0.32 * r), (r, 0.32 * r), (-r, 0.32 * r)],
    }
    if shape in polygons:
        draw.polygon(_turned(polygons[shape], centre, turn), fill=colour)
        return
    draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour)
    if shape == "ring":
        inner = 0.55 * r
        draw.ellipse((cx - inner, cy - inner, cx + inner, cy + inner), fill=background)  # type: ignore[arg-type]
    elif shape == "crescent":
        (hx, hy), inner = _turned([(0.5 * r, 0.0)], centre, turn)[0], 0.85 * r
        draw.ellipse((hx - inner, hy - inner, hx + inner, hy + inner), fill=background)  # type: ignore[arg-type]
