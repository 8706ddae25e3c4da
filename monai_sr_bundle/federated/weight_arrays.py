"""Weights in a file of PyTorch, as NumPy arrays and without PyTorch.

The process that carries a site's messages needs their names and shapes, and nothing of PyTorch or MONAI, which would
cost every site 300 MB and seconds at the start of every job.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle.errors import InputError

_TYPES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "LongStorage": np.int64}

_READ_ERRORS = (
    zipfile.BadZipFile, pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError,
    AttributeError, OverflowError, struct.error, zlib.error,
)  # fmt: skip
"""Exceptions of the readers of zips and pickles for damaged files."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the weights of a released `model.pt`.

    Raises:
        InputError: the file is no such file, or holds more than arrays by name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (description,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(description) as file:
                state = _ArrayUnpickler(file, archive, description.removesuffix("data.pkl")).load()
    except _READ_ERRORS as error:
        raise InputError(f"{path}: cannot be read as weights ({error}). Install the bundle again.") from error
    if not isinstance(state, dict) or not all(isinstance(value, np.ndarray) for value in state.values()):
        raise InputError(f"{path}: holds no network's weights. Install the bundle again.")
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Builds arrays, and refuses every class but the few that `torch.save` needs for a state dict."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_array
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is no part of weights")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, kind, key, *_ = pid
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), kind)


def _rebuild_array(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Any:
    if not math.prod(shape):
        return np.empty(shape, storage.dtype)
    steps = tuple(step * storage.itemsize for step in strides)
    return np.ndarray(shape, storage.dtype, storage, offset * storage.itemsize, steps)
