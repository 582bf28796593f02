"""An empty cache: what a first call compiles, and what is said meanwhile."""

import logging
import platform
import threading

import pytest
from numba import njit, types
from numba.core import config, errors

from rskernels.kernels.cpu.cache import announce, cached, kernels, made
from rskernels.kernels.cpu.decide import mask_rows
from rskernels.kernels.cpu.dtypes import ELEMENTS, Kernels
from rskernels.kernels.cpu.simd.vectors import I64, lanes

from ...support.kernel_cache import addition, kept, misses, run_with_cache

FIRST = """
import time, torch, rskernels
logits, targets = torch.zeros(4, 10, dtype=torch.{dtype}), torch.arange(4)
begin = time.process_time()
rskernels.{call}
print(time.process_time() - begin, *asked_for())
"""
CALLS = {
    "accept_mask(logits, 0.1, 2.0, targets=targets, seed=1)": ["target_mask"],
    "verify_mask(logits, 0.1, 2.0, targets=targets, seed=1)": ["target_lazy_mask"],
    "accept(logits, 0.1, 2.0, targets=targets, seed=1)": ["target_outcome"],
    "target_log_prob(logits, targets)": ["log_prob"],
    "target_log_prob(logits.requires_grad_(), targets).sum().backward()": ["gradient", "log_prob"],
}
SECONDS = 12  # of the processor, on one that is slow and shared; all dtypes and forms took 15


@pytest.mark.process
def test_a_first_call_compiles_its_own_dtype_and_form_alone(tmp_path):
    seconds = []
    for dtype, (call, names) in zip(
        ("float32", "bfloat16", "float64", "float32", "float16"), CALLS.items(), strict=True
    ):
        output = run_with_cache(tmp_path, FIRST.format(dtype=dtype, call=call)).split()
        assert output[1:] == [f"{name}_{dtype}" for name in names]
        seconds.append(float(output[0]))
    assert max(seconds) < SECONDS, seconds
    assert len(kept(tmp_path)) == sum(map(len, CALLS.values()))


def test_kernels_are_made_when_they_are_asked_for_and_once(folder):
    asked, barrier = [], threading.Barrier(4)
    several = Kernels(lambda element: asked.append(element) or addition())

    def ask():
        barrier.wait()
        got.append(several[ELEMENTS[1].code])

    got = []
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, got))) == 1
    assert set(asked) == {ELEMENTS[1]}
    assert not several


def test_what_is_compiled_is_called_without_a_look_at_its_types(folder):
    function = addition()
    kernels_of_one = Kernels(lambda element: function)
    code = ELEMENTS[0].code
    assert kernels_of_one[code] is function
    assert kernels_of_one[code](1, 2) == 3
    entry = kernels_of_one[code]
    assert entry is not function
    assert entry(3, 4) == 7
    assert kernels_of_one[code] is entry
    assert len(function.signatures) == 1


INTEGERS = """
import torch
from rskernels.kernels import cpu, reference
from rskernels.law.decision import Law

logits, targets = torch.randn(40, 10), torch.arange(40) % 10
for density, M, temperature in ((1, 2, 1), (0.3, 2.5, 0.5), (1, 2.5, 2)):
    got = cpu.target_log_prob(logits, targets, temperature, -100)[0]
    want = (logits.double() / temperature).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert torch.allclose(got.double(), want, atol=1e-5)
    law = Law(density, M, 5, 0, temperature)
    assert torch.equal(cpu.mask(logits, targets, law), reference.mask(logits, targets, law))
print(*asked_for(), sum(len(kernel.signatures) for kernel in made()))
"""


@pytest.mark.process
def test_numbers_that_are_integers_at_first_are_not_so_for_ever(tmp_path):
    assert run_with_cache(tmp_path, INTEGERS).split() == [
        "log_prob_float32", "target_mask_float32", "2"
    ]  # fmt: skip


def test_every_kernel_of_an_element_is_named_after_it():
    for element in ELEMENTS:
        _ = mask_rows[element.code]
        assert f"target_mask_{element.dtype}" in [kernel.__name__ for kernel in made()]


def adding(number):
    @lanes(lambda a: types.int64)
    def add(builder, a):
        return builder.add(a, I64(number))

    @cached
    @njit
    def call(a):
        return add(a)

    return call


def test_kernels_of_other_intrinsics_are_kept_apart_and_found_again(folder):
    for missed in (1, 0):
        for number in (1, 2):
            function = adding(number)
            # What LLVM's types hold changes as they are used.
            assert str(I64) == "i64"
            assert function(3) == 3 + number
            assert misses(function) == missed
    assert len(kept(folder)) == 2


@pytest.fixture
def said(monkeypatch, caplog):
    """Return what tells the lines about compiling, of which there is one at once."""
    monkeypatch.setattr(announce, "PATIENCE", 0.0)
    caplog.set_level(logging.WARNING, logger="rskernels")
    return lambda: caplog.messages


def test_what_takes_long_is_said_once_with_where_it_is_kept(folder, said):
    assert addition()(1, 2) == 3
    (line,) = said()
    assert "compiling a CPU kernel, add," in line
    assert line.endswith(f"it is kept in {kept(folder)[0].parent}")


def test_what_is_found_or_takes_no_time_is_not_talked_about(folder, said, monkeypatch):
    monkeypatch.setattr(announce, "PATIENCE", 60.0)
    assert addition()(1, 2) == 3
    monkeypatch.setattr(announce, "PATIENCE", 0.0)
    again = addition()
    assert again(1, 2) == 3
    assert misses(again) == 0
    # Nor what is none of ours.
    assert njit(lambda a, b: a + b)(1, 2) == 3
    assert not said()


def test_what_cannot_be_kept_is_said_with_the_reason(only_temporary, said):
    only_temporary.write_text("a file, and no folder", encoding="utf-8")
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        assert addition()(1, 2) == 3
    (line,) = said()
    assert "in every process: it cannot be kept (" in line
    assert "package" in line
    assert kernels.REMEDY in line


def test_what_other_processors_left_is_said(folder, said, monkeypatch):
    assert addition()(1, 2) == 3
    monkeypatch.setattr(config, "OPT", 1)
    assert addition()(1, 2) == 3
    assert [kernels.OTHERS in line for line in said()] == [False, True]


def test_a_turned_off_cache_is_said(folder, said):
    function = addition()
    function._cache.disable()
    assert function(1, 2) == 3
    assert "it cannot be kept (the cache is turned off)" in said()[0]


def test_a_compilation_that_fails_leaves_the_next_one_its_line(folder, said, monkeypatch):
    @cached
    @njit
    def fail(a):
        return a.no_such_name

    monkeypatch.setattr(announce, "PATIENCE", 60.0)
    with pytest.raises(errors.TypingError):
        fail(1)
    monkeypatch.setattr(announce, "PATIENCE", 0.0)
    assert njit(lambda a: a + 1)(1) == 2
    assert not said()
    assert addition()(1, 2) == 3
    assert len(said()) == 1


ON_STDERR = """
import sys, torch, rskernels
from rskernels.kernels.cpu.cache import announce
announce.PATIENCE = 0.0
{logging}
print(rskernels.bernoulli_mask(torch.zeros(2), seed=1).tolist())
"""
INTO_A_LOG = """
import logging
logging.basicConfig(stream=sys.stdout, format="log: %(name)s %(levelname)s %(message).9s")
"""


@pytest.mark.process
def test_the_line_goes_to_the_log_and_else_to_stderr(tmp_path):
    code = "import os; os.dup2(2, 9); os.dup2(os.open({log!r}, os.O_CREAT | os.O_RDWR), 2)"
    log = tmp_path / "stderr"
    output = run_with_cache(tmp_path, code.format(log=str(log)) + ON_STDERR.format(logging=""))
    assert output == "[True, True]\n"
    assert log.read_text(encoding="utf-8").count("compiling a CPU kernel, bernoulli_rows") == 1
    output = run_with_cache(tmp_path / "other", ON_STDERR.format(logging=INTO_A_LOG))
    assert output == "log: rskernels WARNING rskernels\n[True, True]\n"


FORK = """
import os, signal, threading, torch, rskernels
from rskernels.kernels.cpu.cache import announce

inside = threading.Event()
announce.PATIENCE = 0.0
announce.logger.addFilter(lambda record: inside.set() or True)
logits, targets = torch.zeros(4, 10), torch.arange(4)

def decide():
    return rskernels.accept_mask(logits, 0.1, 2.0, targets=targets, seed=1)

thread = threading.Thread(target=decide)
thread.start()
assert inside.wait(100)
if (child := os.fork()) == 0:
    signal.alarm(100)
    announce.logger.warning("of the child")
    os._exit(not torch.equal(decide(), decide()))
assert os.waitpid(child, 0)[1] == 0
thread.join()
print(*asked_for())
"""


@pytest.mark.process
@pytest.mark.skipif(platform.system() == "Windows", reason="the system cannot fork")
def test_a_fork_while_the_line_is_written_hangs_no_child(tmp_path):
    assert run_with_cache(tmp_path, FORK) == "target_mask_float32\n"
