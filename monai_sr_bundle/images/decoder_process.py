"""Decode compressed pixels in a process of its own, which a damaged file may end instead of this one.

GDCM, the decoder of a free licence for lossless JPEG and JPEG-LS, calls `abort` on some damaged files, and so may
libjpeg: nothing in Python catches that. OpenJPEG takes the memory for whatever size the compressed pixels state, and
the header may state another. The process has a bound of memory and, for each request, of time. It is started once for
an image, however many slices it has, and ends with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

SECONDS = 60.0
"""Longest time that a file of up to `BYTES_A_SECOND` decoded bytes may take; a larger one has more."""
BYTES_A_SECOND = 1_000_000
"""Slowest that a decoder may be: a hundredth of what GDCM does."""
SPARE_BYTES = 512 * 1024**2
"""Memory of the process beside the decoded pixels."""
_COPIES = 12
"""Of the decoded pixels; OpenJPEG holds those of 8 bits as numbers of 32, twice."""


class DecoderError(RuntimeError):
    """The pixels cannot be decoded; the message says why."""


class DecoderProcess:
    """A process that decodes, started with the first request and ended with the `with` block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DecoderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def decode(self, encapsulated: bytes, options: Mapping[str, Any], expected_bytes: int) -> np.ndarray:
        """Decode the frames of one data set.

        Args:
            encapsulated: value of Pixel Data.
            options: transfer syntax, decoder and pixel description, as `_decode` passes them on to pydicom.
            expected_bytes: bytes of the decoded pixels.

        Raises:
            DecoderError: the decoder refuses them, ends its process, or takes too long.
        """
        process = self._start()
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            process.kill()

        seconds = SECONDS + expected_bytes / BYTES_A_SECOND
        clock = threading.Timer(seconds, stop)
        clock.daemon = True
        clock.start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            request = {**options, "bytes": len(encapsulated), "limit": expected_bytes * _COPIES + SPARE_BYTES}
            with suppress(BrokenPipeError):  # it has ended; reading says how
                process.stdin.write(json.dumps(request).encode() + b"\n" + encapsulated)
                process.stdin.flush()
            answer = json.loads(process.stdout.readline() or b"{}")
            count = int(np.prod(answer.get("shape", ()))) * np.dtype(answer.get("dtype", "u1")).itemsize
            data = process.stdout.read(count) if "shape" in answer and count <= expected_bytes * 2 else b""
        finally:
            clock.cancel()
        if "error" in answer:
            raise DecoderError(answer["error"])
        if "shape" not in answer or len(data) < count:
            self.__exit__()
            raise DecoderError(
                f"the decoder took more than {seconds:.0f} s" if stopped.is_set() else "the decoder ended unexpectedly"
            )
        return np.frombuffer(bytearray(data), answer["dtype"]).reshape(answer["shape"])

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # The same modules as here, wherever they come from: a checkout, a packed bundle, a viewer's own folder.
            # Without -P, those that lie in the current folder, beside the images, would come first.
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        return self._process


def _decode(request: Mapping[str, Any], encapsulated: bytes) -> np.ndarray:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    options: Any = {name: value for name, value in request.items() if name not in ("syntax", "bytes", "limit")}
    decoder = get_decoder(UID(request["syntax"]))
    return decoder.as_array(encapsulated, raw=True, **{**options, "pixel_keyword": "PixelData"})[0]


def _limit_memory(limit: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    import psutil

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    bound = int(psutil.Process().memory_info().vms) + limit
    resource.setrlimit(resource.RLIMIT_AS, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the patient's image


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    while line := requests.readline():
        request = json.loads(line)
        encapsulated = requests.read(request["bytes"])
        _limit_memory(request["limit"])
        try:
            pixels = np.ascontiguousarray(_decode(request, encapsulated))
            answers.write(json.dumps({"shape": pixels.shape, "dtype": pixels.dtype.str}).encode() + b"\n")
            answers.write(pixels.tobytes())
        except Exception as error:  # whatever a decoder raises belongs to this file
            answers.write(json.dumps({"error": str(error) or type(error).__name__}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asked decides
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer
    _serve(sys.stdin.buffer, output)
