"""Errors of the server, one class for each HTTP status. The messages go to the client: no paths, no patient data."""

from __future__ import annotations


class RefusedError(Exception):
    """A request that is refused; `status` is the HTTP status."""

    status = 400


class NotFoundError(RefusedError):
    """An image, a version, a bundle or a job that does not exist."""

    status = 404


class ConflictError(RefusedError):
    """A request that is about another state than the present one."""

    status = 409


class UnauthorisedError(RefusedError):
    """A token or a name that is not known."""

    status = 401


class ForbiddenError(RefusedError):
    """A request that the role of the user does not allow."""

    status = 403


class ServerError(RefusedError):
    """A mistake of this server, which the client cannot mend."""

    status = 500


class PacsError(RefusedError):
    """A PACS that does not answer, or answers with an error."""

    status = 502


class BusyError(RefusedError):
    """More requests than can be answered."""

    status = 503


class StoppedError(RefusedError):
    """A request to a server that is being stopped."""

    status = 503


class StorageError(RefusedError):
    """A disk that is full or cannot be written."""

    status = 507
