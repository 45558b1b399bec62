"""``/v1/functions/{id}/versions``."""

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import pecan
from oslo_config import cfg

from qinling import context, exceptions
from qinling.api import query
from qinling.api.controllers import packages, routing
from qinling.api.controllers.routing import ATTEMPTS, caller_of
from qinling.api.types import function_versions as types
from qinling.api.types.base import Number, Uuid, expose
from qinling.db import api as db_api
from qinling.db import function_versions, functions
from qinling.policies import function_versions as policies

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier

FIELDS = dict.fromkeys(function_versions.LISTED, query.TEXT) | {
    "version_number": query.NUMBER,
    "count": query.NUMBER,
    "created_at": query.TIME,
    "updated_at": query.TIME,
}


class FunctionVersionsController(routing.Resource):
    """
    :param visible: the function of an id, if it exists for a caller.
    """

    routes = {
        (None, "versions"): {"GET": "show_all", "POST": "create"},
        (None, "versions", None): {"GET": "show", "DELETE": "delete"},
    }

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        engine: "EngineNotifier",
        kept: packages.Packages,
        visible: Callable[[context.RequestContext, str], functions.Function],
    ) -> None:
        self._conf = conf
        self._db = db
        self._engine = engine
        self._packages = kept
        self._visible = visible

    @expose(types.FunctionVersion, Uuid(), body=types.FunctionVersionCreate, status_code=201)
    def create(self, function_id: str, body: types.FunctionVersionCreate) -> types.FunctionVersion:
        caller = caller_of(pecan.request)
        function = self._own(caller, function_id, policies.CREATE)
        values = {"id": str(uuid.uuid4()), "description": None} | body.given()
        for _ in range(ATTEMPTS):
            version = self._db.write(function_versions.create, function, values)
            if version is not None:
                return types.FunctionVersion.from_row(version)
            function = self._db.read(functions.get, function_id)
        raise exceptions.FunctionChanged(function_id)

    @routing.takes_query
    @expose(types.FunctionVersions, Uuid())
    def show_all(self, function_id: str) -> types.FunctionVersions:
        caller = caller_of(pecan.request)
        asked = query.Query(pecan.request, FIELDS, self._conf, marker="version_number")
        function = self._visible(caller, function_id)
        caller.can(policies.LIST, {"project_id": function.project_id})
        page = self._db.read(function_versions.page, asked.listing, function_id)
        answer = types.FunctionVersions(
            function_versions=[types.FunctionVersion.from_row(row) for row in page.rows]
        )
        return asked.answer(answer, page)

    @routing.takes_query
    @expose(types.FunctionVersion, Uuid(), Number())
    def show(self, function_id: str, number: int) -> types.FunctionVersion | pecan.Response:
        caller = caller_of(pecan.request)
        download = query.flag(pecan.request, "download")
        function = self._visible(caller, function_id)
        target = {"project_id": function.project_id}
        caller.can(policies.SHOW, target)
        version = self._db.read(function_versions.get, function_id, number)
        if not download:
            return types.FunctionVersion.from_row(version)
        caller.can(policies.DOWNLOAD, target)
        return self._packages.download(
            version.package,
            f"{function_id}_{number}",
            lambda: self._db.read(function_versions.get, function_id, number).package,
        )

    @expose(None, Uuid(), Number(), status_code=204)
    def delete(self, function_id: str, number: int) -> None:
        caller = caller_of(pecan.request)
        self._own(caller, function_id, policies.DELETE)
        version = self._db.read(function_versions.get, function_id, number)
        self._db.write(function_versions.delete, function_id, number)
        self._engine.update_function(caller, function_id)
        self._packages.forget(version.package)

    def _own(
        self, caller: context.RequestContext, function_id: str, rule: str
    ) -> functions.Function:
        """A function whose versions the caller's project makes: of others there are none."""
        function = self._visible(caller, function_id)
        if function.project_id != caller.project_id:
            raise exceptions.NotFound.of("Function", function_id)
        caller.can(rule, {"project_id": function.project_id})
        return function
