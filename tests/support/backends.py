"""Every backend behind one call."""

import functools
import importlib

import torch

from rskernels import Acceptance, SequenceAcceptance, SpeculativeResult
from rskernels.kernels import reference
from rskernels.kernels.product import Lora, Product
from rskernels.law.decision import Law
from rskernels.law.philox import philox4x32
from rskernels.law.speculation import Speculation
from rskernels.law.streams import Stream


class Backend:
    """A module of a package's ``kernels``, called with CPU tensors and answering with them."""

    def __init__(self, name, package="rskernels"):
        self.name = name
        self.kernels = importlib.import_module(f"{package}.kernels.{name}")
        on_device = name == "gpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_device else "cpu")
        # Interpreted Triton takes milliseconds a program.
        self.is_slow = name == "gpu" and not on_device

    @property
    def launch(self):
        """The module that launches the kernels, with the sizes that a test may change."""
        return importlib.import_module(f"{self.kernels.__name__}.launch")

    def rows(self, count, slow=4):
        return slow if self.is_slow else count

    def place(self, value):
        """Return a tensor, or a product's, on the backend's device with the strides it has."""
        if isinstance(value, (Product, Lora)):
            return type(value)(*map(self.place, value))
        if not isinstance(value, torch.Tensor) or self.device.type == "cpu":
            return value
        length = value.untyped_storage().nbytes() // value.element_size()
        whole = value.as_strided((length,), (1,), 0).to(self.device)
        return whole.as_strided(value.shape, value.stride(), value.storage_offset())

    def decide(self, *args, **law):
        results = self.kernels.decide(*self._law(*args, **law))
        return Acceptance(*(result.cpu() for result in results))

    def mask(self, *args, is_lazy=False, order=None, **law):
        kernels = self.kernels.linear if isinstance(args[0], Product) else self.kernels
        return kernels.mask(*self._law(*args, **law), is_lazy, self.place(order)).cpu()

    def bernoulli(self, log_ratio, M=1.0, **law):
        return self.kernels.bernoulli(*self._ratios(log_ratio, M, **law)).cpu()

    def decide_ratios(self, log_ratio, M=1.0, **law):
        seen = self.kernels.decide_ratios(*self._ratios(log_ratio, M, **law))
        mask, log_ratio, counts, excess = (part.cpu() for part in seen)
        return Acceptance(mask, torch.full_like(log_ratio, torch.nan), log_ratio, counts, excess)

    def accept_sequences(
        self, log_ratio, M=1.0, *, mask=None, cu_seqlens=None, statistic="sum", seed=0,
        row_offset=0, log_space=False, ids=None,
    ):  # fmt: skip
        log_ratio, M, mask, cu_seqlens, seed, ids = map(
            self.place, (log_ratio, M, mask, cu_seqlens, seed, ids)
        )
        law = (seed, row_offset, int(Stream.SEQUENCE), log_space)
        layout = (mask, cu_seqlens, statistic, ids)
        seen = self.kernels.decide_sequences(log_ratio, M, *law, *layout)
        *parts, tokens = (part.cpu() for part in seen)
        return SequenceAcceptance(*parts, tokens[0], tokens[1], parts[4][0])

    def accept_prefix(
        self, log_ratio, M=1.0, *, mask=None, cu_seqlens=None, seed=0, row_offset=0,
        log_space=False, ids=None,
    ):  # fmt: skip
        log_ratio, M, mask, cu_seqlens, seed, ids = map(
            self.place, (log_ratio, M, mask, cu_seqlens, seed, ids)
        )
        law = (seed, row_offset, int(Stream.PREFIX), log_space)
        return self.kernels.accept_prefix(log_ratio, M, *law, mask, cu_seqlens, ids).cpu()

    def log_prob(self, logits, targets, temperature=1.0, ignore_index=-100):
        result = self._totals(logits, targets, temperature, ignore_index)
        return (result if self.name == "reference" else result[0]).cpu()

    def gradient(self, upstream, logits, targets, temperature=1.0, ignore_index=-100):
        if self.name == "reference":
            leaf = logits.double().detach().requires_grad_()
            log_prob = reference.target_log_prob(leaf, targets, temperature, ignore_index)
            return torch.autograd.grad(log_prob, leaf, upstream.double())[0]
        _, totals = self._totals(logits, targets, temperature, ignore_index)
        upstream, logits, targets = (self.place(t) for t in (upstream, logits, targets))
        return self.kernels.target_log_prob_backward(
            upstream, logits, targets, totals, self.place(temperature), ignore_index
        ).cpu()

    def philox(self, counter, key):
        if self.name == "reference":
            return philox4x32(counter, key)
        return self.kernels.philox(self.place(counter), self.place(key)).cpu()

    def speculate(self, target, tokens, draft=None, lengths=None, **law):
        given = (self.place(value) for value in (target, tokens, draft, lengths))
        law = Speculation(**{name: self.place(value) for name, value in law.items()})
        results = self.kernels.speculative.speculate(*given, law)
        return SpeculativeResult(*(result.cpu() for result in results))

    def _law(self, logits, targets, density, M=1.0, *, seed=0, **law):
        logits, targets, density, M, seed = map(self.place, (logits, targets, density, M, seed))
        law = {name: self.place(value) for name, value in law.items()}
        return logits, targets, Law(density, M, seed, **law)

    def _ratios(
        self, log_ratio, M, *, seed=0, row_offset=0, stream=0, log_space=False, ids=None
    ):  # fmt: skip
        log_ratio, M, seed, ids = map(self.place, (log_ratio, M, seed, ids))
        return log_ratio, M, seed, row_offset, stream, log_space, ids

    def _totals(self, logits, targets, temperature, ignore_index):
        return self.kernels.target_log_prob(
            self.place(logits), self.place(targets), self.place(temperature), ignore_index
        )


backend_of = functools.cache(Backend)
