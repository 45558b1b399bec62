"""``/v1/executions``."""

import contextlib
import uuid
from typing import TYPE_CHECKING, Any

import pecan
from oslo_config import cfg

from qinling import context, exceptions
from qinling.api import pieces, query
from qinling.api.controllers import idempotency, routing
from qinling.api.controllers.routing import ATTEMPTS, caller_of
from qinling.api.types import executions as types
from qinling.api.types.base import Uuid, expose
from qinling.db import api as db_api
from qinling.db import executions, function_aliases, function_versions, functions
from qinling.db import listing as lists
from qinling.execution import images
from qinling.execution.dispatch import Dispatcher
from qinling.policies import executions as policies
from qinling.states import ExecutionStatus, RuntimeStatus

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier

FIELDS = dict.fromkeys(executions.LISTED, query.TEXT) | {
    "function_version": query.NUMBER,
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
        self._awaiting = images.Awaiting(conf, db)

    @expose(types.Execution, body=types.ExecutionCreate, status_code=201)
    def create(self, body: types.ExecutionCreate) -> types.Execution:
        caller = caller_of(pecan.request)
        caller.can(policies.CREATE)
        asked = {"input": None, "description": None, "function_alias": None} | body.given()
        _check_named(asked)
        key = idempotency.key_of(pecan.request)
        if key is None:
            return types.Execution.from_row(self._accept(caller, asked, None))
        for _ in range(ATTEMPTS):
            first = self._db.read(executions.find_by_key, caller.project_id, key)
            if first is not None:
                return types.Execution.from_row(idempotency.first_answer(first, asked))
            # Another request with it may come first all the same.
            with contextlib.suppress(exceptions.KeyTaken):
                return types.Execution.from_row(self._accept(caller, asked, key))
        raise exceptions.KeyTaken

    def _accept(
        self, caller: context.RequestContext, asked: dict[str, Any], key: str | None
    ) -> executions.Execution:
        """Run what is asked for, or have it run.

        :raises KeyTaken: there is an execution with this key.
        """
        values = dict(asked)
        function = self._function(caller, values)
        values |= {
            "id": str(uuid.uuid4()),
            "project_id": caller.project_id,
            "function_id": function.id,
            "idempotency_key": key,
        }
        if function.runtime_id is None:
            return self._run_image(caller, function, values)
        if values["sync"]:
            return self._dispatcher.start(values, function, caller)
        row = self._dispatcher.accept(values, function)
        self._engine.execute(caller, row.id)
        return row

    def _run_image(
        self, caller: context.RequestContext, function: functions.Function, values: dict[str, Any]
    ) -> executions.Execution:
        """An engine runs it, whoever waits for it."""
        images.arguments(values["input"])
        row = self._dispatcher.accept(values, function)
        self._engine.execute(caller, row.id)
        return self._awaiting.end_of(row, function.timeout) if values["sync"] else row

    @routing.takes_query
    @expose(types.Executions)
    def show_all(self) -> pecan.Response:
        caller = caller_of(pecan.request)
        caller.can(policies.LIST)
        asked = query.Query(pecan.request, FIELDS, self._conf)
        project_id = asked.project(caller, policies.LIST_ALL)

        def read(listing: lists.Listing) -> lists.Page:
            return self._db.read(executions.page, listing, project_id)

        return pieces.answer("executions", types.Execution, asked, read)

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
        # It may have been sent to a worker since it was read.
        deleted = self._db.write(executions.delete, execution.id)
        if deleted is not None and deleted.status is ExecutionStatus.RUNNING:
            if deleted.worker_id == deleted.id:
                self._engine.delete_execution(caller, deleted.id)
            else:
                self._dispatcher.cancel(deleted)

    def _function(
        self, caller: context.RequestContext, values: dict[str, Any]
    ) -> functions.Function:
        """What is to be run; an alias in ``values`` is replaced by what it stands for.

        :raises NotFound: there is no such thing for this caller.
        :raises Conflict: its runtime runs nothing now.
        """
        if values["function_alias"] is not None:
            alias = self._db.read(function_aliases.get, caller.project_id, values["function_alias"])
            values |= {
                "function_id": alias.function_id,
                "function_version": alias.function_version,
            }
        function, status = self._db.read(functions.get_to_run, values["function_id"])
        if function.project_id != caller.project_id:
            raise exceptions.NotFound.of("Function", function.id)
        if values["function_version"]:
            self._db.read(function_versions.get, function.id, values["function_version"])
        if function.runtime_id is not None and status is not RuntimeStatus.AVAILABLE:
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


def _check_named(asked: dict[str, Any]) -> None:
    """:raises BadRequest: it is not clear what is to be run."""
    if asked["function_alias"] is None:
        if "function_id" not in asked:
            raise exceptions.BadRequest("function_id: it, or function_alias, is required.")
    elif "function_id" in asked or asked["function_version"]:
        raise exceptions.BadRequest(
            "function_alias: it stands for a function and a version; give either it or function_id."
        )
