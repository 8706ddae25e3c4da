"""`python -m monai_sr_bundle.worker`: requests on stdin, events on stdout, one JSON object a line, until told to quit.

A viewer starts it once and keeps it, with the bundles it has loaded, so that a region takes no longer than the network.
stderr is for people and names no file and no patient. One request is worked on at a time, in the order they came. To
cancel one, end the process (SIGTERM) and start another: no network can be stopped from within. docs/worker.md lists
requests and events.

Exit codes: 0 told to quit, or the viewer has gone; 1 it could not begin; 130 interrupted (143 by SIGTERM).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from monai_sr_bundle import __version__, _compat
from monai_sr_bundle.worker.messages import PROTOCOL, Events

if TYPE_CHECKING:
    from monai_sr_bundle.worker.server import Worker


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception so that half-written files are removed on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one viewer and return the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    # What is started in the background is told to ignore it; a viewer's process ends with its viewer's terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Before anything is imported that may print: what others write to file descriptor 1 goes to stderr.
    events = Events(os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n"))
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    logging.basicConfig(format="monai-sr worker: %(message)s", level=logging.WARNING)
    worker: Worker | None = None
    try:
        worker = _begun(options, events)
        return worker.serve(sys.stdin.buffer) if worker else 1
    except KeyboardInterrupt as end:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ended, number = ("stopped", signal.SIGTERM) if isinstance(end, _Terminated) else ("interrupted", signal.SIGINT)
        if worker:
            worker.tell_end(ended)
        return 128 + number
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monai_sr_bundle.worker", description="The process behind a viewer; see docs/worker.md."
    )
    parser.add_argument(
        "--backend", choices=("auto", "torch", "onnx"), default="auto", help="auto: PyTorch where installed"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one"
    )
    return parser


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated


def _begun(options: argparse.Namespace, events: Events) -> Worker | None:
    """The worker, with all that it needs imported; None after it was told what is missing."""
    _compat.quiet_openmp()
    try:
        from monai_sr_bundle.worker.server import Worker
    except ImportError as error:
        what = error.name or str(error)
        events.fail(None, "installation", f"{what} cannot be loaded. Install monai-sr-bundle again.")
        return None
    _compat.return_large_buffers()
    worker = Worker(events, options.backend, options.device)
    events.tell("ready", version=__version__, protocol=PROTOCOL, backend=worker.backend, pid=os.getpid())
    return worker


if __name__ == "__main__":
    sys.exit(main())
