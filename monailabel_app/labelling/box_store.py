"""Readings in a SQLite file: every version is kept, and an audit log says who wrote what.

A version is never changed. What a reader sends is a new version with the next number; on request the content of a
version is deleted, and its row stays as a tombstone. The audit log is a hash chain: each row holds the SHA-256 of the
row before it, so a row that is changed or taken out is noticed. Triggers refuse both inside SQLite.

SQLAlchemy Core is the library: it is kept, MONAI's own experiment tracking rests on it, and its pool gives each thread
of the server a connection of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_sr_bundle.boxes.readings import Reading, format_readings, parse_readings
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.schema import CreateTable

from labelling.errors import ConflictError, NotFoundError, RefusedError, ServerError, StorageError

CONSENSUS = "consensus"
"""Reader of the consensus: a draft where it was computed, a submitted version where an adjudicator has decided."""
FIRST_HASH = "0" * 64
"""Hash that stands before the first row of the audit log."""
LONGEST_WAIT_SECONDS = 30

_metadata = MetaData()
_versions = Table(
    "versions",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("image", Text, nullable=False, index=True),
    Column("reader", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("written", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("document", Text),
    UniqueConstraint("image", "reader", "number"),
)
_audit = Table(
    "audit",
    _metadata,
    Column("sequence", Integer, primary_key=True),
    Column("written", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("reader", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("content_sha256", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
)
records = Table(
    "records",
    _metadata,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("written", Text, nullable=False),
    Column("content", Text, nullable=False),
)
"""Small JSON documents of the server: access tokens, the queue, jobs, promoted weights, widths of error bars."""

_TRIGGERS = (
    "CREATE TRIGGER IF NOT EXISTS audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "CREATE TRIGGER IF NOT EXISTS audit_is_fixed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "CREATE TRIGGER IF NOT EXISTS versions_are_kept BEFORE DELETE ON versions "
    "BEGIN SELECT RAISE(ABORT, 'append only'); END",
    # A tombstone: all that may change is that the content goes.
    "CREATE TRIGGER IF NOT EXISTS versions_are_fixed BEFORE UPDATE ON versions WHEN NEW.document IS NOT NULL "
    "OR NEW.image <> OLD.image OR NEW.reader <> OLD.reader OR NEW.number <> OLD.number OR NEW.status <> OLD.status "
    "OR NEW.sha256 <> OLD.sha256 OR NEW.actor <> OLD.actor OR NEW.written <> OLD.written "
    "BEGIN SELECT RAISE(ABORT, 'append only'); END",
)


@dataclass(frozen=True)
class Version:
    """One version of what a reader says about an image.

    Attributes:
        image: identifier of the image on this server.
        reader: identifier of the reader.
        number: from 1, without gaps.
        status: "draft" or "submitted".
        written: when the server wrote it, by RFC 3339.
        actor: the user who sent it: the reader, or whoever imported it.
        sha256: SHA-256 of the JSON document.
        reading: the content; None where it was deleted on request.
    """

    image: str
    reader: str
    number: int
    status: str
    written: str
    actor: str
    sha256: str
    reading: Reading | None

    def as_dict(self) -> dict[str, Any]:
        """Return the version as JSON, with the document under `readings`, or `deleted`."""
        fields = {name: getattr(self, name) for name in ("image", "reader", "number", "status", "written", "actor")}
        if self.reading is None:
            return {**fields, "sha256": self.sha256, "deleted": True}
        return {**fields, "sha256": self.sha256, **json.loads(format_readings([self.reading]))}


class BoxStore:
    """The readings of a server, in one SQLite file.

    Args:
        file: the database; made if it does not exist.

    Raises:
        StorageError: the folder cannot be made, or the file cannot be written.
        ServerError: the file is no database of this program.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._writer = threading.Lock()
        make_folder(file.parent)
        _create_private(file)
        self._engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": LONGEST_WAIT_SECONDS})
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        with self.write() as connection:
            for table in (_versions, _audit, records):
                connection.execute(CreateTable(table, if_not_exists=True))
            for index in _versions.indexes:
                index.create(connection, checkfirst=True)
            for trigger in _TRIGGERS:
                connection.exec_driver_sql(trigger)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # Readings

    def save(self, reading: Reading, *, actor: str, based_on: int | None) -> Version:
        """Save a reading as the reader's next version of its image.

        Args:
            reading: checked reading; `image.id` and `reader.id` name the place.
            actor: the user who sends it.
            based_on: number of the version that the user has seen last, 0 for none; None to follow whatever is there,
                for programs that cannot know it.

        Returns:
            The version. The same content sent once more, as after a lost answer, is the version that it already is.

        Raises:
            ConflictError: a newer version is there than the one that the user has seen.
            StorageError: the disk is full, or cannot be written; nothing was saved.
        """
        with self.write() as connection:
            return self._save(
                connection, reading, actor, based_on, "submit" if reading.status == "submitted" else "draft"
            )

    def save_imported(self, readings: Sequence[Reading], *, actor: str) -> list[Version]:
        """Save the readings of a file, all or none, each as by `save` of a program that cannot know the version.

        Raises:
            StorageError: the disk is full, or cannot be written; nothing was saved.
        """
        with self.write() as connection:
            return [self._save(connection, reading, actor, None, "import") for reading in readings]

    def _save(self, connection: Connection, reading: Reading, actor: str, based_on: int | None, action: str) -> Version:
        if not reading.reader.id:
            raise RefusedError("reader.id is empty, expected who has read the image.")
        document = format_readings([reading])
        sha256 = _sha256(document)
        image, reader = reading.image.id, reading.reader.id
        latest = self._latest_row(connection, image, reader)
        number = latest.number if latest else 0
        is_same = latest is not None and latest.document is not None and latest.sha256 == sha256
        if latest is not None and is_same and based_on in (None, number - 1, number):
            return _to_version(latest)
        if based_on is not None and based_on != number:
            raise ConflictError(
                f"version {number} of this reader is there, and the request follows version {based_on}. Fetch it, "
                f"and send yours again with based_on={number}."
            )
        values = {
            "image": image, "reader": reader, "number": number + 1, "status": reading.status, "written": _now(),
            "actor": actor, "sha256": sha256, "document": document,
        }  # fmt: skip
        connection.execute(insert(_versions).values(values))
        self._append(connection, actor, action, image, reader, number + 1, sha256)
        return _to_version(self._latest_row(connection, image, reader))

    def current(self, image: str) -> list[Version]:
        """Return the submitted version of every reader of an image, and the draft where it is newer.

        Versions whose content was deleted are left out.
        """
        versions: list[Version] = []
        of_reader: dict[str, list[Version]] = {}
        for version in self.history(image):
            of_reader.setdefault(version.reader, []).append(version)
        for history in of_reader.values():
            undeleted = [version for version in history if version.reading is not None]
            submitted = [version for version in undeleted if version.status == "submitted"][-1:]
            drafts = [version for version in undeleted if version.status == "draft"][-1:]
            versions += submitted
            versions += [draft for draft in drafts if not submitted or draft.number > submitted[0].number]
        return versions

    def submitted(self, image: str) -> list[Version]:
        """Return the submitted versions of the readers of an image, without the consensus."""
        return [each for each in self.current(image) if each.status == "submitted" and each.reader != CONSENSUS]

    def history(self, image: str, reader: str | None = None) -> list[Version]:
        """Return all versions of an image, by reader and number."""
        query = select(_versions).where(_versions.c.image == image)
        if reader is not None:
            query = query.where(_versions.c.reader == reader)
        with self._read() as connection:
            return [_to_version(row) for row in connection.execute(query.order_by(*_versions.c["reader", "number"]))]

    def images(self) -> dict[str, dict[str, int]]:
        """Return the readers of every image that has been read, with the number of their newest submitted version."""
        query = (
            select(_versions.c.image, _versions.c.reader, func.max(_versions.c.number))
            .where(_versions.c.status == "submitted", _versions.c.document.is_not(None))
            .group_by(_versions.c.image, _versions.c.reader)
        )
        readers: dict[str, dict[str, int]] = {}
        with self._read() as connection:
            for image, reader, number in connection.execute(query):
                readers.setdefault(image, {})[reader] = number
        return readers

    def delete(self, image: str, reader: str, number: int, *, actor: str, reason: str) -> Version:
        """Delete the content of a version on request. A tombstone stays: that it was there, its hash, who, when, why.

        Raises:
            NotFoundError: no such version.
            RefusedError: no reason.
        """
        if not reason.strip():
            raise RefusedError("a deletion needs a reason, which stays in the audit log.")
        with self.write() as connection:
            conditions = (_versions.c.image == image, _versions.c.reader == reader, _versions.c.number == number)
            row = connection.execute(select(_versions).where(*conditions)).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no version {number} of this reader.")
            if row.document is not None:
                connection.execute(update(_versions).where(*conditions).values(document=None))
                self._append(connection, actor, "delete", image, reader, number, row.sha256, reason.strip())
            row = connection.execute(select(_versions).where(*conditions)).one()
        with self._engine.connect() as connection:  # the old pages of the write-ahead log hold it, too
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return _to_version(row)

    # The audit log

    def note(self, action: str, *, actor: str, reason: str = "", image: str = "", content: str = "") -> None:
        """Append a row to the audit log for something that is no version, such as a promotion of weights."""
        with self.write() as connection:
            self._append(connection, actor, action, image, "", 0, content, reason)

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit log, oldest row first."""
        with self._read() as connection:
            return [dict(row._mapping) for row in connection.execute(select(_audit).order_by(_audit.c.sequence))]

    def verify(self) -> list[str]:
        """Return what is wrong with the audit log or the versions, one sentence each; nothing where all is well."""
        problems: list[str] = []
        previous, written, deleted = FIRST_HASH, {}, set()
        for number, row in enumerate(self.audit(), start=1):
            if row["sequence"] != number:
                problems.append(f"row {number} of the audit log is missing.")
                break
            if row["previous"] != previous or row["hash"] != _row_hash(row):
                problems.append(f"row {number} of the audit log was changed.")
                break
            previous = row["hash"]
            key = row["image"], row["reader"], row["number"]
            if row["action"] == "delete":
                deleted.add(key)
            elif row["number"]:
                written[key] = row["content_sha256"]
        with self._read() as connection:
            rows = connection.execute(select(_versions)).all()
        for row in rows:
            key = row.image, row.reader, row.number
            if written.pop(key, None) != row.sha256:
                problems.append(f"version {row.number} of an image is not the one that the audit log names.")
            elif row.document is None and key not in deleted:
                problems.append(f"the content of version {row.number} of an image is gone without a deletion.")
            elif row.document is not None and _sha256(row.document) != row.sha256:
                problems.append(f"the content of version {row.number} of an image was changed.")
        problems += [f"version {number} of an image is missing." for _, _, number in written]
        return problems

    # Records of the server

    def record(self, kind: str, key: str) -> Any:
        """Return a JSON document of the server; None where there is none."""
        query = select(records.c.content).where(records.c.kind == kind, records.c.key == key)
        with self._read() as connection:
            content = connection.execute(query).scalar_one_or_none()
        return None if content is None else json.loads(content)

    def records(self, kind: str, since: datetime | None = None) -> dict[str, Any]:
        """Return the documents of one kind, oldest first; those written since a time, if one is given."""
        query = select(records.c.key, records.c.content).where(records.c.kind == kind).order_by(records.c.written)
        if since is not None:
            query = query.where(records.c.written >= _as_text(since))
        with self._read() as connection:
            return {key: json.loads(content) for key, content in connection.execute(query)}

    def set_record(self, kind: str, key: str, content: Any) -> None:
        """Write a document; None removes it."""
        with self.write() as connection:
            put_record(connection, kind, key, content)

    # Files

    def back_up(self, out: Path) -> str:
        """Write a copy of the database in use, after checking the copy.

        Returns:
            The hash of the newest row of the audit log.

        Raises:
            StorageError: `out` exists or cannot be written.
            ServerError: the store does not agree with its audit log.
        """
        if out.exists():
            raise StorageError(f"{out.name} exists already. Choose another name.")
        partial = out.with_name(f"{out.name}.partial")
        partial.unlink(missing_ok=True)
        _create_private(partial)
        try:
            with closing(sqlite3.connect(self.file)) as source, closing(sqlite3.connect(partial)) as target:
                source.backup(target)
            head = check_file(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        except sqlite3.Error as error:
            partial.unlink(missing_ok=True)
            raise StorageError(f"the copy cannot be written ({error}).") from error
        except RefusedError:
            partial.unlink(missing_ok=True)
            raise
        os.replace(partial, out)
        return head

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: all of it, or nothing.

        Raises:
            StorageError: the disk is full, or cannot be written.
            ServerError: the file is no database of this program.
        """
        with self._writer, _explained(), self._engine.connect() as connection:
            writing = connection.execution_options(writes=True)
            with writing.begin():
                yield writing

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with _explained(), self._engine.connect() as connection:
            yield connection

    @staticmethod
    def _latest_row(connection: Connection, image: str, reader: str) -> Row[Any] | None:
        query = select(_versions).where(_versions.c.image == image, _versions.c.reader == reader)
        return connection.execute(query.order_by(_versions.c.number.desc()).limit(1)).one_or_none()

    @staticmethod
    def _append(
        connection: Connection,
        actor: str,
        action: str,
        image: str,
        reader: str,
        number: int,
        content_sha256: str,
        reason: str = "",
    ) -> None:
        newest = connection.execute(select(_audit).order_by(_audit.c.sequence.desc()).limit(1)).one_or_none()
        row = {
            "sequence": newest.sequence + 1 if newest else 1, "written": _now(), "actor": actor, "action": action,
            "image": image, "reader": reader, "number": number, "content_sha256": content_sha256, "reason": reason,
            "previous": newest.hash if newest else FIRST_HASH,
        }  # fmt: skip
        connection.execute(insert(_audit).values({**row, "hash": _row_hash(row)}))


def put_record(connection: Connection, kind: str, key: str, content: Any) -> None:
    """Write a document of the server in a transaction; None removes it."""
    connection.execute(records.delete().where(records.c.kind == kind, records.c.key == key))
    if content is not None:
        row = {"kind": kind, "key": key, "written": _now(), "content": json.dumps(content)}
        connection.execute(insert(records).values(row))


def check_file(file: Path, name: str = "") -> str:
    """Check a database file, and return the hash of the newest row of its audit log.

    Args:
        file: the file.
        name: what messages call it. Default: its name.

    Raises:
        NotFoundError: no file.
        ServerError: it is damaged, no database of this program, or does not agree with its audit log.
    """
    name = name or file.name
    if not file.is_file():
        raise NotFoundError(f"{name} is not a file.")
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            damage = connection.execute("PRAGMA integrity_check").fetchone()[0]
            tables = {table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise ServerError(f"{name} is no store of boxes ({error}).") from error
    if damage != "ok" or not {"versions", "audit", "records"} <= tables:
        raise ServerError(f"{name} is damaged, or no store of boxes.")
    store = BoxStore(file)
    problems, log = store.verify(), store.audit()
    store.close()
    if problems:
        raise ServerError(f"{name}: {problems[0]}")
    return log[-1]["hash"] if log else FIRST_HASH


def restore(backup: Path, file: Path) -> Path | None:
    """Put a backup in the place of a store whose server does not run. The older store is kept beside it.

    Returns:
        Where the older store is now; None if there was none.

    Raises:
        NotFoundError, ServerError: see `check_file`.
        ConflictError: a server has the store open.
        StorageError: the folder cannot be made, or the copy cannot be written. The older store stays where it is.
    """
    make_folder(file.parent)
    partial = file.with_name(f"{file.name}.partial")
    try:
        # The copy is checked, since opening a database writes, and a backup may lie where nothing can be written.
        _copy_private(backup, partial)
        check_file(partial, backup.name)
        older = None
        if file.exists():
            _require_unused(file)
            older = file.with_name(f"{file.name}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            for suffix in ("", "-wal", "-shm"):
                part = file.with_name(file.name + suffix)
                if part.exists():
                    part.rename(older.with_name(older.name + suffix))
        os.replace(partial, file)
    finally:
        for suffix in ("", "-wal", "-shm"):
            partial.with_name(partial.name + suffix).unlink(missing_ok=True)
    return older


def make_folder(folder: Path) -> None:
    """Make the folder of a store, which nobody but its owner can read, unless it exists.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the store {folder.name} cannot be made ({error.strerror}). Name another folder with --store."
        ) from error


def _copy_private(backup: Path, copy: Path) -> None:
    if not backup.is_file():
        raise NotFoundError(f"{backup.name} is not a file.")
    copy.unlink(missing_ok=True)
    _create_private(copy)
    try:
        with backup.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise StorageError(f"the backup cannot be copied beside the store ({error.strerror}).") from error


def _create_private(file: Path) -> None:
    """Make a file that nobody but its owner can read, unless it exists."""
    with suppress(OSError):  # what writes the file says why it cannot
        if not file.exists():
            file.touch(mode=0o600)


def _require_unused(file: Path) -> None:
    connection = sqlite3.connect(file, timeout=0)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.rollback()
    except sqlite3.Error as error:
        raise ConflictError("a server has the store open. Stop it first.") from error
    finally:
        connection.close()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise ConflictError("another request was faster. Fetch the newest version, and send yours again.") from error
    except DBAPIError as error:
        text = str(error.orig)
        if "not a database" in text or "malformed" in text:
            raise ServerError("the store of boxes is damaged. Restore it from a backup.") from error
        raise StorageError(f"the store of boxes cannot be written ({text}). Nothing was saved.") from error


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that will write takes the lock at once; one that reads first could not get it any more.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _to_version(row: Row[Any]) -> Version:
    reading = parse_readings(row.document)[0] if row.document is not None else None
    return Version(row.image, row.reader, row.number, row.status, row.written, row.actor, row.sha256, reading)


def _row_hash(row: dict[str, Any]) -> str:
    fields = {name: row[name] for name in sorted(row) if name != "hash"}
    return _sha256(json.dumps(fields, sort_keys=True, ensure_ascii=False))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return _as_text(datetime.now(UTC))


def _as_text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
