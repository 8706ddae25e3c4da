"""The store of boxes: a real SQLite file, written by threads and by processes that are killed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_readings import IMAGE, box, reading
from labelling.box_store import FIRST_HASH, BoxStore, check_file, restore
from labelling.errors import ConflictError, NotFoundError, RefusedError, ServerError, StorageError


@pytest.fixture
def store(tmp_path):
    store = BoxStore(tmp_path / "boxes.sqlite")
    yield store
    store.close()


def numbers(versions):
    return [(version.reader, version.number, version.status) for version in versions]


def test_every_version_is_kept_and_the_newest_of_each_status_is_current(store):
    store.save(reading("ada", box(), status="draft"), actor="ada", based_on=0)
    store.save(reading("ada", box(1, 2, 3, 4)), actor="ada", based_on=1)
    store.save(reading("ada", box(1, 2, 3, 5), status="draft"), actor="ada", based_on=2)
    store.save(reading("bob"), actor="bob", based_on=0)
    assert numbers(store.history("chest.png")) == [
        ("ada", 1, "draft"), ("ada", 2, "submitted"), ("ada", 3, "draft"), ("bob", 1, "submitted"),
    ]  # fmt: skip
    assert numbers(store.current("chest.png")) == [
        ("ada", 2, "submitted"),
        ("ada", 3, "draft"),
        ("bob", 1, "submitted"),
    ]
    assert store.submitted("chest.png")[0].reading.boxes[0].xyxy == (1, 2, 3, 4)
    assert store.images() == {"chest.png": {"ada": 2, "bob": 1}}
    assert store.verify() == []


def test_a_version_that_the_reader_has_not_seen_is_not_followed(store):
    store.save(reading("ada", box()), actor="ada", based_on=0)
    with pytest.raises(ConflictError, match="based_on=1"):
        store.save(reading("ada", box(1, 2, 3, 4)), actor="ada", based_on=0)
    assert len(store.history("chest.png")) == 1


def test_the_same_reading_sent_twice_is_one_version(store):
    first = store.save(reading("ada", box()), actor="ada", based_on=0)
    assert store.save(reading("ada", box()), actor="ada", based_on=0) == first
    store.save(reading("ada", box(1, 2, 3, 4)), actor="ada", based_on=1)
    with pytest.raises(ConflictError):  # an old request that is replayed
        store.save(reading("ada", box()), actor="ada", based_on=0)


def test_a_reading_without_a_reader_is_refused(store):
    with pytest.raises(RefusedError, match="reader.id is empty"):
        store.save(reading(""), actor="ada", based_on=0)


def test_deletion_leaves_a_tombstone_and_nothing_of_the_content(store, tmp_path):
    secret = "Finding 314159"
    store.save(reading("ada", box(finding=secret)), actor="ada", based_on=0)
    deleted = store.delete("chest.png", "ada", 1, actor="root", reason="the patient asked for it")
    assert deleted.reading is None
    assert store.current("chest.png") == []
    assert [row["action"] for row in store.audit()] == ["submit", "delete"]
    assert store.audit()[-1]["reason"] == "the patient asked for it"
    assert store.verify() == []
    version = store.save(reading("bob", box(finding="Mass")), actor="bob", based_on=0)
    store.delete("chest.png", "bob", 1, actor="root", reason="a wrong image")
    assert store.save(version.reading, actor="bob", based_on=1).number == 2  # sent again, it is kept
    store.close()
    assert all(secret.encode() not in file.read_bytes() for file in tmp_path.iterdir())
    with pytest.raises(NotFoundError):
        store.delete("chest.png", "ada", 2, actor="root", reason="it is not there")
    with pytest.raises(RefusedError, match="reason"):
        store.delete("chest.png", "ada", 1, actor="root", reason=" ")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM audit WHERE sequence = 1",
        "UPDATE audit SET actor = 'eve'",
        "DELETE FROM versions",
        "UPDATE versions SET document = '{}'",
        "UPDATE versions SET reader = 'eve', document = NULL",
    ],
)
def test_sqlite_itself_refuses_to_rewrite_history(store, change):
    store.save(reading("ada", box()), actor="ada", based_on=0)
    connection = sqlite3.connect(store.file)
    with pytest.raises(sqlite3.IntegrityError, match="append only"):
        connection.execute(change)
    connection.close()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("UPDATE audit SET actor = 'eve' WHERE sequence = 2", "row 2 of the audit log was changed"),
        ("DELETE FROM audit WHERE sequence = 2", "row 2 of the audit log is missing"),
        ("UPDATE versions SET document = replace(document, 'Nodule', 'Mass')", "content of version 1"),
        ("UPDATE versions SET document = NULL", "gone without a deletion"),
        ("DELETE FROM versions WHERE number = 1", "is missing"),
    ],
)
def test_whoever_removes_the_triggers_is_noticed(store, change, problem):
    for number in range(3):
        store.save(reading("ada", box(number, 2, 30, 40)), actor="ada", based_on=number)
    connection = sqlite3.connect(store.file)
    for trigger in ("audit_is_kept", "audit_is_fixed", "versions_are_kept", "versions_are_fixed"):
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute(change)
    connection.commit()
    connection.close()
    assert problem in " ".join(store.verify())


def test_200_submissions_of_8_threads_are_all_kept(store):
    def submit(reader):
        for number in range(25):
            store.save(reading(reader, box(number, 2, 100, 40)), actor=reader, based_on=number)

    threads = [threading.Thread(target=submit, args=(f"reader{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.history("chest.png")) == len(store.audit()) == 200
    assert store.verify() == []


WRITER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from drawn_readings import box, reading
from labelling.box_store import BoxStore
store = BoxStore(Path({file!r}))
number = len(store.history("chest.png", "ada"))
while True:
    store.save(reading("ada", box(number % 50, 2, 100, 40, certainty=0.5)), actor="ada", based_on=number)
    number += 1
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_that_it_acknowledged(store):
    here = str(Path(__file__).parent)
    program = WRITER.format(path=[here, *sys.path[:2]], file=str(store.file))
    for kill in range(4):
        writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        acknowledged = [int(writer.stdout.readline()) for _ in range(5 + kill)][-1]
        os.kill(writer.pid, signal.SIGKILL)
        remaining = writer.stdout.read().split()
        writer.wait()
        acknowledged = max([acknowledged, *map(int, remaining)])
        assert len(store.history("chest.png", "ada")) >= acknowledged
        assert store.verify() == []


def test_a_full_disk_is_an_error_and_nothing_is_half_saved(store):
    store.save(reading("ada", box()), actor="ada", based_on=0)
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    many = [box(index % 90, 2, 100, 40) for index in range(2000)]
    with pytest.raises(StorageError, match="full"):
        store.save(reading("ada", *many), actor="ada", based_on=1)
    assert len(store.history("chest.png")) == len(store.audit()) == 1
    assert store.verify() == []


def test_a_full_disk_keeps_no_half_of_an_import(store):
    with store._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(StorageError, match="Nothing was saved"):
        store.save_imported([reading(f"reader{k}", box()) for k in range(200)], actor="root")
    assert store.history("chest.png") == store.audit() == []
    versions = store.save_imported([reading("ada", box()), reading("bob", box()), reading("ada", box())], actor="root")
    assert [(each.reader, each.number) for each in versions] == [("ada", 1), ("bob", 1), ("ada", 1)]
    assert [each["action"] for each in store.audit()] == ["import", "import"]


def test_a_backup_of_a_store_in_use_restores_it(store, tmp_path):
    store.save(reading("ada", box()), actor="ada", based_on=0)
    head = store.back_up(tmp_path / "backup.sqlite")
    assert head == store.audit()[-1]["hash"]
    store.save(reading("ada", box(1, 2, 3, 4)), actor="ada", based_on=1)
    with pytest.raises(StorageError, match="exists"):
        store.back_up(tmp_path / "backup.sqlite")
    store.close()
    older = restore(tmp_path / "backup.sqlite", store.file)
    restored = BoxStore(store.file)
    assert len(restored.history("chest.png")) == 1
    assert len(BoxStore(older).history("chest.png")) == 2
    assert restored.verify() == []


def test_a_backup_that_cannot_be_copied_leaves_the_store_where_it_is(store, tmp_path, monkeypatch):
    store.save(reading("ada", box()), actor="ada", based_on=0)
    store.back_up(tmp_path / "backup.sqlite")
    store.close()
    before = sorted(path.name for path in tmp_path.iterdir())

    def fill_disk(source, target):
        target.write(source.read(100))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fill_disk)
    with pytest.raises(StorageError, match="No space left"):
        restore(tmp_path / "backup.sqlite", store.file)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert len(BoxStore(store.file).history("chest.png")) == 1


def test_a_store_in_use_is_not_replaced(store, tmp_path):
    store.save(reading("ada", box()), actor="ada", based_on=0)
    store.back_up(tmp_path / "backup.sqlite")
    with store.write(), pytest.raises(ConflictError, match="has the store open"):
        restore(tmp_path / "backup.sqlite", store.file)


def test_only_a_sound_backup_is_restored(store, tmp_path):
    (tmp_path / "text.sqlite").write_text("no database")
    with pytest.raises(ServerError, match=r"^text.sqlite is no store of boxes"):
        restore(tmp_path / "text.sqlite", store.file)
    with pytest.raises(NotFoundError):
        restore(tmp_path / "missing.sqlite", store.file)
    assert check_file(store.file) == FIRST_HASH


def test_records_survive(store):
    store.set_record("queue", "ada", {"images": ["a"]})
    store.set_record("queue", "ada", {"images": ["b"]})
    assert BoxStore(store.file).record("queue", "ada") == {"images": ["b"]}
    store.set_record("queue", "ada", None)
    assert store.records("queue") == {}


def test_images_do_not_share_versions(store):
    other = replace(IMAGE, id="other.png")
    store.save(reading("ada", box()), actor="ada", based_on=0)
    assert store.save(reading("ada", box(), image=other), actor="ada", based_on=0).number == 1
