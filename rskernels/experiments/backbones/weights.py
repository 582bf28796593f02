"""Weights of a file, and models of a folder: nothing is downloaded, nothing unpickled."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rskernels._python.extras import LANGUAGE_HINT, framework
from rskernels.rsft.errors import DataError

NESTED = ("state_dict", "model")  # under which training scripts keep the weights
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")


def read_weights(path: Path) -> OrderedDict[str, Tensor]:
    """Read a state dict, of a file of safetensors or of torch's.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or what ``torch.save`` wrote: the state dict, alone or under
        ``"state_dict"`` or ``"model"``, with or without ``"module."`` before its names.

    Raises
    ------
    DataError
        If it cannot be read, or holds anything but tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            with framework("a file of safetensors", LANGUAGE_HINT):
                from safetensors import SafetensorError
                from safetensors.torch import load_file
            try:
                state: Any = load_file(path)
            except SafetensorError as error:
                raise DataError(f"{path} cannot be read: {error}") from error
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read as weights alone: {reason}") from error
    for name in NESTED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path} holds no state dict: tensors by their names are needed")
    made = OrderedDict((str(name).removeprefix("module."), v) for name, v in state.items())
    # Some layers tell by it which version of themselves was saved.
    made._metadata = getattr(state, "_metadata", OrderedDict())  # type: ignore[attr-defined]
    return made


def load_into(
    module: nn.Module, state: OrderedDict[str, Tensor], path: Path, *, without: str
) -> None:
    """Load a state dict into a module, every name of both but those under `without`.

    Raises
    ------
    DataError
        If a name is missing, is not the module's, or has another shape.
    """
    for name in [name for name in state if name.startswith(f"{without}.")]:
        del state[name]
    own = {name: value.shape for name, value in module.state_dict().items()}
    given = {name: value.shape for name, value in state.items()}
    differing = [name for name in {**own, **given} if own.get(name) != given.get(name)]
    if differing:
        name = differing[0]
        told = [
            "nothing" if shapes.get(name) is None else str(list(shapes[name]))
            for shapes in (own, given)
        ]
        raise DataError(
            f"{path} does not fit the backbone in {len(differing)} names: {name} is {told[0]} in "
            f"the backbone, {told[1]} in the file"
        )
    try:
        module.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} cannot be loaded: {error}") from error


@contextmanager
def drawn_by(generator: torch.Generator) -> Iterator[None]:
    """Let what draws from torch's global generator draw by a seed, and restore it afterwards."""
    seed = int(torch.randint(1 << 62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def hushed() -> Iterator[None]:
    """Keep transformers from telling what is checked here: weights that are not a backbone's."""
    from transformers.utils import logging

    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


def read_model(folder: Path, generator: torch.Generator, *, from_scratch: bool) -> nn.Module:
    """Read a transformers model from a folder, without its head, in evaluation mode.

    Parameters
    ----------
    folder : Path
        With ``config.json`` and, unless the model is to be trained from scratch, the weights.
    generator : torch.Generator
        Source of weights that the folder does not hold.
    from_scratch : bool
        Whether a folder without weights is accepted.

    Raises
    ------
    DataError
        If the folder holds no model, or not all of its weights.
    ModuleNotFoundError
        If transformers is not installed.
    """
    with framework("a backbone of transformers", LANGUAGE_HINT):
        from transformers import AutoConfig, AutoModel
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} holds no config.json: it is no folder of a transformers model")
    has_weights = any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES)
    if not has_weights and not from_scratch:
        raise DataError(
            f"{folder} holds no weights: frozen, it would know nothing; unfreeze trains it"
        )
    try:
        with drawn_by(generator), hushed():
            if not has_weights:
                config = AutoConfig.from_pretrained(folder, local_files_only=True)
                model = AutoModel.from_config(config)
            else:
                model, told = AutoModel.from_pretrained(
                    folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
                )
                missing = sorted(told["missing_keys"])
                others = [name for name in missing if not name.startswith("pooler.")]
                if others:
                    raise DataError(f"{folder} lacks {len(others)} weights, {others[0]} first")
                if missing:
                    model.pooler = None  # one that has learnt nothing is not to be read
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} cannot be read: {' '.join(str(error).split())}") from error
    made: nn.Module = model.eval()
    return made
