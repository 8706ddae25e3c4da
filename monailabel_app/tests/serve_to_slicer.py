"""A server for the tests of Slicer's module, which run in another environment.

    python serve_to_slicer.py STUDIES STORE ada:reader eve:adjudicator ...

It prints one line of JSON, with the address and each reader's token, and ends when its stdin is closed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelling.access import add_token
from labelling.box_store import BoxStore
from labelling.context import STORE_FILE
from processes import Server


def main() -> None:
    studies, store, *readers = sys.argv[1:]
    boxes = BoxStore(Path(store, STORE_FILE))
    tokens = {name: add_token(boxes, name, role) for name, role in (entry.split(":") for entry in readers)}
    boxes.close()
    server = Server(studies, Path(store), bundles="chest_xray_edsr_x4").start()
    try:
        print(json.dumps({"url": server.url, "tokens": tokens}), flush=True)
        sys.stdin.read()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
