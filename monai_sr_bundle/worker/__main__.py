"""`python -m monai_sr_bundle.worker`: requests on stdin, events on stdout, one JSON object a line, until `quit`.

A viewer starts it once and keeps it, with the bundles it has loaded, so that a region takes no longer than the network.
stderr is for people and names no file and no patient. Requests are answered one at a time, in order. To cancel one, end
the process (SIGTERM) and start another: a forward pass cannot be interrupted. docs/worker.md lists requests and events.

Exit codes: 0 after `quit`, or if the viewer has gone; 1 if it cannot start; 130 interrupted (143 by SIGTERM).
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from monai_sr_bundle import __version__, _compat
from monai_sr_bundle.cli.exit_codes import Terminated, raise_terminated
from monai_sr_bundle.cli.options import add_runtime_options
from monai_sr_bundle.worker.messages import PROTOCOL, Events

if TYPE_CHECKING:
    from monai_sr_bundle.worker.server import Worker


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one viewer and return the exit code."""
    options = _build_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, raise_terminated)
    # A shell makes background processes ignore SIGINT; a viewer's process ends with its viewer's terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Before any import that may print: file descriptor 1 of other code is stderr.
    events = Events(os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n"))
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    logging.basicConfig(format="monai-sr worker: %(message)s", level=logging.WARNING)
    worker: Worker | None = None
    try:
        worker = _start_worker(options, events)
        return worker.serve(sys.stdin.buffer) if worker else 1
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        terminated = isinstance(error, Terminated)
        reason, number = ("stopped", signal.SIGTERM) if terminated else ("interrupted", signal.SIGINT)
        if worker:
            worker.report_end(reason)
        return 128 + number
    except BrokenPipeError:
        return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m monai_sr_bundle.worker", description="The process behind a viewer; see docs/worker.md."
    )
    add_runtime_options(parser)
    return parser


def _start_worker(options: argparse.Namespace, events: Events) -> Worker | None:
    """Import what the worker needs and start it; report a missing package and return None."""
    _compat.quiet_openmp()
    try:
        from monai_sr_bundle.worker.server import Worker
    except ImportError as error:
        package = error.name or str(error)
        events.fail(None, "installation", f"{package} cannot be loaded. Install monai-sr-bundle again.")
        return None
    _compat.return_large_buffers()
    worker = Worker(events, options.backend, options.device)
    events.write("ready", version=__version__, protocol=PROTOCOL, backend=worker.backend, pid=os.getpid())
    return worker


if __name__ == "__main__":
    sys.exit(main())
