"""From a URL and a method to a controller's method, by a table.

Pecan's RestController finds methods by the names in a URL and lets a query
override the method; here a URL is served when a table says so, and everything
else is 404 or 405 with the methods that are there.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pecan
import webob

from qinling import exceptions

# Methods of a URL below its controller, by the URL's parts after it.
# None stands for any one part, which the method gets as an argument.
Routes = Mapping[tuple[str | None, ...], Mapping[str, str]]


class Resource:
    """A controller with a table ``routes``."""

    routes: Routes

    @pecan.expose()  # type: ignore[untyped-decorator]
    def _route(
        self, parts: Sequence[str], request: webob.Request
    ) -> tuple[Callable[..., Any], list[str]]:
        return self.find([part for part in parts if part], request)

    def find(
        self, parts: list[str], request: webob.Request
    ) -> tuple[Callable[..., Any], list[str]]:
        """The method for a request and its arguments.

        :raises NotFound: no such URL. :raises MethodNotAllowed: not with this method.
        """
        for pattern, methods in self.routes.items():
            arguments = _match(pattern, parts)
            if arguments is None:
                continue
            name = methods.get("GET" if request.method == "HEAD" else request.method)
            if name is None:
                raise exceptions.MethodNotAllowed(request.method, request.path, sorted(methods))
            return getattr(self, name), arguments
        raise exceptions.NotFound(f"There is nothing at {request.path}.")


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
