"""Code whose tensors lie beside memory that nobody may touch."""

from .processes import run_python

MEMORY = """
import ctypes, mmap
import torch

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)

def guarded(values, at_end):
    '''A copy that ends (or begins) where memory that may not be touched begins (or ends).'''
    size = values.numel() * values.element_size()
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (base, base + (pages + 1) * PAGE):
        assert libc.mprotect(ctypes.c_void_p(page), PAGE, 0) == 0
    start = PAGE + (pages * PAGE - size if at_end else 0)
    view = torch.frombuffer(memory, dtype=values.dtype, count=values.numel(), offset=start)
    return view.view(values.shape).copy_(values)

"""


def run_guarded(code):
    """Run code that calls ``guarded(values, at_end)``, and return what it printed."""
    return run_python(MEMORY + code, TRITON_INTERPRET="1").strip()
