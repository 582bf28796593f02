"""The public functions, called as the backends' modules are."""

import rskernels
from rskernels.kernels.product import Product


class Public:
    """The public functions on a backend's device, with CPU tensors in and out."""

    def __init__(self, backend):
        self._place = backend.place

    def mask(self, logits, targets, density, M=1.0, *, model_is_target=False, is_lazy=False, **law):
        logits, targets, density, M = map(self._place, (logits, targets, density, M))
        law = {name: self._place(value) for name, value in law.items()}
        if isinstance(logits, Product):
            *parts, scale, softcap, lora = logits
            logits = rskernels.LinearLogits(*parts, scale=scale, softcap=softcap, lora=tuple(lora))
        if model_is_target:
            # It always stops reading a row that is decided.
            return rskernels.verify_mask(logits, density, M, targets=targets, **law).cpu()
        law["assume_finite"] = is_lazy
        return rskernels.accept_mask(logits, density, M, targets=targets, **law).cpu()

    def decide(self, logits, targets, density, M=1.0, *, model_is_target=False, **law):
        call = rskernels.verify if model_is_target else rskernels.accept
        logits, targets, density, M = map(self._place, (logits, targets, density, M))
        law = {name: self._place(value) for name, value in law.items()}
        seen = call(logits, density, M, targets=targets, **law)
        return rskernels.Acceptance(*(part.cpu() for part in seen))

    def bernoulli(self, log_ratio, M=1.0, **law):
        law = {name: self._place(value) for name, value in law.items()}
        return rskernels.bernoulli_mask(*map(self._place, (log_ratio, M)), **law).cpu()

    def decide_ratios(self, log_ratio, M=1.0, **law):
        seen = rskernels.bernoulli(*map(self._place, (log_ratio, M)), **law)
        return rskernels.Acceptance(*(part.cpu() for part in seen))

    def accept_sequences(self, log_ratio, M=1.0, *, mask=None, **law):
        log_ratio, M, mask = map(self._place, (log_ratio, M, mask))
        seen = rskernels.accept_sequences(log_ratio, M, mask=mask, **law)
        return rskernels.SequenceAcceptance(*(part.cpu() for part in seen))

    def accept_prefix(self, log_ratio, M=1.0, *, mask=None, **law):
        log_ratio, M, mask = map(self._place, (log_ratio, M, mask))
        return rskernels.accept_prefix(log_ratio, M, mask=mask, **law).cpu()

    def speculate(self, target, tokens, draft=None, lengths=None, *, is_block=False, **law):
        given = (self._place(value) for value in (target, tokens, draft))
        law = {name: self._place(value) for name, value in law.items()}
        seen = rskernels.speculative_sample(
            *given, lengths=self._place(lengths), method="block" if is_block else "token", **law
        )
        return rskernels.SpeculativeResult(*(part.cpu() for part in seen))
