"""Starting and signalling one worker process.

The listening socket is made here and handed down, so a worker's port is known
before it runs and calls to a worker that is still starting wait in the
kernel's queue instead of being refused.

The lifeline is a pipe whose end of file tells the worker to exit, unless a
byte came before it. The byte is sent once the worker stands in the pool's
file: an engine that dies before that leaves nothing behind. A worker that must
not outlive its engine never gets the byte. The built-in worker follows its
lifeline itself; for any other command ``guard.py`` does.

Its folder for temporary files is made and removed in the worker's name: an engine
that may become another user need not have the right to that user's files.
"""

import contextlib
import os
import pathlib
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass

from oslo_log import log as logging

from qinling import exceptions, impersonation
from qinling.orchestrator.local.state import WorkerEntry

LOG = logging.getLogger(__name__)

# Open files of a worker: the contract's 1024 for a function.
_NOFILE = 1024
_BACKLOG = 128

# Whatever a worker starts inherits it, too.
ID_VARIABLE = "QINLING_WORKER_ID"

# Whether programs and folders can be read.
_LOOK = "import os, sys; [os.listdir(path) for path in sys.argv[1:]]"

# -I -S: it is started quickly and reads nothing but its own file.
_GUARD = (sys.executable, "-I", "-S", str(pathlib.Path(__file__).with_name("guard.py")))

BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Users:
    """User ids for workers, one for each.

    :param base: a worker has this number plus its port, as its user and its group.
    :param taken: those of workers that may have left somebody behind.
    :param max_processes: of one user, threads counted.
    """

    base: int
    taken: Container[int]
    max_processes: int


@dataclass(slots=True)
class Started:
    """A worker that was just started. Close ``lifeline`` or send it a byte."""

    entry: WorkerEntry
    popen: subprocess.Popen[bytes]
    lifeline: int

    def release(self) -> None:
        """Let the worker outlive this process."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.lifeline, b"\n")
        self.abandon()

    def abandon(self) -> None:
        """Close the lifeline: the worker ends unless it was released."""
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    def kill(self) -> None:
        """End it at once with all of its group, whose number is its own until it is waited for."""
        self.abandon()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        remove_files(self.entry)


def start(
    worker_id: str,
    image: str,
    command: Sequence[str],
    log: pathlib.Path,
    users: Users | None,
    guarded: str | None = None,
    key_digest: str | None = None,
) -> Started:
    """Start a worker; it is not ready yet when this returns.

    :param users: when given, the worker gets a user id that no other one on this host has.
    :param guarded: how ``guard.py`` runs the command; None for a command that
        follows the lifeline itself.
    :param key_digest: of the only key that it may take.
    :raises OrchestratorError: it could not be started; nothing is left of it.
    """
    words = _words(command, guarded)
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", ID_VARIABLE: worker_id}
    if key_digest is not None:
        environment["QINLING_WORKER_KEY_DIGEST"] = key_digest
    folder = ""
    uid: int | None = None
    receiving, lifeline = os.pipe()
    try:
        with _listen(users) as listener, open(log, "ab") as output:
            port = listener.getsockname()[1]
            if users is not None:
                uid = users.base + port
                environment["QINLING_WORKER_MAX_PROCESSES"] = str(users.max_processes)
            folder = tempfile.mkdtemp(prefix="qinling-")
            environment["TMPDIR"] = impersonation.make_inner(folder, uid)
            popen = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(listener.fileno(), receiving),
                cwd="/",
                env=environment
                | {
                    "QINLING_WORKER_LISTEN_FD": str(listener.fileno()),
                    "QINLING_WORKER_LIFELINE_FD": str(receiving),
                },
                start_new_session=True,
                user=uid,
                group=uid,
                extra_groups=None if uid is None else [],
            )
    except (OSError, subprocess.SubprocessError) as error:
        os.close(lifeline)
        _remove(folder, uid)
        raise exceptions.OrchestratorError(
            f"the command of its image cannot be run: {command[0]}: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error
    finally:
        os.close(receiving)
    entry = WorkerEntry(
        id=worker_id,
        image=image,
        pid=popen.pid,
        started=_start_time(popen.pid),  # it has one when it has ended: nobody waited for it yet
        boot=BOOT_ID,
        port=port,
        born=time.time(),
        folder=folder,
        uid=uid,
        key_digest=key_digest,
    )
    return Started(entry, popen, lifeline)


def _listen(users: Users | None) -> socket.socket:
    """A socket on a port that gives a user id which is free."""
    with contextlib.ExitStack() as refused:
        while True:
            listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
            if users is None or users.base + listener.getsockname()[1] not in users.taken:
                return listener
            # Kept until another one is found, or the kernel might give it out again.
            refused.enter_context(listener)


def remove_files(entry: WorkerEntry) -> None:
    """Remove the temporary files of a worker that has ended."""
    _remove(entry.folder, entry.uid)


def _remove(folder: str, uid: int | None) -> None:
    if not folder:
        return
    try:
        impersonation.remove(folder, uid)
    except (OSError, subprocess.SubprocessError) as error:
        LOG.warning("The temporary files of a worker, %s, are left: %s", folder, error)


def _words(command: Sequence[str], guarded: str | None) -> list[str]:
    """The command, guarded, run by prlimit(1): by then the process has the worker's user id.

    From outside only a process with CAP_SYS_RESOURCE may limit another user's.
    """
    program = shutil.which(command[0])
    if program is None:
        raise exceptions.OrchestratorError(
            f"the command of its image cannot be run: {command[0]}: no such program"
        )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _NOFILE if most == resource.RLIM_INFINITY else min(_NOFILE, most)
    guard = () if guarded is None else (*_GUARD, guarded)
    return ["prlimit", f"--nofile={files}", "--core=0", "--", *guard, program, *command[1:]]


def start_time(pid: int) -> int | None:
    """The kernel's start time of a pid, in ticks since boot; None when nobody has that pid.

    A process that has ended has its pid until it is waited for.
    """
    try:
        return _start_time(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)); the name, field 2, may hold anything."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat.rpartition(b")")[2].split()[19])


def has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def open_pidfd(entry: WorkerEntry) -> int | None:
    """A descriptor of exactly this process, None when it has ended.

    The start time is read again once the descriptor holds the pid: between
    the two the pid could have been given to another process.
    """
    if entry.boot != BOOT_ID:
        return None
    try:
        descriptor = os.pidfd_open(entry.pid)
    except ProcessLookupError:
        return None
    if start_time(entry.pid) != entry.started or has_ended(descriptor):
        os.close(descriptor)
        return None
    return descriptor


def send(pidfd: int, number: signal.Signals) -> None:
    """Signal the process of a descriptor; one that has ended does not mind.

    Nor is it an error when it has become another user's: it must end by itself.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        signal.pidfd_send_signal(pidfd, number)


def runs_as_other(command: Sequence[str], uid: int) -> bool:
    """Whether a Python program can be run, read, and have temporary files, as another user."""
    folder = tempfile.mkdtemp(prefix="qinling-")
    try:
        impersonation.run_as(
            uid, *command[:-1], "-c", _LOOK, command[-1], impersonation.make_inner(folder, uid)
        )
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        _remove(folder, uid)
    return True
