"""What is done in the name of another user of this host, as that user and with no more rights.

The standard library only: programs use it that read nothing else.
"""

import contextlib
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

# A folder of the user's own, in the one that is made for it.
_INNER = "/files"
# What the user has made of its folders' modes is undone first.
_EMPTY = 'chmod -R u+rwX -- "$1"; exec find "$1" -mindepth 1 -delete'
# Where anybody may leave something, and how a user takes away what is its there: in folders of
# others only where it may write, as it can have left nothing in the rest. It follows no links, and
# what it may not touch, it does not.
_PUBLIC = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock")  # noqa: S108  # nosec B108
_CLEAR = """
uid=$1; shift
find "$@" -xdev -mindepth 1 \\( -uid "$uid" -prune \\
    -exec sh -c 'chmod -R u+rwX -- "$@"; rm -rf -- "$@"' sh {} + \\) \\
    -o -type d ! -writable -prune
exit 0
"""
# The kernel's lists of what programs share, the name of a number in each, and ipcrm(1)'s word.
_SHARED = (("shm", "shmid", "-m"), ("sem", "semid", "-s"), ("msg", "msqid", "-q"))
# Seconds for that, and for anything else.
_EMPTY_PATIENCE = 60.0
_PATIENCE = 10.0


def run_as(uid: int | None, *command: str, patience: float = _PATIENCE) -> None:
    """Run a program as a user, with nothing but its arguments.

    :param uid: of the user, and of its group; None for our own.
    :param patience: seconds that it may take.
    :raises OSError, SubprocessError: it cannot be run, or fails, or takes longer than that.
    """
    subprocess.run(
        command,
        check=True,
        cwd="/",
        env={"PATH": os.defpath},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=patience,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


def make_inner(folder: str, uid: int | None) -> str:
    """A folder of the user's own in one of ours, which it passes through; errors of ``run_as``."""
    outer, inner = pathlib.Path(folder), folder + _INNER
    # Until it is there others may write, too; if they have made it, this fails.
    outer.chmod(0o1733)
    run_as(uid, "mkdir", "-m", "700", "--", inner)
    outer.chmod(0o711)
    return inner


def remove(folder: str, uid: int | None) -> None:
    """Remove a folder of ours with the user's in it; errors of ``run_as``.

    Of a user that was made for this, everything: the next one with its number is a stranger.
    The user empties its own: links that it has left there lead to nothing that is not its.
    """
    try:
        if uid is not None:
            _clear(uid)
    finally:
        _remove_folder(folder, uid)


def _remove_folder(folder: str, uid: int | None) -> None:
    outer, inner = pathlib.Path(folder), pathlib.Path(folder + _INNER)
    if inner.is_dir():
        run_as(uid, "/bin/sh", "-c", _EMPTY, "sh", str(inner), patience=_EMPTY_PATIENCE)
        inner.rmdir()
    if outer.is_dir():
        outer.rmdir()


def _clear(uid: int) -> None:
    """Remove what a user without processes has left where everybody may; errors of ``run_as``."""
    public = {pathlib.Path(place).resolve() for place in (*_PUBLIC, tempfile.gettempdir())}
    places = [str(place) for place in public if place.is_dir()]
    run_as(uid, "/bin/sh", "-c", _CLEAR, "sh", str(uid), *places, patience=_EMPTY_PATIENCE)
    if shared := list(_shared(uid)):
        run_as(uid, "ipcrm", *shared)


def _shared(uid: int) -> Iterator[str]:
    """The words for ipcrm(1) to remove what of System V's a user has made."""
    for kind, number, option in _SHARED:
        with contextlib.suppress(FileNotFoundError):
            names, *rows = pathlib.Path("/proc/sysvipc", kind).read_text().splitlines()
            for row in rows:
                found = dict(zip(names.split(), row.split(), strict=False))
                # Its maker's, whoever it was given to.
                if found["cuid"] == str(uid):
                    yield from (option, found[number])
