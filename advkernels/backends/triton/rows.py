"""Images as rows (R, C): the rows and columns of a program, and sums of columns over all rows."""

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from torch.library import wrap_triton

from advkernels.backends.triton.elements import load, narrow, store, widen
from advkernels.backends.triton.launch import launch, traced

WIDTH = 64  # columns of a program at most: 128 bytes of half precision
TILE = 1024  # elements that a program sums side by side: 16 bytes of half precision a thread
RUN = tl.constexpr(4)  # rows that are summed before they are added to a float64 sum
ELEMENTS = 4096  # of a program of an elementwise kernel at most
FEW = 4096  # rows, of which float32's rounding errors would not average out
PROGRAMS = 512  # about four for each multiprocessor of the largest GPUs
MERGED = 4  # columns of a program that merges: 32 bytes of float64


@dataclass(frozen=True)
class Tiles:
    """How the programs of a launch share out rows: a pure function of the shape."""

    rows: int
    "R"
    columns: int
    "C, a constant of the kernel"
    width: int
    "columns of a program"
    height: int
    "rows of a program at a time"
    steps: int
    "times that a program takes so many rows"
    row_blocks: int
    "programs one below another"

    @property
    def column_blocks(self) -> int:
        return -(-self.columns // self.width)

    @property
    def programs(self) -> int:
        return self.row_blocks * self.column_blocks

    @property
    def constants(self) -> dict[str, int]:
        return {"COLUMNS": self.columns, "WIDTH": self.width, "HEIGHT": self.height}

    @property
    def summing(self) -> dict[str, int]:
        """The constants of a kernel that sums columns."""
        return self.constants | {"FLOAT64": bool(self.rows < FEW)}

    @property
    def merging(self) -> dict[str, int]:
        """The constants of a kernel that adds up what the blocks of rows have left."""
        return {"COLUMNS": self.columns, "WIDTH": MERGED, "BLOCKS": triton.next_power_of_2(_most(self.column_blocks))}


def elementwise_tiles(x: Tensor) -> Tiles:
    """The larger programs, the less often the columns' numbers are read, as long as there are `PROGRAMS`."""
    elements = ELEMENTS
    while elements > TILE and x.numel() < PROGRAMS * elements:
        elements //= 2
    rows, columns, width = _sizes(x)
    height = elements // width
    return Tiles(rows, columns, width, height, 1, -(-rows // height))


def summing_tiles(x: Tensor) -> Tiles:
    """All programs together at most `PROGRAMS`, so that few partial sums are left."""
    rows, columns, width = _sizes(x)
    height = TILE // width * RUN.value
    pieces = -(-rows // height)
    most = _most(-(-columns // width))
    steps = max(-(-pieces // most), 1)
    return Tiles(rows, columns, width, height, steps, -(-pieces // steps))


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """R, C and the columns of a program."""
    columns = int(x.shape[1])
    return x.shape[0], columns, min(triton.next_power_of_2(columns), WIDTH)


def _most(column_blocks: int) -> int:
    """Blocks of rows at most."""
    return max(PROGRAMS // column_blocks, 1)


def launch_rows(kernel: Any, programs: int, x: Tensor, arguments: list[Any], constants: dict[str, int]) -> None:
    if programs:
        launch(wrap_triton(kernel) if traced(x) else kernel, (programs,), x.device, arguments, constants)


@triton.jit
def program_columns(COLUMNS: tl.constexpr, WIDTH: tl.constexpr):
    """The number of this program's block of rows, int64, and its columns (WIDTH,)."""
    blocks = (COLUMNS + WIDTH - 1) // WIDTH
    return (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * WIDTH + tl.arange(0, WIDTH)


@triton.jit
def tile(first, column, rows, COLUMNS: tl.constexpr, HEIGHT: tl.constexpr):
    """int64 offsets (HEIGHT, WIDTH) of the elements of the rows from `first` on, and which of them there are."""
    row = (first + tl.arange(0, HEIGHT))[:, None]
    return row * COLUMNS + column[None, :], (row < rows) & (column < COLUMNS)[None, :]


@triton.jit
def load_column(pointer, column, COLUMNS: tl.constexpr):
    """float32 (1, WIDTH)."""
    return tl.load(pointer + column, column < COLUMNS)[None, :]


@triton.jit
def add(total, x, residual, offset, inside):
    """float32 x + residual as it is stored in total, or x."""
    value = load(x, offset, inside)
    if residual is not None:
        value += load(residual, offset, inside)
        if total is not None:
            value = store(total, offset, value, inside)
        else:
            value = widen(narrow(value, x.dtype.element_ty))
    return value


@triton.jit
def sum_runs(values):
    """float64 (HEIGHT / RUN, WIDTH): each the sum of `RUN` rows in the values' type."""
    return tl.sum(tl.reshape(values, (RUN, values.shape[0] // RUN, values.shape[1])), 0).to(tl.float64)


@triton.jit
def store_partial(partials, block, column, first, second, COLUMNS: tl.constexpr):
    """Into float64 (blocks, 2, C)."""
    place = partials + block * 2 * COLUMNS + column
    tl.store(place, first, column < COLUMNS)
    tl.store(place + COLUMNS, second, column < COLUMNS)


@triton.jit
def merge(partials, column, blocks, COLUMNS: tl.constexpr, BLOCKS: tl.constexpr):
    """float64, two (WIDTH,): what all blocks have left, added in one order."""
    block = tl.arange(0, BLOCKS)[:, None]
    place = partials + block.to(tl.int64) * 2 * COLUMNS + column[None, :]
    inside = (block < blocks) & (column < COLUMNS)[None, :]
    return tl.sum(tl.load(place, inside, other=0.0), 0), tl.sum(tl.load(place + COLUMNS, inside, other=0.0), 0)
