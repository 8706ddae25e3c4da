"""Client of the labelling server `monai-sr label`: sends and fetches the boxes of a reader over HTTP.

Only the standard library is imported, neither Qt nor Slicer. An image is found by its content: the SOP Instance UID of
a DICOM file, or SHA-256 and size of any other. No name of a file, a volume or a patient is sent.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from SuperResolutionLib.box import BoxError
from SuperResolutionLib.errors import InputError, _
from SuperResolutionLib.readings import Reading, format_readings, parse_readings

ADDRESS = "http://127.0.0.1:8000"  # address of a server on this machine, as `monai-sr label` starts it
CONSENSUS = "consensus"  # reader of what all readers agree on; an adjudicator decides on it
TIMEOUT = 120.0  # seconds without an answer; a server reads a large folder for the first time
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class LabelClient:
    """Requests to one server, "http://host:port" or "https://host", as the user of a token; empty if it has none.

    A token is sent to other machines over https alone.
    """

    def __init__(self, address: str = ADDRESS, token: str = "") -> None:
        address, self._token = address.strip().rstrip("/"), token.strip()
        try:
            parts = urlsplit(address)
            host, _port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https") or parts.username or parts.query or parts.fragment:
            message = _("The address of the server is '{address}', expected one such as {example}.")
            raise InputError(message, address=address, example=ADDRESS)
        if any(character <= " " or character > "~" for character in self._token):
            raise InputError(_("The token holds blanks or other characters that no token has. Copy it again."))
        isLocal = host in _LOOPBACK
        if self._token and parts.scheme == "http" and not isLocal:
            raise InputError(_("The token would cross the network unencrypted, and was not sent. Use the https address "
                               "of the server."))  # fmt: skip
        self.address = address
        # A proxy of the system is none for a server on this machine.
        proxies = [urllib.request.ProxyHandler({})] if isLocal else []
        self._opener = urllib.request.build_opener(_EveryAnswer, *proxies)

    def user(self) -> tuple[str, str]:
        """Return name and role ("reader", "adjudicator", "admin") of whoever the token belongs to."""
        answer = self._request("/", {}, ("reader", "role"))
        return str(answer["reader"]), str(answer["role"])

    def find(self, instance: str = "", file: str = "") -> dict[str, Any]:
        """Return name and size of an image on the server: of a SOP Instance UID of it, or of a copy of its file.

        "left_handed" says whether its axes are left-handed; of DICOM it is False.
        """
        query = {"sop_instance_uid": instance}
        if not instance:
            try:
                with open(file, "rb") as content:
                    query = {"sha256": hashlib.file_digest(content, "sha256").hexdigest(), "size": str(content.tell())}
            except OSError as error:
                message = _("The file of the volume cannot be read ({reason}). The server finds the image by its file: "
                            "load the volume again.")  # fmt: skip
                raise InputError(message, reason=error.strerror) from error
        return self._request(
            "/datastore/image/find", query, ("id", "sha256", "columns", "rows", "slices", "left_handed")
        )

    def newest(self, image: str, reader: str) -> tuple[int, Reading | None]:
        """Return number and content of the newest version of a reader's boxes, a draft or a submitted one.

        The number is 0 if there is none; the content is None if there is none, or none whose content was kept and was
        drawn on the files that the image has now.
        """
        answer = self._request(f"/boxes/{quote(image, safe='')}/history", {"reader": reader}, ("versions",))
        number, reading = 0, None
        try:
            for version in answer["versions"]:
                number = max(number, int(version["number"]))
                if not (version.get("deleted") or version.get("other_image")):
                    document = {"schema": version["schema"], "readings": version["readings"]}
                    (reading,) = parse_readings(json.dumps(document))
        except (KeyError, TypeError, ValueError) as error:
            message = _("The server's boxes cannot be read ({error}). Is it another version?")
            raise InputError(message, error=error) from error
        return number, reading

    def save(self, reading: Reading, basedOn: int) -> int:
        """Save a reading as the next version of its reader, and return its number.

        `image.id` is the name of the image on the server. `basedOn` is the newest version that the sender has seen, or
        0: if the server has a newer one, nothing is saved. Sent twice, as after a lost answer, it is one version.
        """
        path = f"/boxes/{quote(reading.image.id, safe='')}" + "/adjudication" * (reading.reader.id == CONSENSUS)
        try:
            body = format_readings([reading]).encode()
        except BoxError as error:
            raise InputError(_("The boxes cannot be sent: {error} Correct the box."), error=error) from error
        return int(self._request(path, {"based_on": str(basedOn)}, ("number",), body)["number"])

    def _request(self, path: str, query: dict[str, str], fields: Sequence[str], body: bytes | None = None) -> dict:
        """Send a request, with JSON as its body if it saves something, and return these fields of the answer."""
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        url, method = f"{self.address}{path}?{urlencode(query)}", "PUT" if body else "GET"
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                status, content = response.status, response.read()
        except (OSError, HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            text = _("{address} does not answer ({detail}). Check the address and the token, and that the server runs.")
            if isinstance(cause, ConnectionRefusedError):
                text = _("No server runs at {address}. Start it there with `monai-sr label`, or correct the address.")
            elif body is not None:
                text += " " + _("The boxes may have been saved: send them again, the same ones are saved once.")
            detail = getattr(cause, "strerror", None) or type(cause).__name__
            raise InputError(text, address=self.address, detail=detail) from error
        try:
            answer = json.loads(content)
            if status == 200:
                return {field: answer[field] for field in fields}
            reason = str(answer["error"])
        except (ValueError, LookupError, TypeError) as error:
            message = _("{address} answered {status}, and is no server of `monai-sr label`.")
            raise InputError(message, address=self.address, status=status) from error
        messages = {
            404: _("The server does not have this image: {reason} It must have the very file that is loaded here."),
            409: _("The server has a newer version of these boxes, which was sent from elsewhere and not fetched here. "
                   "Nothing was sent. Press Fetch boxes to see them."),
        }  # fmt: skip
        reason = reason[:1].upper() + reason[1:]
        raise InputError(messages.get(status, _("The server refuses the request: {reason}")), reason=reason)


class _EveryAnswer(urllib.request.HTTPErrorProcessor):
    """Returns every answer as it is: a refusal has a reason in it, and a redirection would take the token elsewhere."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response
