"""Packages between calls and their store, for all nouns that have some."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pecan
from oslo_log import log

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import functions
from qinling.storage import base as storage
from qinling.storage import inspection

LOG = log.getLogger(__name__)

_PIECE = 64 * 1024
# Packages that are looked up at a time.
_BATCH = 500


class Packages:
    def __init__(self, db: db_api.Database, store: storage.PackageStore) -> None:
        self._db = db
        self._store = store

    @contextlib.contextmanager
    def kept(self, upload: storage.Upload) -> Iterator[storage.Package]:
        """While a row is written that refers to an upload: the upload is in the store."""
        try:
            with self._store.holding():
                yield self._store.put(upload)
        except exceptions.DatabaseUnavailable:
            # Its row may be committed still, and by then nobody would look: the next start does.
            raise
        except exceptions.QinlingError:
            # No row refers to it after all.
            self.forget(upload.package.digest)
            raise

    def forget(self, *digests: str) -> None:
        """Remove packages that nothing may refer to any more."""
        for digest in digests:
            try:
                self._store.remove(digest, lambda: self._is_used(digest))  # noqa: B023  # at once
            except exceptions.Unavailable as error:
                # What was asked for is done; this is only space.
                LOG.warning("Package %s stays in the store: %s", digest, error)

    def sweep(self) -> None:
        """Remove the packages that never got a row: their program was killed in between."""
        try:
            stored = self._store.stored()
            while digests := set(itertools.islice(stored, _BATCH)):
                unused = digests - self._db.read(functions.packages_in_use, digests)
                for digest in unused:
                    LOG.info("Package %s, which nothing refers to, is removed.", digest)
                self.forget(*unused)
        except exceptions.Unavailable as error:
            LOG.warning("Packages that nothing refers to stay in the store: %s", error)

    def check_entry(self, digest: str, entry: str) -> None:
        """:raises BadRequest: the package has nothing for it."""
        with self._store.open(digest) as package:
            inspection.check_entry(package, entry)

    def download(self, digest: str, name: str, again: Callable[[], str | None]) -> pecan.Response:
        """The answer that is a package, under the name that the contract gives it.

        :param again: reads the digest anew: who changes a row removes the package that it had.
        """
        while True:
            try:
                file = self._store.open(digest)
                break
            except exceptions.PackageLost:
                current = again()
                if current is None or current == digest:
                    raise
                digest = current
        size = file.seek(0, 2)
        file.seek(0)
        answer = pecan.Response(
            app_iter=_Pieces(file), content_type="application/zip", charset=None
        )
        answer.content_length = size
        answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return answer

    def _is_used(self, digest: str) -> bool:
        return self._db.read(functions.package_is_used, digest)


class _Pieces:
    """A file as the body of an answer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._file.read(_PIECE):
            yield piece

    def close(self) -> None:
        self._file.close()
