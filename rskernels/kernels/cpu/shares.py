"""How the threads of one operation share its units: each takes the next ones from a counter."""

from numba import njit, types

from rskernels.kernels.cpu.simd import I64, lanes


@lanes(lambda address, amount: types.int64)
def fetch_add(builder, address, amount):
    """Add to the int64 at an address that threads share; return what it was."""
    pointer = builder.inttoptr(address, I64.as_pointer())
    return builder.atomic_rmw("add", pointer, amount, "monotonic")


@njit
def next_share(counter, begin, grab):
    """Return where the next ``grab`` units begin; without a counter, those after ``begin``."""
    return begin + grab if counter == 0 else fetch_add(counter, grab)
