"""Keeps as many slots ready as executions may run at once.

One thread forks what is missing: at first, and when a slot was killed. An
execution takes a slot and gives it back; one that is not sound any more is
ended, with all that its execution has left, and replaced.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable

from qinling.worker.channel import FRAME
from qinling.worker.child import Child, Exhausted, Gone, Late
from qinling.worker.family import Family
from qinling.worker.function import EXHAUSTED, Function
from qinling.worker.log import Log
from qinling.worker.zygote import FORK_SLOT, IMPORT, CleanZygote

#: Seconds until it is given up to start a slot, and between two attempts.
_PATIENCE = 5.0
_PAUSE = 0.02
#: Seconds that a zygote may take to be there, and a slot; a zygote that takes longer to fork one
#: has been stopped by what runs in it, or by a slot.
_ZYGOTE = 10.0
_SLOT = 3.0
#: Seconds that the first slot has the processor for itself, unless another one is asked for: the
#: function's first execution is on its way to it.
_HEAD_START = 0.05
#: Seconds until a slot is tried for again that could not be had beside others. Executions wait for
#: those meanwhile, and it would take the processor from them.
_AGAIN = 1.0


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
    """:param lost: called when no slot can be had any more; the worker is of no use then."""

    def __init__(self, clean: CleanZygote, function: Function, lost: Callable[[], None]) -> None:
        self._clean = clean
        self._function = function
        self._lost = lost
        self._family = Family(clean.pid)
        # A zygote that is being forked.
        self._coming: Child | None = None
        #: Whether slots are forked with the function in them.
        self._shared = True
        #: How many slots have been there at once, at most.
        self._most = 0
        self._lock = threading.Lock()
        # Two: giving a slot back is no reason to wake the thread.
        self._available = threading.Condition(self._lock)
        self._wanted = threading.Condition(self._lock)
        self._all: set[Slot] = set()
        self._ready: list[Slot] = []
        self._ending: list[Slot] = []
        #: Why the latest slot could not be had; and when it may be tried again beside others.
        self._fault: Unimportable | None = None
        self._again = 0.0
        self._closed = False
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
            self._fork_zygote()
        except OSError as error:
            raise _no_process(error) from None
        self._thread.start()

    def take(self) -> Slot:
        """A slot, waited for; to be given back.

        :raises Unimportable: the function cannot be imported any more.
        """
        with self._lock:
            if not self._living():
                # Asked for anew: what failed once may have been the moment's fault.
                self._fault = None
            while True:
                while self._ready:
                    slot = self._ready.pop()
                    if slot.child.is_quiet():
                        return slot
                    self._replace(slot)
                if self._fault is not None:
                    if not self._living():
                        raise self._fault
                    if time.monotonic() >= self._again:
                        self._fault = None
                self._wanted.notify()
                self._available.wait(_AGAIN)

    def give_back(self, slot: Slot, *, reusable: bool) -> None:
        """After an execution; what it has left running is ended."""
        sound = reusable and slot.child.is_sound() and not self._family.has_strays()
        if not sound:
            slot.child.kill()
        with self._lock:
            if sound:
                self._ready.append(slot)
                self._available.notify()
            else:
                self._replace(slot)

    def _replace(self, slot: Slot) -> None:
        self._ending.append(slot)
        # It may have been in the way: an import may do what only one process can.
        self._fault = None
        self._wanted.notify()

    def _living(self) -> int:
        return len(self._all) - len(self._ending)

    def close(self) -> None:
        """End all slots."""
        with self._lock:
            self._closed = True
            self._wanted.notify()
        if self._thread.ident is not None:
            self._thread.join()
        if self._coming is not None:
            # Nobody can be ended who has not come yet.
            with contextlib.suppress(Late, Gone):
                self._family.meet(self._coming, _ZYGOTE)
            self._coming = None
        self._family.close()

    # What the thread does, alone.

    def _keep(self) -> None:
        is_first = True
        while self._wait_for_work():
            self._end_slots()
            self._family.end_strays()
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
                    there = self._all.difference(self._ending)
                    self._most = max(self._most, sum(not each.child.has_ended() for each in there))
                # Who is replaced since it was tried may have been in the way.
                self._fault = None if self._ending else fault
                self._again = time.monotonic() + _AGAIN
                self._available.notify_all()
                if is_first:
                    self._wanted.wait(_HEAD_START)
            is_first = False
            # Who came while it was on its way, and was not known, was let be.
            self._family.end_strays()

    def _wait_for_work(self) -> bool:
        most = self._function.concurrency
        with self._lock:
            while not self._closed:
                if self._living() < most and self._fault is None:
                    return True
                self._wanted.wait()
        return False

    def _end_slots(self) -> None:
        with self._lock:
            ending, self._ending = self._ending, []
            self._all.difference_update(ending)
        for slot in ending:
            self._family.part(slot.child)

    def _fork_slot(self) -> Slot:
        """:raises Unimportable: it imports for itself, and that fails."""
        until = time.monotonic() + _PATIENCE
        while True:
            zygote = self._living_zygote()
            child = self._family.expect(self._function.max_result_size + FRAME)
            try:
                zygote.command(FORK_SLOT, child.theirs)
                self._family.meet(child, _SLOT)
                break
            except Late as error:
                self._family.part(zygote)
                trouble: Exception = error
            except (OSError, Gone) as error:
                # The zygote was killed meanwhile; or there are too many processes for another.
                trouble = error
            self._family.part(child)
            if time.monotonic() > until:
                raise _no_process(trouble)
            time.sleep(_PAUSE)
        self._import(child)
        return Slot(child, child.memory() + self._function.memory_size)

    def _living_zygote(self) -> Child:
        zygote = self._family.zygote
        if zygote is None:
            return self._fork_zygote()
        if zygote.has_ended():
            self._family.part(zygote)
            return self._fork_zygote()
        return zygote

    def _fork_zygote(self) -> Child:
        """A zygote that has imported the function or, where that cannot be shared, a clean one."""
        if self._shared:
            zygote = self._new_zygote(imports=True)
            alone = self._import(zygote, IMPORT)
            self._shared = alone and zygote.is_sound() and not self._family.has_strays()
            if not self._shared:
                self._family.part(zygote)
                self._family.end_strays()
        if not self._shared:
            zygote = self._new_zygote(imports=False)
        self._family.follow(zygote)
        return zygote

    def _order_zygote(self, *, imports: bool) -> Child:
        """:raises OSError: nobody is there to fork it."""
        child = self._family.expect(FRAME)
        try:
            self._clean.fork(self._function, imports, child.theirs)
        except OSError:
            self._family.part(child)
            raise
        return child

    def _new_zygote(self, *, imports: bool) -> Child:
        child, self._coming = self._coming, None
        try:
            if child is None:
                child = self._order_zygote(imports=imports)
            self._family.meet(child, _ZYGOTE)
        except (OSError, Late, Gone):
            if child is not None:
                self._family.part(child)
            self._give_up("The clean zygote is gone")
            raise Unimportable(EXHAUSTED, "The worker has lost its processes.\n") from None
        return child

    def _import(self, child: Child, message: bytes = b"") -> bool:
        """Watch a child's import; whether others can be forked from it.

        :param message: what it waits for to begin.
        :raises Unimportable: it failed; the child has been ended.
        """
        function, log = self._function, Log(self._function.max_log_size)
        most = child.memory() + function.import_memory
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
        self._family.part(child)
        self._family.end_strays()
        # It says itself that it cannot be had beside this many slots, and was once beside as many:
        # what it is imported from is not what it was, and this worker has no other. One that may
        # never be there twice is served by a single slot.
        if trace is not None and len(self._all) < self._most:
            self._give_up("The function cannot be imported any more")
        raise Unimportable(text, log.text(text + "\n" if trace is None else trace))

    def _give_up(self, why: str) -> None:
        print(f"{why}: this worker ends.", file=sys.stderr, flush=True)
        self._lost()


def _no_process(error: Exception) -> Unimportable:
    return Unimportable(EXHAUSTED, f"No process could be started: {error}\n")
