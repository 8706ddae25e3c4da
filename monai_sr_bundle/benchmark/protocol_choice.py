"""The choice of protocols and methods that a benchmark measures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from monai_sr_bundle.benchmark.film_protocol import FilmProtocol, read_film_protocol
from monai_sr_bundle.benchmark.protocol import Protocol, protocol_names, read_protocol, read_text
from monai_sr_bundle.errors import InputError

AnyProtocol = Protocol | FilmProtocol


def read_any_protocol(name_or_path: str | Path) -> AnyProtocol:
    """Read a protocol of one degradation, or of real conditions if its text has the key `losses`.

    Raises:
        InputError: see `read_protocol` and `read_film_protocol`.
    """
    _, content = read_text(name_or_path)
    has_losses = isinstance(content, dict) and "losses" in content
    return read_film_protocol(name_or_path) if has_losses else read_protocol(name_or_path)


def choose_protocols(
    names: Iterable[str] | None = None, methods: Iterable[str] | None = None, *, trust: bool = False
) -> list[AnyProtocol]:
    """Read protocols and keep some of their methods.

    Args:
        names: names or paths of the protocols. Default: all shipped ones that measure trust, or all others but those of
            speed.
        methods: methods to keep in the protocols that have them; a protocol without any is left out. Default: all.
        trust: whether the shipped protocols are those that measure trust.

    Raises:
        InputError: see `read_any_protocol`; or no protocol has a method, or only the reference is left.
    """
    if names is None:
        shipped = map(read_any_protocol, protocol_names())
        protocols = [each for each in shipped if each.trust == trust and not getattr(each, "speed", False)]
    else:
        protocols = [read_any_protocol(name) for name in names]
    if methods is None:
        return protocols
    requested = set(methods)
    available = [{name for row in protocol.rows for name in (row.method, row.key)} for protocol in protocols]
    unknown = requested.difference(*available)
    if unknown:
        raise InputError(
            f"no protocol asked for has {', '.join(sorted(unknown))}; there is "
            f"{', '.join(sorted(set().union(*available)))}."
        )
    chosen = [
        protocol.only(requested & names)
        for protocol, names in zip(protocols, available, strict=True)
        if requested & names - {protocol.reference}
    ]
    if not chosen:
        raise InputError(f"of the methods {', '.join(sorted(requested))} only the reference is left. Name another one.")
    return chosen
