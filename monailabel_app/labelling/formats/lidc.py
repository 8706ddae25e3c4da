"""LIDC-IDRI: the XML files of its readings, in only. https://doi.org/10.1118/1.3528204

An outline runs over the first pixels outside a nodule, so the box is what lies inside of it. Nodules below 3 mm are a
point, and marks of other kinds are no findings: both are listed, and left out.
"""

from __future__ import annotations

from xml.etree import ElementTree

from monai_sr_bundle.boxes.box import Box, BoxError
from monai_sr_bundle.boxes.codes import public_codes

from labelling.formats.slices import Collector, ImageNames, ImportedReadings


def read(content: bytes, names: ImageNames, default_reader: str) -> ImportedReadings:
    """Read the readings of one scan; the sessions are the readers "DEFAULT-1" and so on, as LIDC names none.

    Raises:
        BoxError: no such XML, or a box that does not lie in its image.
    """
    try:
        root = ElementTree.fromstring(content, ElementTree.XMLParser(target=_Builder()))
    except BoxError:
        raise
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the last two of encodings
        raise BoxError(f"it is no XML ({error}). Copy the file again.") from error
    sessions = [each for each in root.iter() if _tag(each) == "readingSession"]
    if not sessions:
        raise BoxError("it has no readingSession, expected the XML of a scan of LIDC-IDRI.")
    collector = Collector(names, default_reader)
    points = others = 0
    for number, session in enumerate(sessions, start=1):
        reader = f"{default_reader}-{number}"
        for element in session:
            if _tag(element) == "nonNodule":
                others += 1
            if _tag(element) != "unblindedReadNodule":
                continue
            outlines = [each for each in element if _tag(each) == "roi" and _text(each, "inclusion").upper() != "FALSE"]
            for outline in outlines:
                edge = [each for each in outline if _tag(each) == "edgeMap"]
                try:
                    x = [float(int(_text(each, "xCoord"))) for each in edge]
                    y = [float(int(_text(each, "yCoord"))) for each in edge]
                except (ValueError, OverflowError) as error:
                    raise BoxError(f"readingSession {number}: an edgeMap without two whole numbers.") from error
                if len(edge) < 2 or max(x) - min(x) < 2 or max(y) - min(y) < 2:
                    points += 1
                    continue
                box = Box("Nodule", min(x) + 1, min(y) + 1, max(x), max(y), codes=public_codes("Nodule"))
                collector.add(_text(outline, "imageSOP_UID"), box, reader, f"readingSession {number}")
    if points:
        collector.imported.notes.append(f"{points} nodules that are marked by a point have no box, and are left out.")
    if others:
        collector.imported.notes.append(f"{others} marks that are no nodules are left out.")
    return collector.finish()


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, in any encoding, before the entities that it declares are read."""

    def doctype(self, name: str, pubid: str, system: str) -> None:
        raise BoxError("the XML declares a document type or entities, which are not read. Take them out.")


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: ElementTree.Element, name: str) -> str:
    return next(((each.text or "").strip() for each in element if _tag(each) == name), "")
