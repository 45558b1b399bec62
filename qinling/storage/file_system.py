"""Packages as files in a folder, by their digests.

::

    id                what the folder is told from others by
    lock              shared by who puts, exclusive for who removes
    incoming/         uploads on their way; what a crash left there goes when a program starts
    zips/ab/ab…       a package, whole: it gets its name when it is on the disk
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from oslo_log import log

from qinling import exceptions
from qinling.storage import base

LOG = log.getLogger(__name__)

# Seconds without a write after which an upload has no program any more, and a package, if it is
# going to have one, its row.
_ABANDONED = 3600
# Bytes of a package that are read at a time.
_PIECE = 64 * 1024


class FileSystemStore:
    """A ``PackageStore`` in ``directory``, which all programs of an installation share."""

    def __init__(self, directory: str) -> None:
        self._root = Path(directory)
        self._incoming = self._root / "incoming"
        self._packages = self._root / "zips"

    def prepare(self) -> str:
        try:
            for folder in (self._incoming, self._packages):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mark()
            self._sweep()
        except OSError as error:
            raise self._unusable(error) from error
        marker = self.marker()
        assert marker is not None
        return marker

    def marker(self) -> str | None:
        try:
            return (self._root / "id").read_text().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error

    def is_empty(self) -> bool:
        with _away("read"):
            return not any(self._packages.glob("??/*"))

    def receive(self) -> "FileUpload":
        with _away("written to"):
            return FileUpload(self._incoming)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        with self._locked(fcntl.LOCK_SH):
            yield

    def put(self, upload: base.Upload) -> base.Package:
        assert isinstance(upload, FileUpload)
        package = upload.package
        path = self._path(package.digest)
        with _away("written to"):
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                _sync(self._packages)
            # Over one that is there already, too: that one may be damaged.
            upload.move(path)
            _sync(path.parent)
        return package

    def open(self, digest: str) -> BinaryIO:
        file = self._open(digest)
        with _away("read"):
            try:
                sound = hashlib.file_digest(file, "sha256").hexdigest() == digest
                file.seek(0)
            except BaseException:
                file.close()
                raise
        if not sound:
            file.close()
            raise exceptions.PackageLost(digest, "is damaged")
        return file

    @contextlib.contextmanager
    def pieces(self, digest: str) -> Iterator["FilePieces"]:
        with self._open(digest) as file:
            yield FilePieces(file, digest)

    def stored(self) -> Iterator[str]:
        old = time.time() - _ABANDONED
        with _away("read"):
            for path in self._packages.glob("??/*"):
                # Others remove some meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < old:
                        yield path.name

    def remove(self, digest: str, is_used: Callable[[], bool]) -> None:
        with self._locked(fcntl.LOCK_EX):
            if is_used():
                return
            with _away("written to"), contextlib.suppress(FileNotFoundError):
                self._path(digest).unlink()

    def _open(self, digest: str) -> io.BufferedReader:
        with _away("read"):
            try:
                return self._path(digest).open("rb")
            except FileNotFoundError as error:
                raise exceptions.PackageLost(digest, "is not there") from error

    def _path(self, digest: str) -> Path:
        return self._packages / digest[:2] / digest

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with _away("locked"):
            # Open for writing: NFS locks nothing else exclusively.
            file = open(self._root / "lock", "a")  # noqa: SIM115  # closed below
            try:
                fcntl.flock(file, how)
            except BaseException:
                file.close()
                raise
        with file:
            yield

    def _unusable(self, error: OSError) -> exceptions.StartupError:
        return exceptions.StartupError(
            f"[storage] directory {self._root}: it cannot be used: {error.strerror}."
        )

    def _mark(self) -> None:
        """Make ``id``, unless a program has done so before."""
        path = self._root / "id"
        if not path.exists():
            with tempfile.NamedTemporaryFile("w", dir=self._incoming) as made:
                made.write(f"{uuid.uuid4()}\n")
                made.flush()
                os.fsync(made.fileno())
                # Of several that start at once one makes it.
                with contextlib.suppress(FileExistsError):
                    os.link(made.name, path)
            _sync(self._root)

    def _sweep(self) -> None:
        for left in self._incoming.iterdir():
            # Another program's upload may end at any moment.
            with contextlib.suppress(FileNotFoundError):
                if left.stat().st_mtime < time.time() - _ABANDONED:
                    LOG.info("Removing an upload that was not ended: %s", left.name)
                    left.unlink()


class FileUpload:
    """An ``Upload`` to a file in the folder ``incoming``."""

    def __init__(self, incoming: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=incoming)
        self.file: BinaryIO = open(descriptor, "r+b")  # noqa: SIM115  # closed in close
        self._path: Path | None = Path(name)
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size = 0

    @property
    def package(self) -> base.Package:
        return base.Package(self._sha256.hexdigest(), self._md5.hexdigest(), self._size)

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > base.MAX_PACKAGE:
            raise exceptions.BadRequest(
                f"package: it is larger than the {base.MAX_PACKAGE} bytes allowed."
            )
        self._sha256.update(data)
        self._md5.update(data)
        with _away("written to"):
            self.file.write(data)

    def move(self, path: Path) -> None:
        """Give the file its name, once its content is on the disk."""
        assert self._path is not None
        self.file.flush()
        os.fsync(self.file.fileno())
        self._path.rename(path)
        self._path = None

    def close(self) -> None:
        # What was not written before is not wanted now.
        with contextlib.suppress(OSError):
            self.file.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


class FilePieces:
    """``Pieces`` of a file."""

    def __init__(self, file: BinaryIO, digest: str) -> None:
        self._file = file
        self._digest = digest
        self.size = os.fstat(file.fileno()).st_size

    def __iter__(self) -> Iterator[bytes]:
        found, held = hashlib.sha256(), b""
        while piece := self._read():
            if held:
                yield held
            found.update(piece)
            held = piece
        if found.hexdigest() != self._digest:
            raise exceptions.PackageLost(self._digest, "is damaged")
        yield held

    def _read(self) -> bytes:
        with _away("read"):
            return self._file.read(_PIECE)


@contextlib.contextmanager
def _away(what: str) -> Iterator[None]:
    """:raises Unavailable: the file system is away, full, or refuses."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise exceptions.Unavailable(
            f"The store of packages cannot be {what} for now: {reason}."
        ) from error


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know it of files only, and do it by themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
