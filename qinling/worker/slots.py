"""Keeps as many slots ready as executions may run at once.

One thread forks what is missing: at first, and when a slot was killed. An
execution takes a slot and gives it back; one that is not sound any more is
ended, with all that its execution has left, and replaced.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable

from qinling.worker import processes
from qinling.worker.channel import FRAME
from qinling.worker.child import Child, Exhausted, Gone, Late
from qinling.worker.function import EXHAUSTED, Function
from qinling.worker.log import Log
from qinling.worker.zygote import FORK_SLOT, IMPORT, CleanZygote

#: Seconds until it is given up to start a slot, and between two attempts.
_PATIENCE = 5.0
_PAUSE = 0.02
#: Seconds that the first slot has the processor for itself, unless another one is asked for: the
#: function's first execution is on its way to it.
_HEAD_START = 0.05


class Unimportable(Exception):
    """The function cannot be had; the text says why, ``log`` is for those who run it."""

    def __init__(self, text: str, log: str) -> None:
        super().__init__(text)
        self.log = log


class Slot:
    """A process that executes the function, and what it may hold."""

    def __init__(self, child: Child, memory: int) -> None:
        self.child = child
        self.memory = memory


class Slots:
    """:param lost: called when no process can be forked any more; the worker is of no use then."""

    def __init__(self, clean: CleanZygote, function: Function, lost: Callable[[], None]) -> None:
        self._clean = clean
        self._function = function
        self._lost = lost
        self._zygote: Child | None = None
        # A zygote that is being forked.
        self._coming: Child | None = None
        #: Whether slots are forked with the function in them.
        self._shared = True
        self._lock = threading.Lock()
        # Two: giving a slot back is no reason to wake the thread.
        self._available = threading.Condition(self._lock)
        self._wanted = threading.Condition(self._lock)
        self._all: set[Slot] = set()
        self._ready: list[Slot] = []
        self._ending: list[Slot] = []
        self._fault: Unimportable | None = None
        self._closed = False
        self._own = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def prepare(self) -> None:
        """Begin to fork what imports the function, which need not be there yet."""
        # Who cannot be forked now is missed when the function is there.
        with contextlib.suppress(OSError):
            self._coming = self._order_zygote(imports=True)

    def start(self) -> None:
        """Import the function, and from then on keep slots ready.

        :raises Unimportable: that fails, and always will.
        """
        try:
            self._zygote = self._fork_zygote()
        except OSError as error:
            raise _no_process(error) from None
        self._thread.start()

    def take(self) -> Slot:
        """A slot, waited for; to be given back.

        :raises Unimportable: the function cannot be imported any more.
        """
        with self._lock:
            # Asked for anew: what failed once may have been the moment's fault.
            self._fault = None
            while True:
                while self._ready:
                    slot = self._ready.pop()
                    if slot.child.is_quiet():
                        return slot
                    self._replace(slot)
                if self._fault is not None:
                    raise self._fault
                self._wanted.notify()
                self._available.wait()

    def give_back(self, slot: Slot, *, reusable: bool) -> None:
        """After an execution; what it has left running is ended."""
        sound = reusable and slot.child.is_sound()
        if not sound:
            slot.child.kill()
        with self._lock:
            if sound and not self._has_strays():
                self._ready.append(slot)
                self._available.notify()
            else:
                self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        self._ending.append(slot)
        self._wanted.notify()

    def close(self) -> None:
        """End all slots."""
        with self._lock:
            self._closed = True
            self._wanted.notify()
        if self._thread.ident is not None:
            self._thread.join()
        for slot in self._all:
            slot.child.close()
        if self._coming is not None:
            # Nobody can be ended who has not come yet.
            with contextlib.suppress(Gone):
                self._coming.meet()
            self._coming.close()
            self._coming = None
        if self._zygote is not None:
            self._zygote.close()
        os.close(self._own)
        self._all.clear()
        self._end_strays()

    # What the thread does, alone.

    def _keep(self) -> None:
        is_first = True
        while self._wait_for_work():
            self._end_slots()
            self._end_strays()
            slot, fault = None, None
            try:
                slot = self._fork_slot()
            except Unimportable as error:
                fault = error
            except OSError as error:
                fault = _no_process(error)
            with self._lock:
                if slot is not None:
                    self._all.add(slot)
                    self._ready.append(slot)
                self._fault = fault
                self._available.notify_all()
                if is_first:
                    self._wanted.wait(_HEAD_START)
            is_first = False

    def _wait_for_work(self) -> bool:
        most = self._function.concurrency
        with self._lock:
            while not self._closed:
                wanted = len(self._all) - len(self._ending) < most
                if wanted and self._fault is None:
                    return True
                self._wanted.wait()
        return False

    def _end_slots(self) -> None:
        with self._lock:
            ending, self._ending = self._ending, []
            self._all.difference_update(ending)
        for slot in ending:
            slot.child.close()

    def _fork_slot(self) -> Slot:
        """:raises Unimportable: it imports for itself, and that fails."""
        until = time.monotonic() + _PATIENCE
        while True:
            zygote = self._living_zygote()
            child = Child(self._function.max_result_size + FRAME)
            try:
                zygote.command(FORK_SLOT, child.theirs)
                child.meet()
                break
            except (OSError, Gone) as error:
                # The zygote was killed meanwhile; or there are too many processes for another.
                child.close()
                if time.monotonic() > until:
                    raise _no_process(error) from None
                time.sleep(_PAUSE)
        self._import(child)
        return Slot(child, child.resident() + self._function.memory_size)

    def _living_zygote(self) -> Child:
        if self._zygote is not None and self._zygote.has_ended():
            self._zygote.close()
            self._zygote = None
        if self._zygote is None:
            self._zygote = self._fork_zygote()
        return self._zygote

    def _fork_zygote(self) -> Child:
        """A zygote that has imported the function or, where that cannot be shared, a clean one."""
        if self._shared:
            zygote = self._new_zygote(imports=True)
            self._shared = self._import(zygote, IMPORT)
            if self._shared:
                return zygote
            zygote.close()
            self._end_strays()
        return self._new_zygote(imports=False)

    def _order_zygote(self, *, imports: bool) -> Child:
        """:raises OSError: nobody is there to fork it."""
        child = Child(FRAME)
        try:
            self._clean.fork(self._function, imports, child.theirs)
        except OSError:
            child.close()
            raise
        return child

    def _new_zygote(self, *, imports: bool) -> Child:
        child, self._coming = self._coming, None
        try:
            if child is None:
                child = self._order_zygote(imports=imports)
            child.meet()
        except (OSError, Gone):
            if child is not None:
                child.close()
            print("The clean zygote is gone: this worker ends.", file=sys.stderr, flush=True)
            self._lost()
            raise Unimportable(EXHAUSTED, "The worker has lost its processes.\n") from None
        return child

    def _import(self, child: Child, message: bytes = b"") -> bool:
        """Watch a child's import; whether others can be forked from it.

        :param message: what it waits for to begin.
        :raises Unimportable: it failed; the child has been ended.
        """
        function, log = self._function, Log(self._function.max_log_size)
        most = child.resident() + function.import_memory
        trace: str | None = None
        try:
            match child.ask(message, time.monotonic() + function.import_timeout, most, log):
                case [None, _, bool(alone)]:
                    return alone
                case [str(text), str(said), _]:
                    trace = said
                case _:
                    text = "The import failed: its process has said what cannot be"
        except Late:
            text = f"The import took longer than {function.import_timeout:g} s"
        except Exhausted as error:
            text = f"The import was stopped: {error}"
        except Gone as error:
            text = f"The import failed: {error}"
        child.close()
        raise Unimportable(text, log.text(text + "\n" if trace is None else trace))

    # Processes that have left their slot, by what only a function can have meant.

    def _has_strays(self) -> bool:
        found = os.pread(self._own, 4096, 0).split()
        return len(found) > 1 and not self._known().issuperset(map(int, found))

    def _known(self) -> set[int]:
        """Slots are children of this process once their zygote was killed."""
        return {self._clean.pid, *(slot.child.pid for slot in self._all)}

    def _end_strays(self) -> None:
        with self._lock:
            known = self._known()
        for pid in processes.children(os.getpid()):
            if pid not in known:
                processes.kill_tree(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _no_process(error: Exception) -> Unimportable:
    return Unimportable(EXHAUSTED, f"No process could be started: {error}\n")
