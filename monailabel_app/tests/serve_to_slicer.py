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

from processes import Server


def main() -> None:
    studies, store, *readers = sys.argv[1:]
    server = Server(
        studies, Path(store), bundles="chest_xray_edsr_x4", readers=dict(entry.split(":") for entry in readers)
    ).start()
    try:
        print(json.dumps({"url": server.url, "tokens": server.tokens}), flush=True)
        sys.stdin.read()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
