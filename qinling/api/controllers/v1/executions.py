"""``/v1/executions``."""

import uuid
from typing import TYPE_CHECKING, Any

import pecan
from oslo_config import cfg

from qinling import context, exceptions
from qinling.api import query
from qinling.api.controllers import routing
from qinling.api.controllers.routing import caller_of
from qinling.api.types import executions as types
from qinling.api.types.base import Uuid, expose
from qinling.db import api as db_api
from qinling.db import executions, function_aliases, function_versions, functions
from qinling.execution.dispatch import Dispatcher
from qinling.policies import executions as policies
from qinling.states import ExecutionStatus, RuntimeStatus

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier

FIELDS = dict.fromkeys(executions.LISTED, query.TEXT) | {
    "sync": query.BOOLEAN,
    "created_at": query.TIME,
    "updated_at": query.TIME,
}


class ExecutionsController(routing.Resource):
    routes = {
        (): {"GET": "show_all", "POST": "create"},
        (None,): {"GET": "show", "DELETE": "delete"},
        (None, "log"): {"GET": "show_log"},
    }

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        engine: "EngineNotifier",
        dispatcher: Dispatcher,
    ) -> None:
        self._conf = conf
        self._db = db
        self._engine = engine
        self._dispatcher = dispatcher

    @expose(types.Execution, body=types.ExecutionCreate, status_code=201)
    def create(self, body: types.ExecutionCreate) -> types.Execution:
        caller = caller_of(pecan.request)
        caller.can(policies.CREATE)
        values = {"input": None, "description": None, "function_alias": None} | body.given()
        function = self._function(caller, values)
        values |= {
            "id": str(uuid.uuid4()),
            "project_id": caller.project_id,
            "function_id": function.id,
        }
        if values["sync"]:
            row = self._dispatcher.start(values, function, caller)
        else:
            row = self._dispatcher.accept(values, function)
            self._engine.execute(caller, row.id)
        return types.Execution.from_row(row)

    @routing.takes_query
    @expose(types.Executions)
    def show_all(self) -> types.Executions:
        caller = caller_of(pecan.request)
        caller.can(policies.LIST)
        asked = query.Query(pecan.request, FIELDS, self._conf)
        project_id = asked.project(caller, policies.LIST_ALL)
        page = self._db.read(executions.page, asked.listing, project_id)
        answer = types.Executions(executions=[types.Execution.from_row(row) for row in page.rows])
        return asked.answer(answer, page)

    @expose(types.Execution, Uuid())
    def show(self, execution_id: str) -> types.Execution:
        return types.Execution.from_row(self._visible(caller_of(pecan.request), execution_id))

    @expose(None, Uuid())
    def show_log(self, execution_id: str) -> pecan.Response:
        caller = caller_of(pecan.request)
        execution = self._visible(caller, execution_id)
        caller.can(policies.SHOW_LOG, {"project_id": execution.project_id})
        printed = self._db.read(executions.log, execution.id)
        lines = f"Start execution: {execution.id}\n{printed}"
        if execution.status is not ExecutionStatus.RUNNING:
            end = "" if lines.endswith("\n") else "\n"
            lines = f"{lines}{end}Finished execution: {execution.id}\n"
        return pecan.Response(text=lines, content_type="text/plain", charset="UTF-8")

    @expose(None, Uuid(), status_code=204)
    def delete(self, execution_id: str) -> None:
        caller = caller_of(pecan.request)
        execution = self._visible(caller, execution_id)
        caller.can(policies.DELETE, {"project_id": execution.project_id})
        self._db.write(executions.remove, execution.id)
        if execution.status is ExecutionStatus.RUNNING:
            self._dispatcher.cancel(execution)

    def _function(
        self, caller: context.RequestContext, values: dict[str, Any]
    ) -> functions.Function:
        """What is to be run; an alias in ``values`` is replaced by what it stands for.

        :raises BadRequest, NotFound: there is no such thing for this caller.
        :raises Conflict: its runtime runs nothing now.
        """
        name, version = values["function_alias"], values["function_version"]
        if name is not None:
            if "function_id" in values or version:
                raise exceptions.BadRequest(
                    "function_alias: it stands for a function and a version; give either it or "
                    "function_id."
                )
            alias = self._db.read(function_aliases.get, caller.project_id, name)
            values |= {
                "function_id": alias.function_id,
                "function_version": alias.function_version,
            }
        elif "function_id" not in values:
            raise exceptions.BadRequest("function_id: it, or function_alias, is required.")
        function, status = self._db.read(functions.get_to_run, values["function_id"])
        if function.project_id != caller.project_id:
            raise exceptions.NotFound.of("Function", function.id)
        if values["function_version"]:
            self._db.read(function_versions.get, function.id, values["function_version"])
        if function.runtime_id is None:
            raise exceptions.Conflict(f"Function {function.id}: images cannot be run yet.")
        if status is not RuntimeStatus.AVAILABLE:
            raise exceptions.Conflict(
                f"Runtime {function.runtime_id} of function {function.id} is {status}; "
                "functions run when it is available."
            )
        return function

    def _visible(self, caller: context.RequestContext, execution_id: str) -> executions.Execution:
        """The execution, if it exists for this caller."""
        caller.can(policies.SHOW)
        execution = self._db.read(executions.get, execution_id)
        if execution.project_id != caller.project_id and not caller.may(policies.SHOW_ALL):
            raise exceptions.NotFound.of("Execution", execution_id)
        return execution
