"""The checks that every request passes before it reaches an endpoint: host, origin, size and token."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monai_sr_bundle.boxes.box import BoxError
from monai_sr_bundle.errors import BundleError, InputError, OutOfMemoryError, OutputError, SuperResolutionError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from labelling.access import LOCAL, LOOPBACK, find_user, has_tokens
from labelling.box_store import BoxStore
from labelling.errors import RefusedError

logger = logging.getLogger(__name__)

LARGEST_BODY = 256 * 1024**2
"""Bytes of a request: an import of many boxes, or an image that is sent along."""
LONGEST_ERROR = 800
"""Characters of an error that is sent."""
_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (InputError, 400), (BundleError, 400), (OutputError, 507), (OutOfMemoryError, 503), (SuperResolutionError, 500),
)  # fmt: skip


protected_apps: list[FastAPI] = []
"""Apps of this process that `protect` was called for."""


class Guard:
    """Lets a request through with its user in `scope["user"]`, or answers 400, 401 or 403.

    Args:
        app: app that gets the requests that pass.
        store: returns the store with the tokens.
        origins: web pages that may send requests, as "https://viewer.example". Default: none but programs.
        open_paths: addresses that need no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        store: Callable[[], BoxStore],
        origins: Sequence[str] = (),
        open_paths: Sequence[str] = (),
    ) -> None:
        self._app, self._store = app, store
        self._origins, self._open_paths = frozenset(origins), frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        status, reason = await run_in_threadpool(self._check, scope)
        if status:
            headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            await JSONResponse({"error": reason}, status, headers)(scope, receive, send)
            return
        started = False

        async def send_on(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:  # here, because Starlette would log the message, and so perhaps a patient's name
            log_mistake(error)
            if not started:
                answer = {"error": f"a mistake of this server ({type(error).__name__}). Its log says where."}
                await JSONResponse(answer, 500)(scope, receive, send)

    def _check(self, scope: Scope) -> tuple[int, str]:
        headers = Headers(scope=scope)
        # A page in a browser on this machine could send requests here; its browser says where it comes from.
        if headers.get("origin") and headers["origin"] not in self._origins:
            return 403, "requests of web pages are not answered."
        if scope["path"] in self._open_paths:
            return 0, ""
        token = headers.get("authorization", "").partition(" ")
        if token[0].casefold() == "bearer" and token[2]:
            user = find_user(self._store(), token[2].strip())
            if user is None:
                return 401, "the token is not known. Ask the admin of this server for one."
            scope["user"] = user
            return 0, ""
        if has_tokens(self._store()):
            return 401, "this server asks for a token: Authorization: Bearer TOKEN."
        client = (scope.get("client") or ("",))[0]
        host = re.sub(r":\d+$", "", headers.get("host", "")).strip("[]")
        if client not in LOOPBACK or host not in LOOPBACK:
            return 401, "without tokens this server answers its own machine alone. Make tokens for the readers first."
        scope["user"] = LOCAL
        return 0, ""


def protect(
    app: FastAPI, store: Callable[[], BoxStore], origins: Sequence[str] = (), open_paths: Sequence[str] = ()
) -> None:
    """Put the guard and the limit of the body before an app, and sentences in the place of its errors."""
    protected_apps.append(app)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=LARGEST_BODY)
    app.add_middleware(Guard, store=store, origins=origins, open_paths=open_paths)
    if origins:  # before the guard: what a browser asks first has no token
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Content-Disposition", "X-Notes"],
        )

    @app.exception_handler(RefusedError)
    async def _refused(request: Request, error: RefusedError) -> JSONResponse:
        return _answer(str(error), error.status)

    @app.exception_handler(BoxError)
    async def _wrong_box(request: Request, error: BoxError) -> JSONResponse:
        return _answer(str(error), 400)

    @app.exception_handler(UnicodeEncodeError)
    async def _half_a_character(request: Request, error: UnicodeEncodeError) -> JSONResponse:
        return _answer("a text of the request holds half of a character, a lone surrogate. Send it as UTF-8.", 400)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
        return _answer(problems, 400)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        return _answer(str(error.detail), error.status_code)

    @app.exception_handler(SuperResolutionError)
    async def _explained(request: Request, error: SuperResolutionError) -> JSONResponse:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return _answer(without_paths(str(error)), status)


def _answer(message: str, status: int) -> JSONResponse:
    """Return an error as JSON; a message that repeats a long value of the request loses its middle."""
    text = message.encode("utf-8", "backslashreplace").decode()
    half = LONGEST_ERROR // 2
    return JSONResponse({"error": text if len(text) <= LONGEST_ERROR else f"{text[:half]}...{text[-half:]}"}, status)


def without_paths(text: str) -> str:
    """Return a message without the folders of this machine."""
    return re.sub(r"(?:[A-Za-z]:)?(?:[/\\][^\s/\\:;,'\"]+)*[/\\](?=[^\s/\\:;,'\"])", "", text)


def log_mistake(error: BaseException) -> None:
    """Log where an error happened, without its message, which may repeat a patient's name."""
    frames = traceback.extract_tb(error.__traceback__)
    location = "; ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-6:])
    logger.error("%s in %s", type(error).__name__, location)


def as_json(text: str, what: str) -> Any:
    """Parse the JSON of a form field.

    Raises:
        RefusedError: no JSON object.
    """
    try:
        content = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{what} is no JSON. Send an object, or leave it out.") from error
    if not isinstance(content, dict):
        raise RefusedError(f"{what} is {type(content).__name__}, expected a JSON object.")
    return content
