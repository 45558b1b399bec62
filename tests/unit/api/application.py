"""The whole application in the test's own process, on a database of the test's."""

import io
import json
from collections.abc import Iterable
from typing import Any

from oslo_config import cfg

from qinling.api import app
from qinling.db import api as db_api
from tests.unit.api.wsgi import Answer, call, environ


class Engine:
    """Notes what an engine was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def create_runtime(self, _asked_by: object, runtime_id: str) -> None:
        self.told.append(("create", runtime_id))

    def update_runtime(self, _asked_by: object, runtime_id: str) -> None:
        self.told.append(("update", runtime_id))

    def delete_runtime(self, _asked_by: object, runtime_id: str) -> None:
        self.told.append(("delete", runtime_id))

    def update_function(self, _asked_by: object, function_id: str) -> None:
        self.told.append(("update function", function_id))

    def delete_function(self, _asked_by: object, function_id: str) -> None:
        self.told.append(("delete function", function_id))

    def claim(self, _asked_by: object, runtime_id: str) -> None:
        self.told.append(("claim", runtime_id))

    def execute(self, _asked_by: object, execution_id: str) -> None:
        self.told.append(("execute", execution_id))

    def delete_execution(self, _context: object, execution_id: str) -> None:
        self.told.append(("delete execution", execution_id))


class Api:
    """The application, asked as a server asks it.

    :param auth: whether callers must bring a token; without, it is open to all.
    """

    def __init__(self, conf: cfg.ConfigOpts, db: db_api.Database, *, auth: bool = False) -> None:
        conf.set_override("auth_enable", auth, group="pecan")
        self.engine = Engine()
        self._application = app.build(conf, db, self.engine)

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, **headers: str
    ) -> Answer:
        """The answer; ``headers`` as WSGI names them."""
        request = _request(method, path, body, **headers)
        return call(self._application, request)  # type: ignore[arg-type]

    def stream(self, method: str, path: str) -> Iterable[bytes]:
        """The answer's body, as it comes."""
        return self._application(_request(method, path, None), lambda *_: lambda _data: None)


def _request(method: str, path: str, body: dict[str, Any] | None, **headers: str) -> dict[str, Any]:
    content = b"" if body is None else json.dumps(body).encode()
    path, _, query = path.partition("?")
    return environ(
        method,
        path,
        QUERY_STRING=query,
        SCRIPT_NAME="",
        HTTP_HOST="example.test:7070",
        CONTENT_LENGTH=str(len(content)),
        **{"wsgi.input": io.BytesIO(content)},
        **headers,
    )
