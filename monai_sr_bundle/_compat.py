"""Repairs of other packages, each with the reason and the issue that lets us delete it."""

from __future__ import annotations

import ctypes
import importlib
import logging
import os
import sys
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # malloc.h
_operators: list[Any] = []  # torch forgets operators when the library that defined them is collected


def quiet_openmp() -> None:
    """Let idle OpenMP threads sleep instead of spin; call it before torch is imported.

    On a shared machine with two threads the spinning halved the training speed (12 against 24 images per second).
    A value the user set is kept. OpenMP reads it once, when it is loaded.
    Delete when torch does so itself: https://github.com/pytorch/pytorch/issues/80777
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def return_large_buffers() -> None:
    """Let every buffer above 4 MB go back to the system when it is freed, where the C library is glibc.

    By default glibc keeps freed buffers of up to 32 MB for later (mallopt(3), M_MMAP_THRESHOLD) and finds many of them
    too small for what comes next: a result of 2048 x 2048 pixels by ONNX Runtime took 250 to 290 MB instead of 100 to
    120 MB. What is smaller comes again soon: to get its pages anew, as from 1 MB on, cost two fifths more time; so it
    is kept, at the end of the heap too, up to 16 MB. Not for training, where the same sizes come in every step.
    Delete when `tests/test_memory.py` passes without it.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries of Linux have none
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 4 * 1024**2)
            mallopt(_M_TRIM_THRESHOLD, 16 * 1024**2)


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled part was built for CUDA and torch was not.

    Such a torchvision cannot load its C++ operators, and its Python part then fails at import because two of them,
    `nms` and `qnms`, are missing. Declaring them is enough for everything that does not call them, such as LPIPS.
    Calling `nms` then raises torchvision's own RuntimeError. Call this before `import lpips`.
    Delete when https://github.com/pytorch/vision/issues/9085 and https://github.com/pytorch/pytorch/issues/157648
    no longer happen with the oldest torchvision we allow.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: it fails to import for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or "does not exist" not in str(error):
            raise
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operators.append(library)
    logger.info("torchvision was built for another torch; its compiled operators are not available.")
    return importlib.import_module("torchvision")
