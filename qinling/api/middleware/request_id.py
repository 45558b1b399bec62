"""A request id for every request, and one line in the log when it was answered."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from oslo_context import context as oslo_context
from oslo_log import log
from oslo_utils import uuidutils

from qinling import context
from qinling.api.middleware.errors import REQUEST_ID, shown

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOG = log.getLogger(__name__)

GLOBAL_REQUEST_ID = "openstack.global_request_id"
_HEADER = "x-openstack-request-id"


class RequestId:
    """Names the request, also in the answer, and logs it.

    What oslo.middleware's class of this name does, without a WebOb request
    and response made for each call.
    """

    def __init__(self, application: "WSGIApplication") -> None:
        self._application = application

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        request_id = environ[REQUEST_ID] = oslo_context.generate_request_id()
        inbound = environ.get("HTTP_X_OPENSTACK_REQUEST_ID", "")
        if inbound.startswith("req-") and uuidutils.is_uuid_like(inbound[4:]):
            environ[GLOBAL_REQUEST_ID] = inbound
        context.RequestContext(
            request_id=request_id, global_request_id=environ.get(GLOBAL_REQUEST_ID)
        )
        call = _Call(environ, start_response, request_id)
        try:
            call.body = self._application(environ, call.start)
        except Exception as error:
            call.status = str(getattr(error, "code", 500))
            call.close()
            raise
        return call


class _Call:
    """The answer to a request, which the server closes when it has sent it: then it is logged."""

    status = "500"
    body: Iterable[bytes] = ()

    def __init__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", request_id: str
    ) -> None:
        self._environ = environ
        self._start_response = start_response
        self._request_id = request_id
        self._began = time.monotonic()

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status = status[:3]
        return self._start_response(status, [*headers, (_HEADER, self._request_id)], exc_info)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        close = getattr(self.body, "close", None)
        if close is not None:
            close()
        spent = (time.monotonic() - self._began) * 1000
        LOG.info("%s %s %.1f ms", shown(self._environ), self.status, spent)
