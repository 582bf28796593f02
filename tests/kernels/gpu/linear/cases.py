"""Hidden states, weights and what else logits are made of, and the logits themselves."""

import torch

from rskernels import Acceptance
from rskernels.kernels.gpu import linear
from rskernels.kernels.product import Lora, Product, Wanted
from rskernels.law.decision import Law

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMS = {
    "plain": {},
    "bias and scale": {"bias": True, "scale": 0.125},
    "softcap": {"softcap": 3.0},
    "low rank": {"rank": 5},
    "all": {"bias": True, "scale": 0.5, "softcap": 5.0, "rank": 40},
}


def draw_product(
    N, V, D, dtype=torch.float32, *, seed=0, bias=False, scale=1.0, softcap=0.0, rank=0, spread=2.0
):
    """Return a product of random parts, whose logits have about that spread, and targets [N]."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    hidden, weight = draw(N, D), draw(V, D) * (spread / scale / D**0.5)
    lora = None
    if rank:
        # s = 3/4, and a change half as large as the weight.
        parts = draw(rank, D) * D**-0.5, draw(V, rank) * (spread / scale / 1.5 / rank**0.5)
        lora = Lora(*(part.to(dtype) for part in parts), 0.75)
    vector = draw(V).to(dtype) if bias else None
    product = Product(hidden.to(dtype), weight.to(dtype), vector, scale, softcap, lora)
    return product, torch.randint(V, (N,), generator=generator)


def logits_of(product):
    """Return the logits in float64 [..., V], differentiable in float64 parts."""
    hidden, weight, bias, scale, softcap, lora = product
    z = hidden.double() @ weight.double().mT
    if lora is not None:
        low = hidden.double() @ lora.A.double().mT
        z = z + lora.scale * (low @ lora.B.double().mT)
    z = scale * z
    if bias is not None:
        z = z + bias.double()
    return softcap * (z / softcap).tanh() if softcap else z


def rows_of(product, rows):
    """Return a product with some of its rows."""
    return product._replace(hidden=product.hidden[rows])


def place(value):
    """Return a product, a law or a tensor on the device that the kernels run on."""
    if isinstance(value, (Product, Lora, Law)):
        return type(value)(*map(place, value))
    return value.to(DEVICE) if isinstance(value, torch.Tensor) else value


class Linear:
    """The operations on products, called and answering with CPU tensors."""

    def decide(self, product, targets, law):
        return Acceptance(*_called(linear.decide, product, targets, law))

    def mask(self, product, targets, law, is_lazy=False, order=None):
        return _called(linear.mask, product, targets, law, is_lazy, order)[0]

    def log_prob(self, product, targets, temperature=1.0, ignore_index=-100):
        return _called(linear.target_log_prob, product, targets, temperature, ignore_index)

    def gradient(self, upstream, product, targets, wanted, temperature=1.0, ignore_index=-100):
        _, totals = self.log_prob(product, targets, temperature, ignore_index)
        return _called(
            linear.target_log_prob_backward,
            upstream, product, targets, totals, temperature, ignore_index, Wanted(*wanted),
        )  # fmt: skip


def _called(function, *arguments):
    results = function(*map(place, arguments))
    results = results if isinstance(results, tuple) else (results,)
    return tuple(None if result is None else result.cpu() for result in results)
