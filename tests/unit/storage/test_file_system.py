"""The store of packages on a file system: whole packages or none, whatever ends a program."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qinling import exceptions
from qinling.storage import base, file_system
from tests.fixtures.process import wait_until

CONTENT = b"what is in a package" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DEADLINE = 20.0


@pytest.fixture
def store(tmp_path: Path) -> file_system.FileSystemStore:
    found = file_system.FileSystemStore(str(tmp_path / "store"))
    found.prepare()
    return found


def put(store: file_system.FileSystemStore, content: bytes = CONTENT) -> base.Package:
    upload = store.receive()
    try:
        upload.write(content)
        return store.put(upload)
    finally:
        upload.close()


def read(store: file_system.FileSystemStore, digest: str) -> bytes:
    with store.open(digest) as file:
        return file.read()


def files(store: file_system.FileSystemStore, folder: str = "") -> list[Path]:
    return [path for path in (store._root / folder).rglob("*") if path.is_file()]


def unused() -> bool:
    return False


def test_a_package_is_known_by_its_content_and_read_back(
    store: file_system.FileSystemStore,
) -> None:
    package = put(store)
    md5sum = hashlib.md5(CONTENT).hexdigest()
    assert package == base.Package(DIGEST, md5sum, len(CONTENT))
    assert read(store, DIGEST) == CONTENT
    assert put(store) == package
    assert len(files(store, "zips")) == 1
    assert not files(store, "incoming")


def test_what_is_not_kept_leaves_nothing(store: file_system.FileSystemStore) -> None:
    upload = store.receive()
    upload.write(CONTENT)
    upload.file.seek(0)
    assert upload.file.read() == CONTENT
    upload.close()
    upload.close()
    assert not files(store, "incoming")
    assert not files(store, "zips")


def test_no_upload_is_larger_than_a_package_may_be(store: file_system.FileSystemStore) -> None:
    upload = store.receive()
    piece = bytes(1024**2)
    for _ in range(51):
        upload.write(piece)
    with pytest.raises(exceptions.BadRequest, match=r"^package: .*53477376 bytes"):
        upload.write(b"x")
    upload.close()


def test_a_package_that_is_not_there_is_told(store: file_system.FileSystemStore) -> None:
    with pytest.raises(exceptions.PackageLost, match=f"{DIGEST} is not there"):
        store.open(DIGEST)
    with (
        pytest.raises(exceptions.PackageLost, match=f"{DIGEST} is not there"),
        store.pieces(DIGEST),
    ):
        pass


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT + b"x", b"W" + CONTENT[1:]])
def test_a_damaged_package_is_told_and_healed_by_the_next_upload(
    store: file_system.FileSystemStore, damage: bytes
) -> None:
    put(store)
    files(store, "zips")[0].write_bytes(damage)
    with pytest.raises(exceptions.PackageLost, match=f"{DIGEST} is damaged"):
        store.open(DIGEST)
    with store.pieces(DIGEST) as pieces:
        found = []
        with pytest.raises(exceptions.PackageLost, match=f"{DIGEST} is damaged"):
            found += pieces
        # Who takes it by its length has not got all of it.
        assert len(b"".join(found)) < max(pieces.size, 1)
    put(store)
    assert read(store, DIGEST) == CONTENT


def test_a_package_comes_in_pieces_as_it_was_put(store: file_system.FileSystemStore) -> None:
    content = bytes(range(256)) * 1000
    with store.pieces(put(store, content).digest) as pieces:
        found = list(pieces)
        assert b"".join(found) == content
        assert len(found) > 1
        assert pieces.size == len(content)


def test_what_is_used_is_not_removed(store: file_system.FileSystemStore) -> None:
    put(store)
    store.remove(DIGEST, lambda: True)
    assert read(store, DIGEST) == CONTENT
    store.remove(DIGEST, unused)
    with pytest.raises(exceptions.PackageLost):
        store.open(DIGEST)
    store.remove(DIGEST, unused)


def test_who_reads_a_package_reads_on_when_it_is_removed(
    store: file_system.FileSystemStore,
) -> None:
    put(store)
    with store.open(DIGEST) as file:
        store.remove(DIGEST, unused)
        assert file.read() == CONTENT


def test_nothing_is_removed_between_an_upload_and_the_row_that_refers_to_it(
    store: file_system.FileSystemStore,
) -> None:
    """The other store is another program's."""
    other = file_system.FileSystemStore(str(store._root))
    put(other)
    rows: list[str] = []
    asked = threading.Event()

    def is_used() -> bool:
        asked.set()
        return DIGEST in rows

    with ThreadPoolExecutor() as pool:
        with store.holding(), other.holding():
            put(store)
            removing = pool.submit(other.remove, DIGEST, is_used)
            assert not asked.wait(0.2)
            rows.append(DIGEST)
        removing.result(DEADLINE)
    assert asked.is_set()
    assert read(store, DIGEST) == CONTENT


#: Says that it writes, and then puts packages for as long as it lives.
PUTS = """
import sys
from qinling.storage import file_system
store = file_system.FileSystemStore(sys.argv[1])
store.prepare()
for number in range(10 ** 9):
    upload = store.receive()
    for _ in range(50):
        upload.write(b"%d" % number * 1000)
    store.put(upload)
    upload.close()
    print(number, flush=True)
"""


@pytest.mark.parametrize("pause", [0.0, 0.003, 0.011, 0.02])
def test_a_kill_in_the_middle_of_it_leaves_no_half_package(tmp_path: Path, pause: float) -> None:
    root = tmp_path / "store"
    command = [sys.executable, "-c", PUTS, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        # Anywhere in the next ones.
        threading.Event().wait(pause)
        process.kill()
        told = 1 + process.stdout.read().count(b"\n")
    assert process.returncode == -signal.SIGKILL
    store = file_system.FileSystemStore(str(root))
    store.prepare()
    kept = files(store, "zips")
    assert len(kept) >= told
    for path in kept:
        assert hashlib.sha256(read(store, path.name)).hexdigest() == path.name
    # What the killed one left goes once it is certain that nobody is at it any more.
    left = files(store, "incoming")
    assert len(left) <= 1
    for path in left:
        os.utime(path, (1, 1))
    store.prepare()
    assert not files(store, "incoming")
    assert files(store, "zips") == kept


def test_a_start_leaves_the_uploads_of_others_alone(store: file_system.FileSystemStore) -> None:
    upload = store.receive()
    upload.write(CONTENT)
    file_system.FileSystemStore(str(store._root)).prepare()
    store.put(upload)
    upload.close()
    assert read(store, DIGEST) == CONTENT


def test_all_who_share_a_folder_see_one_marker(tmp_path: Path) -> None:
    starters = 8
    together = threading.Barrier(starters)

    def start(root: Path) -> str:
        store = file_system.FileSystemStore(str(root))
        together.wait(DEADLINE)
        return store.prepare()

    with ThreadPoolExecutor(starters) as pool:
        markers = list(pool.map(start, [tmp_path / "one"] * starters))
        others = list(pool.map(start, [tmp_path / "two"] * starters))
    assert len(set(markers)) == len(set(others)) == 1
    assert markers[0] != others[0]
    assert markers[0] == file_system.FileSystemStore(str(tmp_path / "one")).prepare()


def test_a_folder_that_cannot_be_used_is_told_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = file_system.FileSystemStore(str(tmp_path / "file" / "store"))
    with pytest.raises(exceptions.StartupError, match=r"\[storage\] directory .*/file/store: "):
        store.prepare()


def test_a_folder_that_went_away_is_away_and_comes_back(
    store: file_system.FileSystemStore,
) -> None:
    put(store)
    away = store._root.with_name("away")
    store._root.rename(away)
    for call in (store.receive, lambda: store.remove(DIGEST, unused)):
        with pytest.raises(exceptions.Unavailable, match="The store of packages cannot be"):
            call()
    with pytest.raises(exceptions.Unavailable), store.holding():
        pass
    away.rename(store._root)
    assert read(store, DIGEST) == CONTENT


def test_a_full_disk_is_told_and_the_upload_is_gone(
    store: file_system.FileSystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of the disk: its file takes no more."""
    upload = store.receive()
    upload.file.close()
    upload.file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115  # closed with the upload
    with pytest.raises(exceptions.Unavailable, match="No space left on device"):
        upload.write(CONTENT)
    upload.close()
    assert not files(store, "incoming")


def test_waiting_uploads_do_not_wait_for_each_other(store: file_system.FileSystemStore) -> None:
    with store.holding(), ThreadPoolExecutor() as pool:
        done = pool.submit(put, store)
        wait_until(done.done, DEADLINE, "an upload beside another one")
        assert done.result().digest == DIGEST
