"""``/v1/functions/{id}/workers`` and what changes how many there are."""

from typing import TYPE_CHECKING

import pecan
from oslo_config import cfg

from qinling import context, exceptions
from qinling.api import query
from qinling.api.controllers import routing
from qinling.api.middleware import auth
from qinling.api.types import workers as types
from qinling.api.types.base import Uuid, expose
from qinling.db import api as db_api
from qinling.db import demands, functions, workers
from qinling.policies import functions as function_policies
from qinling.policies import workers as policies
from qinling.states import WorkerStatus

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier

_ITSELF = 0


class WorkersController(routing.Resource):
    routes = {
        (None, "workers"): {"GET": "show_all"},
        (None, "scale_up"): {"POST": "scale_up"},
        (None, "scale_down"): {"POST": "scale_down"},
        (None, "detach"): {"POST": "detach"},
    }

    def __init__(self, conf: cfg.ConfigOpts, db: db_api.Database, engine: "EngineNotifier") -> None:
        self._most = conf.engine.max_workers_per_function
        self._db = db
        self._engine = engine

    @routing.takes_query
    @expose(types.Workers, Uuid())
    def show_all(self, function_id: str) -> types.Workers:
        _, function = self._function(policies.LIST, function_id)
        version = query.number(pecan.request, "function_version")
        rows = self._db.read(workers.of_function, function.id)
        return types.Workers(
            workers=[
                types.Worker.from_row(row)
                for row in rows
                if row.status is not WorkerStatus.DRAINING
                and version in (None, row.function_version)
            ]
        )

    @expose(None, Uuid(), body=types.Scale, status_code=202)
    def scale_up(self, function_id: str, body: types.Scale) -> None:
        caller, function = self._function(policies.SCALE_UP, function_id)
        self._scale(caller, function, body.count)

    @expose(None, Uuid(), body=types.Scale, status_code=202)
    def scale_down(self, function_id: str, body: types.Scale) -> None:
        caller, function = self._function(policies.SCALE_DOWN, function_id)
        self._scale(caller, function, -body.count)

    @expose(None, Uuid(), status_code=202)
    def detach(self, function_id: str) -> None:
        caller, function = self._function(policies.DETACH, function_id)
        self._db.write(demands.let_go, function.id, _ITSELF)
        self._engine.update_function(caller, function.id)

    def _scale(
        self, caller: context.RequestContext, function: functions.Function, more: int
    ) -> None:
        if function.runtime_id is None:
            raise exceptions.BadRequest(f"Function {function.id} is an image: it has no workers.")
        if not self._db.write(demands.change, function.id, _ITSELF, more, self._most):
            raise exceptions.BadRequest(
                f"count: function {function.id} would have more than the {self._most} workers "
                "allowed."
            )
        self._engine.update_function(caller, function.id)

    def _function(
        self, rule: str, function_id: str
    ) -> tuple[context.RequestContext, functions.Function]:
        """Who asks, and for what.

        :raises NotFound: it does not exist for this caller.
        """
        caller: context.RequestContext = pecan.request.environ[auth.CONTEXT]
        caller.can(function_policies.SHOW)
        function = self._db.read(functions.get, function_id)
        if function.project_id != caller.project_id and not caller.may(function_policies.SHOW_ALL):
            raise exceptions.NotFound.of("Function", function_id)
        caller.can(rule, {"project_id": function.project_id})
        return caller, function
