"""What lies beside the parts of a product is neither read nor written."""

import pytest

from ...support.guarded import run_guarded

# A row of the weight is as long as a page: one too many lies in memory that may not be touched.
GUARDED = """
from rskernels.kernels.cpu import linear
from rskernels.kernels.product import Lora, Product, Wanted
from rskernels.law.decision import Law

every = Wanted(True, True, True, True, True)
for N, V in [(N, V) for N in (5, 3) for V in {widths}]:  # few rows, and more
    for rank, at_end in ((0, True), (1, True), (4, True), (9, False)):
        def part(*shape):
            return guarded((torch.randn(shape) / 8).to(torch.{dtype}), at_end)

        D = PAGE // torch.{dtype}.itemsize
        lora = Lora(part(rank, D), part(V, rank), 0.5) if rank else None
        product = Product(part(N, D), part(V, D), part(V), 1.0, 0.0, lora)
        targets = guarded(torch.randint(V, (N,)), at_end)
        density = guarded(torch.rand(N), at_end)
        verify = Law(density, 1.0, 7, model_is_target=True)
        order = guarded(torch.arange(-(-V // 1024)).flip(0), at_end)
        linear.decide(product, targets, Law(density, 1.0, 7))
        linear.mask(product, targets, verify, True)
        linear.mask(product, targets, verify, True, order)
        log_prob, totals = linear.target_log_prob(product, targets, 1.0, -100)
        assert bool(log_prob.isfinite().all())
        upstream = guarded(torch.ones(N), at_end)
        linear.target_log_prob_backward(upstream, product, targets, totals, 1.0, -100, every)
print("unharmed")
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("dtype", "widths"),
    [("float32", (1, 7, 8, 9, 63, 65, 100, 1001, 1025, 2049)), ("bfloat16", (9, 100, 1001))],
)
def test_no_memory_outside_a_part_is_read(dtype, widths):
    assert run_guarded(GUARDED.format(dtype=dtype, widths=widths)) == "unharmed"
