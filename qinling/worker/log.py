"""What an execution prints, up to a limit."""

_NOTE = "\n[The log was cut here: {} bytes more were printed.]\n"


class Log:
    """:param most: bytes of it that are kept, the note and a traceback included."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self._cut = 0

    def add(self, output: bytes) -> None:
        room = self._most - len(self._kept)
        self._kept += output[:room]
        self._cut += max(len(output) - room, 0)

    def text(self, trace: str = "") -> str:
        """All of it. A traceback stands at the end, where more was printed than is kept, too."""
        # What is no UTF-8 takes more room as the character that stands for it.
        kept = self._kept.decode(errors="replace").encode()
        end = trace.encode(errors="replace")[-self._most :]
        if not self._cut and len(kept) + len(end) <= self._most:
            return (kept + end).decode(errors="ignore")
        room = max(self._most - len(end) - len(_NOTE) - 10, 0)
        note = _NOTE.format(self._cut + len(kept) - room)
        return kept[:room].decode(errors="ignore") + note + end.decode(errors="ignore")
