"""From a URL and a method to a controller's method, by a table.

Pecan's RestController finds methods by the names in a URL and lets a query
override the method; here a URL is served when a table says so, and everything
else is 404 or 405 with the methods that are there.

A query string is for the methods that read it themselves. Pecan and WSME,
which would let it override a body and the ids in the URL, do not see it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pecan
import webob

from qinling import context, exceptions
from qinling.api.middleware import auth
from qinling.api.query import QUERY

# Methods of a URL below its controller, by the URL's parts after it.
# None stands for any one part, which the method gets as an argument.
Routes = Mapping[tuple[str | None, ...], Mapping[str, str]]

# Lost races in a row after which a change of a row is given up.
ATTEMPTS = 10

F = TypeVar("F", bound=Callable[..., Any])


def takes_query(method: F) -> F:
    """Mark a controller's method that reads ``environ[QUERY]``."""
    method.takes_query = True  # type: ignore[attr-defined]
    return method


def caller_of(request: webob.Request) -> context.RequestContext:
    """Who asks."""
    caller: context.RequestContext = request.environ[auth.CONTEXT]
    return caller


class Resource:
    """A controller with a table ``routes``, and those of the nouns below it in ``nested``."""

    routes: Routes
    nested: Sequence["Resource"] = ()

    def find(
        self, parts: list[str], request: webob.Request
    ) -> tuple[Callable[..., Any], list[str]]:
        """The method for a request and its arguments.

        :raises NotFound: no such URL. :raises MethodNotAllowed: not with this method.
        """
        for resource, pattern, methods in self.table():
            arguments = _match(pattern, parts)
            if arguments is None:
                continue
            if "GET" in methods:
                methods = {**methods, "HEAD": methods["GET"]}
            name = methods.get(request.method)
            if name is None:
                raise exceptions.MethodNotAllowed(request.method, request.path, sorted(methods))
            return getattr(resource, name), arguments
        raise exceptions.NotFound(f"There is nothing at {request.path}.")

    def table(
        self,
    ) -> Iterator[tuple["Resource", tuple[str | None, ...], Mapping[str, str]]]:
        """All that is served here: by which controller, at which URL, by which methods."""
        for resource in (self, *self.nested):
            for pattern, methods in resource.routes.items():
                yield resource, pattern, methods


class Application(pecan.Pecan):  # type: ignore[misc]
    """Pecan over a ``Resource``, whose tables say which method serves a URL."""

    def route(
        self, request: webob.Request, root: Resource, path: str
    ) -> tuple[Callable[..., Any], list[str]]:
        method, arguments = root.find([part for part in path.split("/") if part], request)
        query, request.environ["QUERY_STRING"] = request.environ.get("QUERY_STRING", ""), ""
        request.environ[QUERY] = query
        if query and not hasattr(method, "takes_query"):
            raise exceptions.BadRequest(f"{query[:40]!r}: this call has no query parameters.")
        return method, arguments

    def _handle_empty_response_body(self, state: Any) -> None:
        """Pecan reads each answer here, and calls an empty one 204; ours say what they are, and
        some are too large to be read.
        """


def _match(pattern: Sequence[str | None], parts: Sequence[str]) -> list[str] | None:
    if len(pattern) != len(parts):
        return None
    arguments = []
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted is None:
            arguments.append(part)
        elif wanted != part:
            return None
    return arguments
