"""What is done in the name of another user of this host, as that user and with no more rights.

The standard library only: programs use it that read nothing else.
"""

import os
import pathlib
import subprocess

# A folder of the user's own, in the one that is made for it.
_INNER = "/files"
# What the user has made of its folders' modes is undone first.
_EMPTY = 'chmod -R u+rwX -- "$1"; exec find "$1" -mindepth 1 -delete'
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

    The user empties its own: links that it has left there lead to nothing that is not its.
    """
    outer, inner = pathlib.Path(folder), pathlib.Path(folder + _INNER)
    if inner.is_dir():
        run_as(uid, "/bin/sh", "-c", _EMPTY, "sh", str(inner), patience=_EMPTY_PATIENCE)
        inner.rmdir()
    if outer.is_dir():
        outer.rmdir()
