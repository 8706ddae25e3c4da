"""Waiting for threads and other processes in tests, for what they do, however busy the machine is."""

import time

PATIENCE = 600.0  # seconds after which a test gives up; only what hangs takes as long


def waitFor(condition, step=lambda: None, what="it"):
    """Call `step`, as a timer would, until a condition holds, and return what it gave.

    `what` is waited for, in words for the message, or a function that gives them.
    """
    limit = time.monotonic() + PATIENCE
    while True:
        step()
        if value := condition():
            return value
        assert time.monotonic() < limit, f"{what() if callable(what) else what} did not happen within {PATIENCE:g} s"
        time.sleep(0.002)
