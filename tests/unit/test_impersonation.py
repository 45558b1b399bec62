"""What a user that was made for one worker leaves on this host, and who may not be harmed by it."""

import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from qinling import impersonation

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root gives each worker a user of its own"
)

UID, STRANGER = 1_999_900_001, 1_999_900_002
LEAVE = """
set -e
for place in /tmp /var/tmp /dev/shm; do
    mkdir $place/$1
    touch $place/$1/file
    ln -s "$2" $place/$1/link
    chmod 0 $place/$1
    ln -s "$2" $place/$1.link
done
ipcmk -p 0 -M 4096 -S 1 -Q
"""


@pytest.fixture
def name() -> Iterator[str]:
    """One that is free in all of the places, and is so again."""
    name = f"left-{uuid.uuid4()}"
    yield name
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        subprocess.run(["sh", "-c", f"rm -rf -- {place}/{name}*"], check=True)
    for uid in (UID, STRANGER):
        subprocess.run(["ipcrm", *impersonation._shared(uid)], check=False)


def left(uid: int) -> list[str]:
    """What a user has in the public places, and of System V."""
    found = [
        str(path)
        for place in ("/tmp", "/var/tmp", "/dev/shm")
        for path in Path(place).iterdir()
        if path.lstat().st_uid == uid
    ]
    for kind in ("shm", "sem", "msg"):
        rows = Path("/proc/sysvipc", kind).read_text().splitlines()
        found += [row for row in rows if str(uid) in row.split()]
    return found


def test_nothing_that_a_user_leaves_is_there_for_the_next_one(name: str) -> None:
    # Not pytest's: others may not pass through that one.
    with tempfile.TemporaryDirectory(dir="/tmp") as there:
        Path(there).chmod(0o755)
        kept = Path(there, "kept")
        kept.write_text("ours")
        for uid, theirs in ((UID, name), (STRANGER, f"{name}-2")):
            impersonation.run_as(uid, "sh", "-c", LEAVE, "sh", theirs, str(kept))
        folder = tempfile.mkdtemp(dir=there)
        impersonation.make_inner(folder, UID)
        before = left(STRANGER)
        assert (len(left(UID)), len(before)) == (9, 9)
        impersonation.remove(folder, UID)
        assert left(UID) == []
        assert left(STRANGER) == before
        assert kept.read_text() == "ours"
