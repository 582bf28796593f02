"""Hidden states and a weight that make logits, with all options."""

import torch

from rskernels.kernels import reference
from rskernels.kernels.product import Lora, Product

OPTIONS = ("plain", "bias", "scale", "softcap", "lora", "all")
"""What a product may have; ``all`` has every option at once."""


def draw_product(N, D, V, dtype=torch.float32, options="plain", *, seed=0, spread=2.0):
    """Return a product whose logits have about that spread."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=1.0):
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    hidden, weight = draw(N, D), draw(V, D, scale=spread / D**0.5)
    has = dict.fromkeys(OPTIONS, options == "all") | {options: True}
    lora = Lora(draw(3, D, scale=D**-0.5), draw(V, 3), 0.7) if has["lora"] else None
    return Product(
        hidden,
        weight,
        draw(V) if has["bias"] else None,
        1.3 if has["scale"] else 1.0,
        4.0 if has["softcap"] else 0.0,
        lora,
    )


def draw_case(product, *, seed=0, temperature=1.0):
    """Return targets, and log densities whose log ratios are of unit spread."""
    generator = torch.Generator().manual_seed(seed)
    N, V = len(product.hidden), len(product.weight)
    targets = torch.randint(V, (N,), generator=generator)
    log_prob = reference.linear.target_log_prob(product, targets, temperature, -100)
    return targets, log_prob + torch.randn(N, generator=generator, dtype=torch.float64)


def rows_of(product, rows):
    """Return the product of a part of its rows."""
    return product._replace(hidden=product.hidden[rows])
