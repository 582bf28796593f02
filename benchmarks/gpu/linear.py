"""What is known of the products from hidden states without a GPU: their launches, and a bound.

The bound is that of the tensor cores and of the memory by the datasheet. Beside it stands what the
schedule of ``rskernels/kernels/gpu/linear`` loses, counted from its tiles.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.common.tables import table

MULTIPLIES = ("low_rank", "reference", "sums", "band", "rows", "columns")

LAUNCHES = """\
Compiled as `rskernels/kernels/gpu/linear/launch.py` launches them, for a vocabulary of 50,257; D
is 4,096 but 4,112 where there is an order or a gradient at temperatures, and 4,100 where it says
narrow. Each cell: registers a thread · bytes of registers spilled (on gfx942: registers spilled)
· bytes of shared memory a program · instructions that multiply tiles on tensor cores, as they
stand in the code (a loop runs them many times). Of a kernel that a call launches in several
forms, the one with most registers."""

BOUND = """\
In bfloat16, of one full pass (`verify`, `target_log_prob`), by datasheets: 989 TFLOPS of dense
products on both cards, 3.35 TB/s on an H100, 4.8 on an H200. *Products*: 2 N V D operations.
*Memory*: hidden states and weight, read once. The larger of both is the bound. What the schedule
loses, on paper: *padding*, tiles that reach over the last row or column; *last turn*, processors
that wait because the row tiles' blocks do not come out even; *reduction*, a tile's exponentials,
16 a clock of a processor, between its products, 4,096 operations a clock; *targets*, the tile of
their logits that goes ahead. *Schedule* is the products times the first three, and the last: what
is reached at best if the tensor cores reach their datasheet. They do not: filling the pipeline at
a tile's beginning and the clock under load are not counted here."""

CACHES = """\
*Read again*: bytes that come from memory at most, since {group} row tiles share a pass over the
weight and the blocks of a turn share one over the hidden states. *Cache*: what tiles load through
the second-level cache, and how fast it would have to give it for the products to run at their
full rate. NVIDIA states 5,120 bytes a clock for an A100's; with as many an H100's would give 9.0
TB/s, and where more is asked for, loading binds. *Partials*: a maximum and a sum of each row and
block of 1,024 columns, written and read once."""


class Card(NamedTuple):
    """A GPU by its datasheet."""

    name: str
    tflops: float
    terabytes: float
    processors: int


class Shape(NamedTuple):
    """Hidden states ``[rows, features]`` times a weight ``[columns, features]``."""

    rows: int
    features: int
    columns: int

    def __str__(self) -> str:
        return f"[{self.rows:,}, {self.features:,}] × [{self.columns:,}, {self.features:,}]"


CARDS = (Card("H100", 989, 3.35, 132), Card("H200", 989, 4.8, 132))
SHAPES = (Shape(1024, 768, 50257), Shape(8192, 4096, 131072))
CAPABILITY = 90
EXPONENTIALS, OPERATIONS = 16, 4096  # a clock of a processor
SIZE = 2  # bytes of a bfloat16


class Schedule(NamedTuple):
    """What the launch of a full pass does, counted in tiles."""

    padding: float
    """Logits that are computed, over those that there are."""
    last_turn: float
    """Turns of the busiest processor, over those if all were as busy."""
    reduction: float
    """Clocks of a tile with its reduction, over those of its products."""
    targets: float
    """Tiles that a processor computes for the targets' logits before."""
    tile_operations: float
    read_again: float
    """Bytes that come from memory at most."""
    cached: float
    """Bytes that tiles load."""
    partials: float
    """Bytes written and read."""


def schedule_of(shape: Shape, processors: int) -> Schedule:
    """Count what ``sums_kernel`` and ``reference_kernel`` do with a plain product of bfloat16."""
    import torch

    from rskernels.kernels.gpu.linear.tiles import BLOCK, GROUP, tiles_of
    from rskernels.kernels.product import Product

    weight = torch.empty(1, shape.features, dtype=torch.bfloat16, device="meta")
    tiles = tiles_of(Product(weight, weight, None, 1.0, 0.0, None), CAPABILITY)
    row_tiles, blocks = -(-shape.rows // tiles.ROWS), -(-shape.columns // BLOCK)
    widths = [min(BLOCK, shape.columns - start) for start in range(0, shape.columns, BLOCK)]
    of_block = [-(-width // tiles.COLUMNS) for width in widths]
    # The order of ``grouped``: all row tiles of a group at one block, then at the next.
    items = []
    for first in range(0, row_tiles, GROUP):
        items += [count for count in of_block for _ in range(min(GROUP, row_tiles - first))]
    busiest = max(sum(items[at::processors]) for at in range(min(processors, len(items))))
    all_tiles = sum(items)
    features = -(-shape.features // tiles.DEPTH) * tiles.DEPTH
    tile = tiles.ROWS * tiles.COLUMNS
    products = 2 * tile * features / OPERATIONS
    groups = [min(GROUP, row_tiles - first) for first in range(0, row_tiles, GROUP)]
    turns = [-(-size * blocks // processors) for size in groups]
    hidden = [size * tiles.ROWS * features * SIZE for size in groups]
    weight_bytes = shape.columns * features * SIZE
    return Schedule(
        padding=all_tiles * tile * features / (shape.rows * shape.columns * shape.features),
        last_turn=busiest * processors / all_tiles,
        reduction=1.0 + tile / EXPONENTIALS / products,
        targets=-(-row_tiles // processors) * -(-tiles.ROWS // tiles.COLUMNS),
        tile_operations=2.0 * tile * features,
        read_again=weight_bytes * len(groups)
        + sum(n * size for n, size in zip(turns, hidden, strict=True)),
        cached=all_tiles * (tiles.ROWS + tiles.COLUMNS) * features * SIZE,
        partials=2 * 2 * 4.0 * blocks * shape.rows,
    )


def bound_tables() -> list[str]:
    """Return the bound on paper, and what the schedule loses."""
    from rskernels.kernels.gpu.linear.tiles import GROUP

    bounds, caches = [], []
    for shape in SHAPES:
        operations = 2.0 * shape.rows * shape.columns * shape.features
        read = SIZE * (shape.rows + shape.columns) * shape.features
        for card in CARDS:
            rate = card.tflops * 1e12
            seconds, memory = operations / rate, read / card.terabytes / 1e12
            found = schedule_of(shape, card.processors)
            ahead = found.targets * found.tile_operations * card.processors / rate
            whole = seconds * found.padding * found.last_turn * found.reduction + ahead
            bounds.append([
                str(shape), card.name, f"{operations / 1e9:,.0f}", f"{read / 1e6:,.0f}",
                _ms(seconds), _ms(memory), f"{found.padding:.3f}", f"{found.last_turn:.3f}",
                f"{found.reduction:.3f}", _ms(ahead), _ms(whole),
                f"{100 * max(seconds, memory) / whole:.0f} %",
            ])  # fmt: skip
        # The same on both cards, but for what memory takes.
        again = ", ".join(
            f"{_ms(found.read_again / card.terabytes / 1e12)} on an {card.name}" for card in CARDS
        )
        caches.append([
            str(shape), f"{found.read_again / 1e6:,.0f} MB: {again}",
            f"{found.cached / 1e9:.2f} GB, {found.cached / seconds / 1e12:.1f} TB/s",
            f"{found.partials / 1e6:.1f} MB",
        ])  # fmt: skip
    head = (
        "shape", "card", "GFLOP", "MB", "products, ms", "memory, ms", "padding", "last turn",
        "reduction", "targets, ms", "schedule, ms", "bound / schedule",
    )  # fmt: skip
    alignment = (":--", ":--", *("--:",) * (len(head) - 2))
    return [
        BOUND,
        table(head, bounds, alignment),
        CACHES.format(group=GROUP),
        table(("shape", "read again, ms", "cache", "partials"), caches),
    ]


def launch_tables(targets: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a table a dtype of the launches that multiply, and a sentence about the others."""
    dtypes: dict[str, dict[tuple[str, str], dict[str, dict[str, Any]]]] = {}
    for target, launches in targets.items():
        for launch in launches:
            if launch["kernel"] not in MULTIPLIES:
                continue
            key = launch["kernel"], launch["launch"]
            cells = dtypes.setdefault(launch["dtype"], {}).setdefault(key, {})
            # A kernel that is launched in several ways counts by the one that takes most.
            known = cells.get(target)
            if known is None or known["registers"] < launch["registers"]:
                cells[target] = launch
    parts = [LAUNCHES]
    for dtype, rows in dtypes.items():
        lines = [
            [*key, *(_cell(cells[target]) for target in targets)] for key, cells in rows.items()
        ]
        parts += [f"### Products, {dtype}", table(("kernel", "launch", *targets), lines)]
    others = [
        each for launches in targets.values() for each in launches
        if each["kernel"] not in MULTIPLIES
    ]  # fmt: skip
    most, spilled = max(each["registers"] for each in others), sum(o["spills"] for o in others)
    names = ", ".join(sorted({each["kernel"] for each in others}))
    parts.append(
        f"The launches that multiply nothing ({names})\ntake at most {most} registers, and "
        f"{'spill none' if spilled == 0 else f'spill {spilled} in all'}."
    )
    return parts


def _cell(launch: dict[str, Any]) -> str:
    products = ", ".join(
        f"{sum(found.values())} {name}" for name, found in launch["products"].items()
    )
    numbers = launch["registers"], launch["spills"], launch["shared"], products or "none"
    return " · ".join(map(str, numbers))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"
