"""A function's package on its way from the control plane to the disk."""

from typing import Any


class Archive:
    """A zip that is yet to be read from a connection."""

    def __init__(self, source: Any, size: int) -> None:
        self._source = source
        self._left = size

    def save(self, path: str) -> None:
        """:raises ConnectionError: the sender is gone."""
        with open(path, "wb") as file:
            while self._left:
                file.write(self._next())

    def skip(self) -> None:
        """Read it all the same: an answer may be lost when a sender is not heard out."""
        while self._left:
            self._next()

    def _next(self) -> bytes:
        chunk: bytes = self._source.read(min(self._left, 1 << 16))
        if not chunk:
            raise ConnectionError("the package ends early")
        self._left -= len(chunk)
        return chunk
