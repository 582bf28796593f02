"""The kernels of one function on disk, as Numba asks for them."""

import functools
import glob
import pickle
import sys
from pickle import PickleError

from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from rskernels.kernels.cpu.cache.digests import described, digest, stamp
from rskernels.kernels.cpu.cache.once import warn
from rskernels.kernels.cpu.cache.places import (
    Place,
    UntrustedFile,
    config,
    places,
    temporary_places,
)

# Options that change what is compiled.
OPTIONS = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE")
OTHERS = "for another processor or another choice of Numba's options"
REMEDY = "set NUMBA_CACHE_DIR to a folder that you alone can write"
ANY_STAMP = "?" * 8
# What bytes raise that are no kernel, and a Numba that lacks something.
UNREADABLE = (
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    PickleError,
    TypeError,
    ValueError,
)


def _never_in_the_way(method):
    """Have a method that fails, as with another Numba, turn the cache off."""

    @functools.wraps(method)
    def guarded(self, *arguments):
        try:
            return method(self, *arguments) if self._is_enabled else None
        except UNREADABLE as error:
            self.disable()
            failure = f"{type(error).__name__}: {error}"
        warn(f"compiled kernels cannot be kept ({failure}): every process will compile its own")
        return None

    return guarded


def _raise_if_foreign(error):
    """Raise what a signal's handler raised, such as a timeout: it is of no file."""
    if error.errno is None:
        raise error


def _in_first(do):
    """Do something in the first folder where that can be done.

    Returns (the place, whether it is a temporary one, why it is none of those before).
    """
    refusal = None
    for is_temporary in (False, True):
        for place in temporary_places(create=True) if is_temporary else places():
            try:
                do(place)
            except OSError as error:
                _raise_if_foreign(error)
                refusal = refusal or f"{place.folder}: {error.strerror}"
                continue
            return place, is_temporary, refusal
    return None, False, refusal


class KernelCache(_Cache):
    """What Numba asks of a cache, for one kernel."""

    def __init__(self, function):
        # As a Numba must have them: what is lacking is told before anything is compiled.
        self._reduce, self._rebuild = CompileResult._reduce, CompileResult._rebuild
        self._function = function
        self._name = f"{function.__module__}.{function.__qualname__}"[-120:]
        self._stamp = stamp()
        self._is_enabled = True
        self.path = None  # of the file that was read or written last

    @property
    def cache_path(self):
        """The folder that is looked into first."""
        return str(places()[0].folder)

    def enable(self):
        """Use the cache."""
        self._is_enabled = True

    def disable(self):
        """Do not use the cache."""
        self._is_enabled = False

    def flush(self):
        """Remove all that is kept of the kernel."""
        for place in (*places(), *temporary_places()):
            for file in place.folder.glob(self._pattern()):
                place.remove(file.name)

    @_never_in_the_way
    def load_overload(self, signature, target):
        """Return what was compiled for a signature, None where there is nothing sound."""
        target.refresh()
        name = self._file_name(signature, target.codegen())
        refused = []
        for place in (*places(), *temporary_places()):
            try:
                result = self._rebuilt(place.read(name), target)
            except OSError as error:
                _raise_if_foreign(error)
                continue
            except UNREADABLE as error:
                place.remove(name)
                fault = "is not used" if isinstance(error, UntrustedFile) else "is damaged"
                refused.append(f"a compiled kernel, {place.folder / name}, {fault} ({error})")
                continue
            if result is not None:
                self.path = place.folder / name
                return result
        for text in refused:
            warn(f"{text}: compiling anew")
        return None

    @_never_in_the_way
    def save_overload(self, signature, result):
        """Keep what was compiled for a signature in the first folder that can be written."""
        if result.library.has_dynamic_globals:
            raise ValueError(f"{self._name} holds an address of this process")
        name = self._file_name(signature, result.codegen)
        payload = dumps(self._reduce(result))
        content = self._stamp + digest(self._stamp + payload) + payload
        place, is_temporary, refusal = _in_first(lambda place: place.write(name, content))
        if place is None:
            warn(
                f"compiled kernels cannot be kept ({refusal}), and every process will compile its "
                f"own for seconds; {REMEDY}"
            )
            return
        self.path = place.folder / name
        if is_temporary:
            warn(f"compiled kernels are kept in {place.folder} for now ({refusal}); {REMEDY}")
            return
        place.remove_unused(self._pattern(), self._current())
        if refusal and config.CACHE_DIR:
            warn(f"compiled kernels are kept in {place.folder} ({refusal}); {REMEDY}")

    def destination(self):
        """Return (the folder where what is compiled now would be kept, None), or (None, why not).

        Instead of the last None, what else is there, if that is of another processor.
        """
        if not self._is_enabled:
            return None, "the cache is turned off"
        place, _, refusal = _in_first(Place.try_to_write)
        if place is None:
            return None, f"{refusal}; {REMEDY}"
        others = any(place.folder.glob(f"{glob.escape(self._current())}*.nbk"))
        return place.folder, OTHERS if others else None

    def _pattern(self):
        """Return what the names of the kernel's files have in common, whatever the sources."""
        return f"{glob.escape(self._name)}.{ANY_STAMP}.*.nbk*"

    def _current(self):
        """Return how they begin where they are of these sources."""
        return f"{self._name}.{self._stamp.hex()[: len(ANY_STAMP)]}."

    def _file_name(self, signature, codegen):
        function = self._function
        names = function.__module__, function.__qualname__, described(function)
        options = [getattr(config, option, None) for option in OPTIONS]
        key = names, signature, codegen.magic_tuple(), options, sys.implementation.cache_tag
        return f"{self._current()}{digest(repr(key).encode()).hex()[:32]}.nbk"

    def _rebuilt(self, content, target):
        """Return the kernel in a file, None where it is of other sources."""
        size = len(self._stamp)
        own, check, payload = content[:size], content[size : 2 * size], content[2 * size :]
        if check != digest(own + payload):
            raise ValueError("its digest is another")
        if own != self._stamp:
            return None
        return self._rebuild(target, *pickle.loads(payload))
