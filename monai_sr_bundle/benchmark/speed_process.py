"""The process of one row of `monai-sr benchmark speed`: a bundle on a runtime, which enlarges images on request.

    python -m monai_sr_bundle.benchmark.speed_process '{"row": {...}, "scale": 4}'

The row's keys are those of a protocol. A line on standard input is the path of an image (.npy), and perhaps that of the
result after a tab; the answer is a JSON object with the seconds and the peak memory of the process so far. It imports
no PyTorch unless the runtime is PyTorch, so that memory is that of an installation without it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CONVOLUTION = "convolution"
"""Method of a row that measures the machine's own rate of convolutions: a layer of 64 channels on 256 x 256 pixels."""
CONVOLUTION_MULTIPLY_ADDS = 256 * 256 * 64 * 64 * 9


def main() -> int:
    """Answer until standard input ends, and return the exit code."""
    from monai_sr_bundle.errors import SuperResolutionError

    facts = json.loads(sys.argv[1])
    try:
        enlarge = _convolution() if facts["row"]["method"] == CONVOLUTION else _enlarger(facts["row"], facts["scale"])
    except SuperResolutionError as error:
        print(json.dumps({"refused": str(error)}), flush=True)
        return 0
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        path, _, out = line.rstrip("\n").partition("\t")
        image = np.load(path)
        start = time.perf_counter()
        result = enlarge(image)
        seconds = time.perf_counter() - start
        if out:
            np.save(out, result)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}), flush=True)
    return 0


def peak_bytes(process: int | str = "self") -> int | None:
    """Return the largest memory that a process has had, this one by default; None where the system does not tell.

    Not `ru_maxrss`, which a process of Linux takes over from the one that started it.
    """
    status = Path(f"/proc/{process}/status")
    peak = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.is_file() else None
    return 1024 * int(peak[1]) if peak else None


def _enlarger(row_facts: dict[str, Any], scale: int) -> Callable[[np.ndarray], np.ndarray]:
    from monai_sr_bundle.backends.opening import open_backend
    from monai_sr_bundle.benchmark.protocol import Row
    from monai_sr_bundle.errors import InputError
    from monai_sr_bundle.families.family import Inference, InPlaneFamily

    row = Row(**row_facts)
    bundle = row.bundle(scale)
    if bundle is None or not isinstance(family := bundle.family, InPlaneFamily):
        raise InputError(f"{row.method}: speed is measured of bundles that enlarge in the plane. Take the row out.")
    options = family.resolve(row.options)
    backend = open_backend(bundle, row.backend, "cpu")  # type: ignore[arg-type]  # checked by parse_rows
    limits = (0.0, 1.0) if bundle.facts["levels"] == 255 else None  # of what the storage holds
    return lambda image: family.enlarge_slice(image, Inference(backend, options), limits=limits)


def _convolution() -> Callable[[np.ndarray], np.ndarray]:
    import torch

    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = torch.rand(1, 64, 256, 256).to(memory_format=torch.channels_last)

    def convolve(_: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(layer(features)[0, 0, :1, :1].numpy())

    return convolve


if __name__ == "__main__":
    sys.exit(main())
