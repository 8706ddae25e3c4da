"""The server: MONAI Label's description of the app, and endpoints of our own behind the guard.

Of MONAI Label's endpoints only /info is taken. The others write outside of their folders, open any file of the machine,
replace weights, or wait for ever; what its clients call is answered here, by functions that run in threads, with the
work in processes of their own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fastapi import FastAPI
from labelling import compatibility, guard, rest_boxes, rest_images, rest_login  # noqa: F401  # compatibility before monailabel
from labelling.context import open_context
from monai_sr_bundle import __version__
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance
from starlette.concurrency import run_in_threadpool

ORIGINS = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
_loading = threading.Lock()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    if not hasattr(app.state, "context"):  # `monai-sr label` has opened it
        studies, conf = str(settings.MONAI_LABEL_STUDIES), settings.MONAI_LABEL_APP_CONF
        app.state.context = await run_in_threadpool(open_context, studies, conf)
    yield
    app.state.context.close()


app = FastAPI(
    title="Super-resolution with boxes of several readers",
    version=__version__,
    lifespan=_lifespan,
    docs_url=None,
    redoc_url=None,
)
guard.protect(app, store=lambda: app.state.context.store, origins=ORIGINS, open_paths=rest_login.OPEN)
app.include_router(rest_login.router)
app.include_router(rest_boxes.router)
app.include_router(rest_images.router)


@app.get("/info/", summary="What MONAI Label's clients ask first")
def get_info(user: rest_boxes.Sender) -> dict[str, Any]:
    # MONAI Label and PyTorch take seconds to import, which nothing but this needs in this process.
    with _loading:
        instance = app_instance()
    return instance.info()  # type: ignore[no-any-return]


@app.get("/", include_in_schema=False)
def get_root(user: rest_boxes.Sender) -> dict[str, str]:
    return {"name": app.title, "version": __version__, "reader": user.name, "role": user.role}
