"""``/v1/functions/{id}/workers``, and what changes how many a function, or a version, has."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pecan
from oslo_config import cfg

from qinling import context, exceptions
from qinling.api import query
from qinling.api.controllers import routing
from qinling.api.controllers.routing import caller_of
from qinling.api.types import workers as types
from qinling.api.types.base import Number, Uuid, expose
from qinling.db import api as db_api
from qinling.db import demands, function_versions, functions, workers
from qinling.policies import workers as policies
from qinling.states import WorkerStatus

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier


class WorkersController(routing.Resource):
    """
    :param visible: the function of an id, if it exists for a caller.
    """

    routes = {
        (None, "workers"): {"GET": "show_all"},
        (None, "scale_up"): {"POST": "scale_up"},
        (None, "scale_down"): {"POST": "scale_down"},
        (None, "detach"): {"POST": "detach"},
        (None, "versions", None, "scale_up"): {"POST": "scale_up_version"},
        (None, "versions", None, "scale_down"): {"POST": "scale_down_version"},
        (None, "versions", None, "detach"): {"POST": "detach_version"},
    }

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        engine: "EngineNotifier",
        visible: Callable[[context.RequestContext, str], functions.Function],
    ) -> None:
        self._most = conf.engine.max_workers_per_function
        self._db = db
        self._engine = engine
        self._visible = visible

    @routing.takes_query
    @expose(types.Workers, Uuid())
    def show_all(self, function_id: str) -> types.Workers:
        caller = caller_of(pecan.request)
        version = query.number(pecan.request, "function_version")
        function = self._visible(caller, function_id)
        caller.can(policies.LIST, {"project_id": function.project_id})
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
        self._scale(policies.SCALE_UP, function_id, 0, body.count)

    @expose(None, Uuid(), body=types.Scale, status_code=202)
    def scale_down(self, function_id: str, body: types.Scale) -> None:
        self._scale(policies.SCALE_DOWN, function_id, 0, -body.count)

    @expose(None, Uuid(), status_code=202)
    def detach(self, function_id: str) -> None:
        self._detach(function_id, 0)

    @expose(None, Uuid(), Number(), body=types.Scale, status_code=202)
    def scale_up_version(self, function_id: str, number: int, body: types.Scale) -> None:
        self._scale(policies.SCALE_UP, function_id, number, body.count)

    @expose(None, Uuid(), Number(), body=types.Scale, status_code=202)
    def scale_down_version(self, function_id: str, number: int, body: types.Scale) -> None:
        self._scale(policies.SCALE_DOWN, function_id, number, -body.count)

    @expose(None, Uuid(), Number(), status_code=202)
    def detach_version(self, function_id: str, number: int) -> None:
        self._detach(function_id, number)

    def _scale(self, rule: str, function_id: str, version: int, more: int) -> None:
        caller, function = self._target(rule, function_id, version)
        if function.runtime_id is None:
            raise exceptions.BadRequest(f"Function {function.id} is an image: it has no workers.")
        if not self._db.write(demands.change, function.id, version, more, self._most):
            raise exceptions.BadRequest(
                f"count: function {function.id} would have more than the {self._most} workers "
                "allowed."
            )
        self._engine.update_function(caller, function.id)

    def _detach(self, function_id: str, version: int) -> None:
        caller, function = self._target(policies.DETACH, function_id, version)
        self._db.write(demands.let_go, function.id, version)
        self._engine.update_function(caller, function.id)

    def _target(
        self, rule: str, function_id: str, version: int
    ) -> tuple[context.RequestContext, functions.Function]:
        """Who asks, and for which function.

        :raises NotFound: there is no such version of it, or it does not exist for this caller.
        """
        caller = caller_of(pecan.request)
        function = self._visible(caller, function_id)
        caller.can(rule, {"project_id": function.project_id})
        if version:
            self._db.read(function_versions.get, function.id, version)
        return caller, function
