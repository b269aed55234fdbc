"""What Square tries: stripes and squares of the l-inf ball, pyramids of the l2 ball."""

import math
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

import advkernels as ak
from freefast.attacks.problem import Problem

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10000 queries
_TINY = 1e-12  # of a norm that may be 0


class Moves(Protocol):
    """The random perturbations of one norm; they may leave the box, and the ball by a rounding."""

    least_side: int
    """Of a square, pixels."""

    def start(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        """A random delta like `problem.x`."""

    def propose(self, problem: Problem, delta: Tensor, side: int, rng: ak.PhiloxState) -> Tensor:
        """The deltas, changed in a random square of so many pixels a side."""


def square_side(query: int, queries: int, p_init: float, x: Tensor, least: int) -> int:
    """Side of the square that a query changes, pixels: its area is a share of the image, p_init halved time and again.

    query: from 1, the first one after the start
    Source: Andriushchenko et al. 2020, section 4.1 and appendix B.
    """
    height, width = x.shape[2:]
    share = p_init / 2 ** sum(query * 10000 / queries > halving for halving in _HALVINGS)
    return min(max(round(math.sqrt(share * height * width)), least), height, width)


class LinfMoves:
    """Every pixel at a corner of the ball: plus or minus epsilon in each channel.

    Source: Andriushchenko et al. 2020, "Square Attack", section 4.2 and algorithm 2.
    """

    least_side = 1

    def start(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        """Vertical stripes, one pixel wide, each of a random colour."""
        samples, channels, _, width = problem.x.shape
        signs = _signs(_uniform(problem, channels * width, rng)).view(samples, channels, 1, width)
        return (signs * problem.ball.radius(problem.x)).expand_as(problem.x).clone()

    def propose(self, problem: Problem, delta: Tensor, side: int, rng: ak.PhiloxState) -> Tensor:
        """A square of one random colour: to add plus or minus 2 epsilon and project is to put plus or minus epsilon."""
        draws = _uniform(problem, 2 + delta.shape[1], rng)
        inside = _in_square(*_place(draws[:, :2], side, delta), side)
        colour = _signs(draws[:, 2:])[..., None, None] * problem.ball.radius(problem.x)
        return torch.where(inside, colour, delta)


class L2Moves:
    """Pyramids, one up beside one down, and norm taken from one square to another; the ball's radius is the unit.

    Source: Andriushchenko et al. 2020, "Square Attack", section 4.3, equation 2 and algorithm 3.
    """

    least_side = 3

    def start(self, problem: Problem, rng: ak.PhiloxState) -> Tensor:
        """Tiles, five along the shorter side, each of a pattern of random sign and orientation."""
        samples, channels, height, width = problem.x.shape
        side = max(min(height, width) // 5, 1)
        rows, columns = height // side, width // side
        draws = _uniform(problem, (1 + channels) * rows * columns, rng).view(samples, 1 + channels, rows, columns)
        up, left = (height - rows * side) // 2, (width - columns * side) // 2
        pattern = _pattern(side, draws.device)
        tiles = torch.where(
            _spread(draws[:, :1] < 0.5, side), _tile(pattern, rows, columns), _tile(pattern.T, rows, columns)
        )
        unit = torch.zeros(problem.x.shape, device=draws.device)
        unit[:, :, up : up + rows * side, left : left + columns * side] = tiles * _spread(_signs(draws[:, 1:]), side)
        return unit / _norm(unit, (1, 2, 3)) * problem.ball.radius(unit)

    def propose(self, problem: Problem, delta: Tensor, side: int, rng: ak.PhiloxState) -> Tensor:
        """The pattern, added in one square, with the norm that a second square gives up and the ball has left."""
        draws = _uniform(problem, 5 + delta.shape[1], rng)
        radius = problem.ball.radius(delta)
        unit = torch.where(radius > 0, delta / radius, 0)
        rows, columns = _place(draws[:, :2], side, delta)
        inside, other = _in_square(rows, columns, side), _in_square(*_place(draws[:, 2:4], side, delta), side)
        pattern = _pattern(side, delta.device)[rows.clamp(0, side - 1), columns.clamp(0, side - 1)]
        turned = _pattern(side, delta.device)[columns.clamp(0, side - 1), rows.clamp(0, side - 1)]
        added = (
            torch.where(draws[:, 4].view(-1, 1, 1, 1) < 0.5, pattern, turned) * _signs(draws[:, 5:])[..., None, None]
        )
        old = unit * inside
        new = (added + old / _norm(old, (2, 3))) * inside
        unused = (1 - unit.square().sum((1, 2, 3), keepdim=True)).clamp_min(0)
        given = (unit * (inside | other)).square().sum((2, 3), keepdim=True)
        new = new / _norm(new, (2, 3)) * (given + unused / delta.shape[1]).sqrt()
        return torch.where(inside, new, unit * ~other) * radius


def _uniform(problem: Problem, count: int, rng: ak.PhiloxState) -> Tensor:
    """(n, count) float32 in [0, 1), of the samples' own numbers."""
    zeros = torch.zeros(len(problem.x), count, device=problem.x.device)
    return ak.uniform_init(zeros, 0.5, -1.0, 1.0, rng=rng, sample_index=problem.sample_index) + 0.5


def _signs(draws: Tensor) -> Tensor:
    """-1 or 1."""
    return (draws < 0.5) * 2.0 - 1


def _place(draws: Tensor, side: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Every pixel's row (n, 1, H, 1) and column (n, 1, 1, W), int64, counted from the corner of a random square.

    draws: (n, 2)
    """
    height, width = like.shape[2:]
    row, column = (  # in float64 no product rounds up to the number of places
        (draw.double() * (size - side + 1)).long().view(-1, 1, 1, 1)
        for draw, size in zip(draws.unbind(1), (height, width), strict=True)
    )
    device = like.device
    return torch.arange(height, device=device).view(-1, 1) - row, torch.arange(width, device=device) - column


def _in_square(rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """(n, 1, H, W) bool."""
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


@lru_cache(maxsize=64)
def _pattern(side: int, device: torch.device) -> Tensor:
    """(side, side) of norm 1: a pyramid in the upper half, a negative one in the lower."""
    upper = side // 2
    both = torch.cat([_pyramid(upper, side), -_pyramid(side - upper, side)])
    return (both / both.norm()).to(device)


def _pyramid(height: int, width: int) -> Tensor:
    """(height, width) of norm 1: at distance d from the middle the sum of 1 / j^2, d < j <= 1 + width // 2."""
    distance = torch.maximum(
        (torch.arange(height).view(-1, 1) - height // 2).abs(), (torch.arange(width) - width // 2).abs()
    )
    terms = torch.arange(1, width // 2 + 2).double() ** -2
    heights = terms.flip(0).cumsum(0).flip(0).float()[distance]
    return heights / _norm(heights, (0, 1))


def _tile(pattern: Tensor, rows: int, columns: int) -> Tensor:
    return pattern.repeat(rows, columns)


def _spread(values: Tensor, side: int) -> Tensor:
    """(n, C, rows, columns) to (n, C, rows * side, columns * side)."""
    return values.repeat_interleave(side, 2).repeat_interleave(side, 3)


def _norm(v: Tensor, dims: tuple[int, ...]) -> Tensor:
    return v.square().sum(dims, keepdim=True).sqrt().clamp_min(_TINY)
