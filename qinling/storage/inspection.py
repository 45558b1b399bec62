"""What is in a package, looked at without writing any of it down.

A zip comes from anybody. What would hurt whoever unpacks it, or could not be
unpacked at all, is refused here with its reason, as is an entry that is not in
it. Not all that a zip says of itself is true: its content is read once, to the
end, within the limit.
"""

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from typing import BinaryIO

from qinling import exceptions

MAX_ENTRIES = 20000
# Bytes of the list of entries, which must be read as a whole.
_MAX_DIRECTORY = 8 * 1024**2
# Bytes of a name as most file systems have them, and of a path.
_MAX_NAME = 255
_MAX_PATH = 1024
_PIECE = 64 * 1024

# Of APPNOTE.TXT (PKWARE): the end of the central directory, the locator of its
# zip64 form, an entry of it, and the bits that say that an entry is encrypted.
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE = b"PK\5\6"
_ZIP64_LOCATOR = b"PK\6\7"
_ZIP64_LOCATOR_SIZE = 20
_ENTRY_SIGNATURE = b"PK\1\2"
_MAX_COMMENT = 65535
_ENCRYPTED = 0x1 | 0x40 | 0x2000


def check(file: BinaryIO, max_unpacked: int, entry: str) -> None:
    """Refuse a zip that no worker should unpack, or that has not what ``entry`` names.

    :param max_unpacked: bytes.
    :raises BadRequest: with the attribute that is to blame, ``package`` or ``entry``.
    """
    try:
        count = _check_directory(file)
        with zipfile.ZipFile(file) as package:
            entries = package.infolist()
            if len(entries) != count:
                # Who goes by the number would unpack something else.
                raise _refusal(f"it has {len(entries)} entries and says that it has {count}")
            names = _check_entries(entries, max_unpacked)
            _check_content(package)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _refusal(f"it is no zip, or not a whole one ({error})") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _refusal(
            "it is no zip, or not a whole one (it points to before its start)"
        ) from error
    except (NotImplementedError, RuntimeError, ValueError, struct.error, UnicodeError) as error:
        # zipfile on features that it does not have, and on numbers that cannot be.
        raise _refusal(f"it is not a zip that can be read ({error})") from error
    _check_entry(names, entry)


def check_entry(file: BinaryIO, entry: str) -> None:
    """Refuse an entry that is not in a package which was checked before.

    :raises BadRequest: the same as of ``check``.
    """
    with zipfile.ZipFile(file) as package:
        _check_entry([_plain(name) for name in package.namelist()], entry)


def _check_directory(file: BinaryIO) -> int:
    """Refuse a list of entries that would take too much memory, before it is read.

    How many it says there are. It must look where zipfile looks.
    """
    size = file.seek(0, 2)
    tail_size = min(size, _END.size + _MAX_COMMENT)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    # Where there is no comment it is the last thing; zipfile looks in the same order.
    at = tail_size - _END.size
    if at < 0 or tail[at : at + 4] != _END_SIGNATURE or tail[-2:] != b"\0\0":
        at = tail.rfind(_END_SIGNATURE)
    if at < 0 or at + _END.size > tail_size:
        raise _refusal("it is no zip, or not a whole one (its end is not there)")
    _, _, _, _, count, length, _, _ = _END.unpack_from(tail, at)
    end = size - tail_size + at
    file.seek(max(0, end - _ZIP64_LOCATOR_SIZE))
    # A long comment leaves it in front of the tail.
    is_zip64 = file.read(len(_ZIP64_LOCATOR)) == _ZIP64_LOCATOR
    if is_zip64 or count > MAX_ENTRIES:
        raise _refusal(f"it has more entries than the {MAX_ENTRIES} allowed, or is a zip64")
    if length > _MAX_DIRECTORY:
        raise _refusal(f"its list of entries is longer than the {_MAX_DIRECTORY} bytes allowed")
    file.seek(max(0, end - length))
    # More than it says, each of them would be read.
    if file.read(length).count(_ENTRY_SIGNATURE) > MAX_ENTRIES:
        raise _refusal(f"it has more entries than the {MAX_ENTRIES} allowed")
    return int(count)


def _check_entries(entries: list[zipfile.ZipInfo], max_unpacked: int) -> list[str]:
    """Refuse by what the list of entries says; the names in it."""
    unpacked = sum(info.file_size for info in entries)
    if unpacked > max_unpacked:
        raise _refusal(
            f"unpacked it has {unpacked} bytes, more than the {max_unpacked} bytes allowed"
        )
    for info in entries:
        _check_name(info)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a special file"
            raise _refusal(f"{_shown(info)} is {what}")
        if info.flag_bits & _ENCRYPTED:
            raise _refusal(f"{_shown(info)} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refusal(f"{_shown(info)} is compressed by another method than deflate")
    names = [_plain(info.filename) for info in entries]
    _check_places(names)
    return names


def _check_places(names: list[str]) -> None:
    """Refuse what would be unpacked over something else."""
    files = set()
    for name in names:
        if name in files:
            raise _refusal(f"{name[:80]!a} is in it more than once")
        if not name.endswith("/"):
            files.add(name)
    for name in names:
        for folder in _folders(name):
            if folder in files:
                raise _refusal(f"{folder[:80]!a} is both a file and a folder")


def _check_name(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    parts = name.replace("\\", "/").split("/")
    if not name or "\0" in name:
        raise _refusal(f"{_shown(info)} is not the name of a file")
    if not parts[0] or parts[0].endswith(":"):
        raise _refusal(f"{_shown(info)} is an absolute path")
    if ".." in parts:
        raise _refusal(f"{_shown(info)} leads out of the package")
    if "\\" in name:
        raise _refusal(f"{_shown(info)} has a backslash where a zip has a slash")
    if parts[-1] == ".":
        raise _refusal(f"{_shown(info)} is not the name of a file")
    encoded = [len(part.encode(errors="surrogatepass")) for part in parts]
    if max(encoded) > _MAX_NAME or sum(encoded) + len(parts) > _MAX_PATH:
        raise _refusal(f"{_shown(info)} is too long for a path")


def _check_content(package: zipfile.ZipFile) -> None:
    """Read all of it: that each entry is where it should be, whole, and as long as it says."""
    for info in package.infolist():
        if info.is_dir():
            continue
        left = info.file_size
        with package.open(info) as file:
            # At its end it compares the sums; it gives no more bytes than the entry says.
            while piece := file.read(_PIECE):
                left -= len(piece)
        if left:
            raise _refusal(f"{_shown(info)} is not as long as it says")


def _check_entry(names: Iterable[str], entry: str) -> None:
    """The module is a file or a folder in the root, whatever its suffix; of a dotted one, below."""
    *modules, _function = entry.split(".")
    path = "/".join(modules)
    for name in names:
        if name == path or name.startswith((f"{path}.", f"{path}/")):
            rest = name[len(path) :]
            # "main.d/x.py" has no module "main", "main/x.py" has.
            if rest.startswith("/") or "/" not in rest:
                return
    raise exceptions.BadRequest(
        f"entry: package has no file or folder {path[:255]!r}, with whatever suffix, for the "
        f"module of {entry[:255]!r}."
    )


def _plain(name: str) -> str:
    """A path without steps on the spot; a folder's ends in a slash."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) + ("/" if name.endswith("/") else "")


def _folders(name: str) -> Iterable[str]:
    at = name.find("/")
    while at > 0:
        yield name[:at]
        at = name.find("/", at + 1)


def _shown(info: zipfile.ZipInfo) -> str:
    return ascii(info.orig_filename[:80])


def _refusal(reason: str) -> exceptions.BadRequest:
    return exceptions.BadRequest(f"package: {reason}.")
