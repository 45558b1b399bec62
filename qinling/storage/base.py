"""What a store of packages does.

A package is known by its content: two functions with the same zip share one,
and nothing that is stored ever changes. ``api`` takes packages in, and
``engine`` hands them to workers.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from qinling.conf import storage

# Bytes of a package, packed.
MAX_PACKAGE = storage.MAX_PACKAGE * 1024**2


@dataclass(frozen=True, slots=True)
class Package:
    """A package by its digest (SHA-256, hex); ``md5sum`` is hex, ``size`` in bytes."""

    digest: str
    md5sum: str
    size: int


class Upload(Protocol):
    """A package that is coming in. Nothing of it stays unless it is kept."""

    @property
    def file(self) -> BinaryIO:
        """What has come so far, to be read from anywhere."""

    @property
    def package(self) -> Package: ...

    def write(self, data: bytes) -> None:
        """Take in the next piece.

        :raises BadRequest: it is more than a package may have.
        :raises Unavailable: it cannot be written down.
        """

    def close(self) -> None:
        """Forget it, unless it was kept."""


class Pieces(Protocol):
    """A package on its way to somebody who does not take it when it is cut short."""

    @property
    def size(self) -> int:
        """Bytes of all pieces."""

    def __iter__(self) -> Iterator[bytes]:
        """Its content, once. The last piece comes when all of it has been checked.

        :raises PackageLost: it is damaged. :raises Unavailable: the store cannot be read.
        """


class PackageStore(Protocol):
    def prepare(self) -> str:
        """Make the store ready, at the start of a program that takes packages in.

        :returns: its marker, the same for all that share it and no others.
        :raises StartupError: it cannot be used.
        """

    def marker(self) -> str | None:
        """The marker, for who reads only; None while nobody has prepared the store.

        :raises StartupError: it cannot be read.
        """

    def is_empty(self) -> bool:
        """Whether it has no package at all; one that nobody has prepared has none.

        :raises Unavailable: the store cannot be read.
        """

    def receive(self) -> Upload:
        """:raises Unavailable: nothing can be written."""

    def holding(self) -> AbstractContextManager[None]:
        """While this is entered nothing is removed: a package that was put within, or found, is
        there until the row that refers to it has been committed.
        """

    def put(self, upload: Upload) -> Package:
        """Keep an upload, whole or, after a crash, not at all.

        :raises Unavailable: it cannot be written down.
        """

    def open(self, digest: str) -> BinaryIO:
        """A package, to be read and closed; its content has been checked.

        :raises PackageLost: it is not there, or it is damaged.
        :raises Unavailable: the store cannot be read.
        """

    def pieces(self, digest: str) -> AbstractContextManager[Pieces]:
        """A package that is checked while it is read, which takes as long as to send it.

        :raises PackageLost: it is not there. :raises Unavailable: the store cannot be read.
        """

    def stored(self) -> Iterator[str]:
        """The digests of all packages but those that came just now.

        :raises Unavailable: the store cannot be read.
        """

    def remove(self, digest: str, is_used: Callable[[], bool]) -> None:
        """Remove a package unless ``is_used`` says, asked while nobody is ``holding``, that
        something refers to it.

        :raises Unavailable: the store cannot be written to.
        """
