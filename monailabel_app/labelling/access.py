"""Who may do what: access tokens with a role, of which the store keeps only the SHA-256."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from labelling.box_store import CONSENSUS, BoxStore
from labelling.catalogue import NAME
from labelling.errors import ForbiddenError, RefusedError

ROLES = ("reader", "adjudicator", "admin")
"""Roles from the least to the most; each may do what those before it may."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_KIND = "token"


@dataclass(frozen=True)
class User:
    """The sender of a request.

    Attributes:
        name: reader that the token belongs to; "local" for a program on this machine where there are no tokens.
        role: one of `ROLES`.
    """

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Return whether the user has a role, or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def require(self, role: str) -> None:
        """Refuse a user without a role.

        Raises:
            ForbiddenError: the user's role is lower.
        """
        if not self.may(role):
            raise ForbiddenError(f"this needs the role {role}; the token has the role {self.role}.")

    def require_reader(self, reader: str) -> None:
        """Refuse a user who writes for another reader.

        Raises:
            ForbiddenError: another reader, and the user is no admin.
        """
        if reader != self.name and not self.may("admin"):
            raise ForbiddenError("reader.id is not the reader of the token, and only an admin may write for others.")


LOCAL = User("local", "admin")
"""The one user of a server without tokens, which answers this machine alone."""


def add_token(store: BoxStore, reader: str, role: str) -> str:
    """Make a token for a reader, and return it. It is shown once: the store keeps its hash.

    Raises:
        RefusedError: a name that is not safe or is taken by the server, or an unknown role.
    """
    if not re.fullmatch(NAME, reader) or reader in (CONSENSUS, LOCAL.name):
        raise RefusedError(
            f"{reader!r} cannot be the name of a reader: 1 to 128 letters, digits, dots, dashes and underscores, and "
            f"not {CONSENSUS} or {LOCAL.name}."
        )
    if role not in ROLES:
        raise RefusedError(f"{role!r} is no role, expected one of {', '.join(ROLES)}.")
    token = secrets.token_urlsafe(32)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    store.set_record(_KIND, _hash(token), {"reader": reader, "role": role, "made": created})
    store.note("token", actor=LOCAL.name, reason=f"{role} {reader}")
    return token


def revoke_tokens(store: BoxStore, reader: str) -> int:
    """Revoke all tokens of a reader, and return how many there were."""
    tokens = store.records(_KIND).items()
    valid = {key: content for key, content in tokens if content["reader"] == reader and "revoked" not in content}
    for key, content in valid.items():
        store.set_record(_KIND, key, {**content, "revoked": datetime.now(UTC).isoformat(timespec="seconds")})
    if valid:
        store.note("revoke", actor=LOCAL.name, reason=reader)
    return len(valid)


def has_tokens(store: BoxStore) -> bool:
    """Return whether the server asks for a token: once there was one, always, so that no revocation lets all in."""
    return bool(store.records(_KIND))


def find_user(store: BoxStore, token: str) -> User | None:
    """Return the user of a token; None for an unknown one."""
    # The hash is looked up, so that the time it takes says nothing about the tokens that there are.
    content = store.record(_KIND, _hash(token))
    return User(content["reader"], content["role"]) if content and "revoked" not in content else None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
