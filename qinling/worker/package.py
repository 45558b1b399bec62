"""Unpacks a function's zip into a folder of its own.

The control plane has looked into the zip before. This looks again at what
matters for the worker alone: nothing leaves the folder, there are no links, and
what comes out is bounded by what is really written, not by what the zip says.
"""

import contextlib
import errno
import os
import stat
import zipfile
import zlib

from qinling.worker.archive import Archive
from qinling.worker.function import Malformed, NoRoom

#: Bytes at a time: an allocation above 128 KiB costs a page fault for each of its pages.
_CHUNK = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT)


def unpack(archive: Archive, folder: str, most: int) -> None:
    """Make the folder and fill it.

    :param most: bytes that may come out of it.
    :raises Malformed: it is no zip, or holds what must not be. :raises NoRoom: the disk is full.
        The folder is to be removed then.
    """
    os.mkdir(folder, 0o700)
    path = f"{folder}.zip"
    try:
        archive.save(path)
        _unpack(path, folder, most)
    except ConnectionError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoom(f"there is no room for the package: {error.strerror}") from None
        raise Malformed(f"the package cannot be unpacked: {error}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _unpack(path: str, folder: str, left: int) -> None:
    try:
        with zipfile.ZipFile(path) as found:
            for entry in found.infolist():
                left = _unpack_entry(found, entry, folder, left)
    except Malformed:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # The last two: a method of compression that Python does not know, and encryption.
        raise Malformed(f"the package is no zip that can be unpacked: {error}") from None
    except ValueError as error:
        raise Malformed(f"the package cannot be unpacked: {error}") from None


def _unpack_entry(found: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: str, left: int) -> int:
    """Bytes that may still come out after this one."""
    name = entry.filename
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ".." in parts:
        raise Malformed(f"the package has an entry outside of its root: {name!r}")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Malformed(f"the package has an entry that is neither file nor folder: {name!r}")
    path = os.path.join(folder, name)
    if entry.is_dir():
        os.makedirs(path, exist_ok=True)
        return left
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        raise Malformed(f"the package has two entries of one name: {name!r}")
    with found.open(entry) as source, open(path, "wb") as target:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise Malformed("the package is larger than max_unpacked_size when it is unpacked")
            target.write(chunk)
    if entry.external_attr >> 16 & stat.S_IXUSR:
        os.chmod(path, 0o755)  # noqa: S103  # nosec B103
    return left
