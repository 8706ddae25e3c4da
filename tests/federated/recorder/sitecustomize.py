"""Python imports this in every process whose PYTHONPATH has this folder: it writes down what NVFlare sends, before TLS.

One file for each process in the folder FRAMES: pickled tuples ``("frame", sender, headers, bytes)`` for all that goes
over a connection, and ``("answer", sender, content)`` for what a site answers to a task, after its filters.
"""

import os
import pickle
import threading

FOLDER = os.environ.get("FRAMES")
_lock = threading.Lock()


def write(*entry):
    with _lock, open(os.path.join(FOLDER, f"{os.getpid()}.pickle"), "ab") as file:
        pickle.dump(entry, file)


def describe(value):
    """Return names, types and shapes of a message's content, and every text and number in it."""
    if isinstance(value, dict):
        return {str(key): describe(each) for key, each in value.items()}
    if hasattr(value, "dtype"):
        return (str(value.dtype), tuple(value.shape))
    if isinstance(value, list | tuple):
        return [describe(each) for each in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else type(value).__name__


def watch():
    from nvflare.fuel.f3.sfm.sfm_conn import SfmConnection
    from nvflare.private.fed.client.communicator import Communicator

    send_frame, submit_update = SfmConnection.send_frame, Communicator.submit_update

    def record_frame(self, prefix, headers, payload):
        write("frame", self.local_endpoint.name, dict(headers or {}), bytes(payload or b""))
        return send_frame(self, prefix, headers, payload)

    def record_answer(self, *arguments, **named):
        from nvflare.apis.shareable import Shareable

        for value in (*arguments, *named.values()):
            if isinstance(value, Shareable):
                write("answer", str(self.cell.core_cell.my_info.fqcn), describe(value))
        return submit_update(self, *arguments, **named)

    SfmConnection.send_frame, Communicator.submit_update = record_frame, record_answer


if FOLDER:
    watch()
