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


class _Known:
    """Pids of all who may be a child of the three."""

    def __init__(self, pids: set[int]) -> None:
        self.pids = pids
        # Lists of children that had none but these: they are the same ones almost always.
        self._seen: set[bytes] = set()

    def has_all(self, children: bytes) -> bool:
        if children in self._seen:
            return True
        if self.pids.issuperset(map(int, children.split())):
            self._seen.add(children)
            return True
        return False


class Family:
    """:param clean: the pid of the clean zygote."""

    def __init__(self, clean: int) -> None:
        self._clean = clean
        self._lists = [processes.open_children(pid) for pid in (os.getpid(), clean)]
        self._lock = threading.Lock()
        self._members: set[Child] = set()
        # Who has ended: a child still, until its parent takes note of that.
        self._past: set[int] = set()
        # None while one is on its way, whose pid is not known yet.
        self._known: _Known | None = _Known({clean})
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
        """No, while one is on its way. Cheap, without a lock, as it is asked after each execution.

        It may be wrong at a moment at which a zygote is replaced; ``end_strays`` is not.
        """
        known = self._known
        try:
            return known is not None and self._has_strays(known)
        except (OSError, ValueError):
            # That is closed, and something else has its descriptors.
            return True

    def _has_strays(self, known: _Known) -> bool:
        own, clean = map(processes.read_children, self._lists)
        return not (known.has_all(own) and known.has_all(clean) and _is_good(self.zygote, known))

    def end_strays(self) -> None:
        """End whoever is not known, and a zygote that may have forked them, but not its slots."""
        with self._lock:
            known = self._known
            if known is None or not self._has_strays(known):
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

    def _end_but(self, known: _Known) -> None:
        own, clean = self._lists
        is_clean = known.has_all(processes.read_children(clean))
        if self.zygote is not None and not (is_clean and _is_good(self.zygote, known)):
            # Its children are the supervisor's then.
            self.zygote.end_alone()
        processes.kill_below(self._clean, known.pids)
        self._past |= set(processes.children(self._clean)) - known.pids
        until = time.monotonic() + _VANISH
        while not known.has_all(processes.read_children(own)) and time.monotonic() < until:
            processes.kill_below(os.getpid(), known.pids)
            for pid in set(processes.children(os.getpid())) - known.pids:
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
        self._known = None if 0 in pids else _Known({self._clean, *pids, *self._past})


def _is_good(zygote: Child | None, known: _Known) -> bool:
    return zygote is None or (zygote.threads() <= 1 and known.has_all(zygote.children()))
