"""A list whose rows may be large: piece by piece, of which only one is in memory at a time.

Each piece is read by a query of its own, which begins behind the piece before. So no transaction
is open, and no connection to the database in use, while a client reads.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pecan
from oslo_log import log
from wsme.rest import json as wsme_json

from qinling import exceptions
from qinling.api.query import Query
from qinling.api.types.base import Type
from qinling.db import listing as lists

LOG = log.getLogger(__name__)

# Bytes of an answer to a list with ``limit``, and what of them is left for what is not rows: its
# link has a query string, which is shorter than all headers may be.
MAX_PAGE = 8 * 1024**2
_LINK = 64 * 1024


def answer(
    noun: str,
    kind: type[Type],
    asked: Query,
    read: Callable[[lists.Listing], lists.Page],
) -> pecan.Response:
    """The answer that is a list.

    With a limit it ends early when it is large, and goes on at ``next``. Should the database go
    away in the middle of it the connection is cut: nobody takes what has come for the whole.

    :param kind: the type that a row is shown as.
    :param read: as many as it likes of the rows that a listing asks for, the first ones, in their
        order; the page's cursor says whether there are more.
    """
    pieces = _Pieces(noun, kind, asked, read)
    first = pieces.read()
    # A small list is an answer like any other, with its length.
    body = [first] if pieces.ended else itertools.chain((first,), pieces)
    response = pecan.Response(app_iter=body, content_type="application/json", charset="UTF-8")
    if pieces.ended:
        response.content_length = len(first)
    return response


class _Pieces:
    """The body of the answer, as it is sent.

    :ivar ended: nothing comes any more.
    """

    def __init__(
        self,
        noun: str,
        kind: Any,
        asked: Query,
        read: Callable[[lists.Listing], lists.Page],
    ) -> None:
        self._noun = noun
        self._kind = kind
        self._asked = asked
        self._read = read
        self._listing = asked.listing
        self._left = MAX_PAGE - _LINK if asked.has_limit else None
        self._last: Any = None
        self._begins = f'{{"{noun}": ['
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            while not self.ended:
                yield self.read()
        except exceptions.QinlingError as error:
            LOG.warning("A list of %s is cut off: %s", self._noun, error)
            raise

    def read(self) -> bytes:
        """The next piece."""
        page = self._read(self._listing)
        text: list[str] = []
        for row in page.rows:
            shown = wsme_json.encode_result(self._kind.from_row(row), self._kind)
            if not self._fits(shown):
                return "".join([*text, self._end(goes_on=True)]).encode()
            text += [self._begins, shown]
            self._begins = ", "
            self._last = row
        limit = self._listing.limit - len(page.rows)
        if page.cursor is None or not limit:
            text.append(self._end(goes_on=page.cursor is not None))
        else:
            after = lists.decode_cursor(page.cursor, self._listing)
            self._listing = replace(self._listing, limit=limit, marker=None, after=after)
        return "".join(text).encode()

    def _fits(self, shown: str) -> bool:
        """Whether a row, which is ASCII, comes on this page; the first one always does."""
        if self._left is None:
            return True
        self._left -= len(shown) + len(", ")
        return self._left >= 0 or self._last is None

    def _end(self, *, goes_on: bool) -> str:
        self.ended = True
        # Without a row nothing has begun.
        text = self._begins if self._last is None else ""
        if not goes_on:
            return text + "]}"
        cursor = lists.encode_cursor(lists.keys_of(self._last, self._listing))
        return f'{text}], "next": {json.dumps(self._asked.link(self._last, cursor))}}}'
