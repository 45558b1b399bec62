"""Who belongs to a worker's function, and the end of whoever else there is.

What a function starts is below its slot, and judged with it. It can be elsewhere
only where that was meant: beside the slot (``CLONE_PARENT``), as an orphan that
the slot does not adopt, or as a child that the import has left in the zygote. All
of these are children of the supervisor, of the clean zygote or of the zygote, and
none of the three may have any but who is known here. The supervisor looks
itself: in the zygote runs user code, whose word on its children is worth nothing.
"""

import contextlib
import os
import signal
import threading
import time

from qinling.worker import processes
from qinling.worker.child import Child

#: Seconds that killed processes may take to be gone, and between two looks whether they are; who
#: takes longer is seen again.
_VANISH = 5.0
_PAUSE = 0.001


class Family:
    """:param clean: the pid of the clean zygote."""

    def __init__(self, clean: int) -> None:
        self._clean = clean
        self._lists = [processes.open_children(pid) for pid in (os.getpid(), clean)]
        self._lock = threading.Lock()
        self._members: set[Child] = set()
        # Who has ended: a child still, until its parent takes note of that.
        self._past: set[int] = set()
        # Whoever may be a child; None while one is on its way, whose pid nobody knows yet.
        self._known: set[int] | None = {clean}
        #: That forks slots: it may have no other children, and no second thread.
        self.zygote: Child | None = None

    def expect(self, most: int) -> Child:
        """One that is about to be forked, with its ends.

        :param most: bytes of an answer.
        """
        child = Child(most, self.end_strays)
        with self._lock:
            self._members.add(child)
            self._known = None
        return child

    def meet(self, child: Child, patience: float) -> None:
        """Wait, so many seconds at most, until one that is expected is there.

        :raises Late, Gone: it is not.
        """
        child.meet(patience)
        with self._lock:
            # The past ones of whoever has forked it are gone: that takes note of them before.
            parents = [os.getpid(), self._clean]
            if self.zygote is not None:
                parents.append(self.zygote.pid)
            self._past &= {pid for parent in parents for pid in processes.children(parent)}
            self._learn()

    def follow(self, zygote: Child) -> None:
        """This one forks slots from now on."""
        with self._lock:
            self.zygote = zygote

    def part(self, child: Child) -> None:
        """End one of these, with all below it but for the slots of a zygote that was followed."""
        with self._lock:
            if child is self.zygote:
                self.zygote = None
                child.end_alone()
        child.close()
        with self._lock:
            self._members.discard(child)
            if child.pid:
                self._past.add(child.pid)
            self._learn()

    def close(self) -> None:
        """End all but the clean zygote."""
        for child in list(self._members):
            self.part(child)
        self.end_strays()
        for each in self._lists:
            os.close(each)

    def has_strays(self) -> bool:
        """No, while one is on its way. Cheap, as it is asked after each execution."""
        with self._lock:
            return self._has_strays()

    def _has_strays(self) -> bool:
        known, zygote = self._known, self.zygote
        if known is None:
            return False
        return not (
            all(processes.is_within(known, each) for each in self._lists)
            and (zygote is None or zygote.has_only(known))
        )

    def end_strays(self) -> None:
        """End whoever is not known, and a zygote that may have forked them, but not its slots."""
        with self._lock:
            known = self._known
            if known is None or not self._has_strays():
                return
            # Or one that starts them as quickly as it can would have others by then.
            for child in self._members:
                child.send(signal.SIGSTOP)
            try:
                self._end_but(known)
            finally:
                for child in self._members:
                    child.send(signal.SIGCONT)
            self._learn()

    def _end_but(self, known: set[int]) -> None:
        own, clean = self._lists
        if self.zygote is not None and not (
            processes.is_within(known, clean) and self.zygote.has_only(known)
        ):
            # Its children are the supervisor's then.
            self.zygote.end_alone()
        processes.kill_below(self._clean, known)
        self._past |= set(processes.children(self._clean)) - known
        until = time.monotonic() + _VANISH
        while not processes.is_within(known, own) and time.monotonic() < until:
            processes.kill_below(os.getpid(), known)
            for pid in set(processes.children(os.getpid())) - known:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(_PAUSE)

    def _learn(self) -> None:
        for pid in list(self._past):
            with contextlib.suppress(ChildProcessError):
                # Of this process, if its zygote has ended.
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self._past.discard(pid)
        pids = {child.pid for child in self._members}
        self._known = None if 0 in pids else {self._clean, *pids, *self._past}
