"""``/v1/aliases``."""

import uuid

import pecan
from oslo_config import cfg

from qinling.api import query
from qinling.api.controllers import routing
from qinling.api.controllers.routing import caller_of
from qinling.api.types import function_aliases as types
from qinling.api.types.base import expose
from qinling.db import api as db_api
from qinling.db import function_aliases
from qinling.policies import function_aliases as policies

FIELDS = dict.fromkeys(function_aliases.LISTED, query.TEXT) | {
    "function_version": query.NUMBER,
    "created_at": query.TIME,
    "updated_at": query.TIME,
}


class FunctionAliasesController(routing.Resource):
    """An alias is found by its name, within the caller's project."""

    routes = {
        (): {"GET": "show_all", "POST": "create"},
        (None,): {"GET": "show", "PUT": "update", "DELETE": "delete"},
    }

    def __init__(self, conf: cfg.ConfigOpts, db: db_api.Database) -> None:
        self._conf = conf
        self._db = db

    @expose(types.FunctionAlias, body=types.FunctionAliasCreate, status_code=201)
    def create(self, body: types.FunctionAliasCreate) -> types.FunctionAlias:
        caller = caller_of(pecan.request)
        caller.can(policies.CREATE)
        values = {"description": None, "function_version": 0} | body.given()
        own = {"id": str(uuid.uuid4()), "project_id": caller.project_id}
        return types.FunctionAlias.from_row(self._db.write(function_aliases.create, values | own))

    @routing.takes_query
    @expose(types.FunctionAliases)
    def show_all(self) -> types.FunctionAliases:
        caller = caller_of(pecan.request)
        caller.can(policies.LIST)
        asked = query.Query(pecan.request, FIELDS, self._conf, marker="name")
        project_id = asked.project(caller, policies.LIST_ALL)
        page = self._db.read(function_aliases.page, asked.listing, project_id)
        answer = types.FunctionAliases(
            function_aliases=[types.FunctionAlias.from_row(row) for row in page.rows]
        )
        return asked.answer(answer, page)

    @expose(types.FunctionAlias, types.Name())
    def show(self, name: str) -> types.FunctionAlias:
        caller = caller_of(pecan.request)
        caller.can(policies.SHOW)
        return types.FunctionAlias.from_row(
            self._db.read(function_aliases.get, caller.project_id, name)
        )

    @expose(types.FunctionAlias, types.Name(), body=types.FunctionAliasUpdate)
    def update(self, name: str, body: types.FunctionAliasUpdate) -> types.FunctionAlias:
        caller = caller_of(pecan.request)
        caller.can(policies.UPDATE)
        return types.FunctionAlias.from_row(
            self._db.write(function_aliases.update, caller.project_id, name, body.given())
        )

    @expose(None, types.Name(), status_code=204)
    def delete(self, name: str) -> None:
        caller = caller_of(pecan.request)
        caller.can(policies.DELETE)
        self._db.write(function_aliases.delete, caller.project_id, name)
