"""Turn what was measured from hidden states into Markdown."""

from __future__ import annotations

from typing import Any

from benchmarks.common.tables import MIB, number, speed, table, verdict
from benchmarks.linear import decisions, losses

EXPLAINED = f"""\
Medians of alternating rounds in one process, all threads. *Decision*: {decisions.N} tokens from
hidden states of {decisions.D} features and a vocabulary of {decisions.V:,}, most frequent tokens
first (Zipf). *Loss*: its gradients of hidden states and weight too, [{losses.N}, {losses.D}] x
[{losses.V:,}, {losses.D}]. *Product*: the same blocks by `torch.mm`, and nothing else. *Stored*:
the logits are stored and given to this library's call. Memory is how far a call raises resident
memory, results included."""

# Share accepted: the least times eager that verify_mask must be.
NO_SLOWER = 1.05  # of two times that are measured alternately
LEAST = {0.001: 100.0, 0.01: 25.0, 0.1: 8.0}


def markdown(record: dict[str, Any]) -> str:
    """Return the whole report."""
    cases = record["cases"]
    machine = ", ".join(f"{name} {value}" for name, value in record["machine"].items())
    versions = ", ".join(f"{name} {value}" for name, value in record["versions"].items())
    parts = [
        "# From hidden states: CPU",
        f"{machine}.\n{versions}.\n`{record['command']}`, {record['date']}, {record['seconds']} s.",
        EXPLAINED,
    ]
    of = {what: [case for case in cases if case["what"] == what] for what in _PARTS}
    parts += [_PARTS[what](some) for what, some in of.items() if some]
    return "\n\n".join(parts) + "\n"


def _memory(case: dict[str, Any], name: str) -> str:
    value = case["memory"].get(name)
    return "" if value is None else number(value / MIB)


def _decisions(cases: list[dict[str, Any]]) -> str:
    lines, required = [], []
    for case in cases:
        seconds, accepted = case["seconds"], case["accepted"]
        times = {name: seconds[name] / seconds["verify_mask"] for name in seconds}
        full = seconds["verify"] / seconds["product"]
        lines.append([
            case["dtype"], f"{100 * accepted:g} %", number(1e3 * seconds["verify_mask"]),
            speed(times["eager"]), speed(times["compiled"]), speed(times["stored, verify_mask"]),
            number(1.0 / times["product"]), number(full),
            _memory(case, "verify_mask"), _memory(case, "eager"),
        ])  # fmt: skip
        least = LEAST.get(accepted)
        factor = 1.0 if case["dtype"] == "float32" else 0.9
        if least is not None:
            what = f"{case['dtype']}, {100 * accepted:g} %: × eager"
            required.append(_bar(what, times["eager"], factor * least))
        elif case["dtype"] == "float32":
            what = f"{case['dtype']}, {100 * accepted:g} %: verify_mask over verify"
            required.append(_bar(what, 1.0 / times["verify"], NO_SLOWER, is_most=True))
    full_of = [case for case in cases if case["dtype"] == "float32" and case["accepted"] == 1.0]
    for case in full_of:
        ratio = case["seconds"]["verify"] / case["seconds"]["product"]
        required.append(_bar("float32: verify over the product", ratio, 1.12, is_most=True))
        memory = case["memory"]["verify"]
        if memory is not None:
            required.append(_bar("float32: MiB beside the inputs", memory / MIB, 64, is_most=True))
    headings = (
        "dtype", "accepted", "ms", "× eager", "× compiled", "× stored", "of the product",
        "verify, of the product", "extra MiB", "eager's",
    )  # fmt: skip
    alignment = (":--", *("--:",) * 9)
    return "\n\n".join(
        ("## Decision: verify_mask", table(headings, lines, alignment), _required(required))
    )


def _losses(cases: list[dict[str, Any]]) -> str:
    lines, required = [], []
    for case in cases:
        seconds = case["seconds"]
        for name in seconds:
            lines.append([
                case["dtype"], name, number(1e3 * seconds[name]),
                number(seconds[name] / seconds["products"]), _memory(case, name),
            ])  # fmt: skip
        if case["dtype"] == "float32":
            ours = seconds["ours"]
            part = ours / seconds["ours, 30 % accepted"]
            required += [
                _bar("over the three products", ours / seconds["products"], 1.25, is_most=True),
                _bar("× eager", seconds["eager"] / ours, 1.0),
                _bar("30 % accepted, decision included: × all rows", part, 1.8),
            ]
            if "linear_cross_entropy" in seconds:
                over = seconds["linear_cross_entropy"] / ours
                required.append(_bar("× torch's chunked form", over, 2.5))
    headings = ("dtype", "form", "ms", "of the products", "extra MiB")
    alignment = (":--", ":--", "--:", "--:", "--:")
    return "\n\n".join(
        ("## Loss and gradients", table(headings, lines, alignment), _required(required))
    )


def _steps(cases: list[dict[str, Any]]) -> str:
    lines, required, apart = [], [], 0.0
    for case in cases:
        seconds, memory, curves = case["seconds"], case["memory"], case["curves"]
        model = f"{case['parameters'] / 1e6:.1f} M"
        activations = "made again" if case["is_checkpointed"] else "stored"
        lines += [
            [model, activations, name, number(1e3 * seconds[name]), _memory(case, name),
             f"{curves[name][0]:.5f}", f"{curves[name][-1]:.5f}"]
            for name in seconds
        ]  # fmt: skip
        apart = max(apart, *(abs(a - b) for a, b in zip(*curves.values(), strict=True)))
        of = f"{model}, activations {activations}: "
        faster = seconds["stored"] / seconds["LinearLogits"]
        required.append(_bar(f"{of}× stored logits", faster, 1.0))
        if None not in memory.values():
            ratio = memory["stored"] / memory["LinearLogits"]
            required.append(_bar(f"{of}stored logits' memory over ours", ratio, 3.0))
    text = (
        "Llamas by their parameters. Without stored logits, most of a step's memory is the rest of "
        "the model's: its layers' activations, the gradients, the optimizer's temporary "
        f"tensors. The losses of the two forms are at most {apart:.2g} apart."
    )
    headings = (
        "model",
        "activations",
        "logits",
        "ms a step",
        "extra MiB",
        "first loss",
        "last loss",
    )
    alignment = ("--:", ":--", ":--", *("--:",) * 4)
    return "\n\n".join(
        ("## A training step", text, table(headings, lines, alignment), _required(required))
    )


_PARTS = {"decision": _decisions, "loss": _losses, "step": _steps}


def _bar(what: str, value: float, bound: float, is_most: bool = False) -> list[str]:
    holds = value <= bound if is_most else value >= bound
    return [what, f"{'≤' if is_most else '≥'} {bound:.3g}", f"{value:.3g}", verdict(holds)]


def _required(lines: list[list[str]]) -> str:
    return table(("required", "", "measured", ""), lines)
