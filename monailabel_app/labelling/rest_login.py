"""REST: the log-in of MONAI Label's clients, such as its module in Slicer. The password is the reader's token."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form

from labelling.access import find_user, has_tokens
from labelling.errors import UnauthorisedError
from labelling.rest_boxes import Sender, Server

OPEN = ("/auth/", "/auth/token")
"""Addresses that need no token."""

router = APIRouter(tags=["Log-in"])


@router.get("/auth/", summary="Whether this server asks for a token")
def get_auth(context: Server) -> dict[str, bool]:
    return {"enabled": has_tokens(context.store)}


@router.post("/auth/token", summary="Log in with the name of a reader and the token as the password")
def post_token(
    context: Server,
    username: Annotated[str, Form(max_length=128)],
    password: Annotated[str, Form(max_length=256)],
) -> dict[str, str]:
    user = find_user(context.store, password)
    if user is None or user.name != username:
        raise UnauthorisedError("the token is not one of this reader. Ask the admin of this server.")
    return {"access_token": password, "token_type": "bearer"}


@router.get("/auth/token/valid", summary="Who one is")
def get_valid(user: Sender) -> dict[str, Any]:
    return {"username": user.name, "roles": [user.role]}
