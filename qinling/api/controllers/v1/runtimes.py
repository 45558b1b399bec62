"""``/v1/runtimes``."""

import uuid
from typing import TYPE_CHECKING, Any

import pecan
from oslo_config import cfg

from qinling import context, exceptions
from qinling.api import query
from qinling.api.controllers import routing
from qinling.api.controllers.routing import ATTEMPTS, caller_of
from qinling.api.types import runtimes as types
from qinling.api.types.base import Uuid, expose
from qinling.db import api as db_api
from qinling.db import runtimes, workers
from qinling.policies import runtimes as policies
from qinling.states import RuntimeStatus

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier

FIELDS = dict.fromkeys(runtimes.LISTED, query.TEXT) | {
    "is_public": query.BOOLEAN,
    "trusted": query.BOOLEAN,
    "created_at": query.TIME,
    "updated_at": query.TIME,
}


class RuntimesController(routing.Resource):
    routes = {
        (): {"GET": "show_all", "POST": "create"},
        (None,): {"GET": "show", "PUT": "update", "DELETE": "delete"},
        (None, "pool"): {"GET": "show_pool"},
    }

    def __init__(self, conf: cfg.ConfigOpts, db: db_api.Database, engine: "EngineNotifier") -> None:
        self._conf = conf
        self._db = db
        self._engine = engine

    @expose(types.Runtime, body=types.RuntimeCreate, status_code=201)
    def create(self, body: types.RuntimeCreate) -> types.Runtime:
        caller = caller_of(pecan.request)
        caller.can(policies.CREATE)
        values = {"name": None, "description": None} | body.given()
        row = self._db.write(
            runtimes.create,
            values | {"id": str(uuid.uuid4()), "project_id": caller.project_id},
        )
        self._engine.create_runtime(caller, row.id)
        return _shown(caller, row)

    @routing.takes_query
    @expose(types.Runtimes)
    def show_all(self) -> types.Runtimes:
        caller = caller_of(pecan.request)
        caller.can(policies.LIST)
        asked = query.Query(pecan.request, FIELDS, self._conf)
        project_id = asked.project(caller, policies.LIST_ALL)
        page = self._db.read(runtimes.page, asked.listing, project_id)
        answer = types.Runtimes(runtimes=[_shown(caller, row) for row in page.rows])
        return asked.answer(answer, page)

    @expose(types.Runtime, Uuid())
    def show(self, runtime_id: str) -> types.Runtime:
        caller = caller_of(pecan.request)
        return _shown(caller, self._visible(caller, runtime_id))

    @expose(types.Pool, Uuid())
    def show_pool(self, runtime_id: str) -> types.Pool:
        caller = caller_of(pecan.request)
        runtime = self._visible(caller, runtime_id)
        caller.can(policies.SHOW_POOL, _target(runtime))
        return types.Pool.from_row(runtime)

    @expose(types.Runtime, Uuid(), body=types.RuntimeUpdate)
    def update(self, runtime_id: str, body: types.RuntimeUpdate) -> types.Runtime:
        caller = caller_of(pecan.request)
        values = body.given()
        runtime = self._visible(caller, runtime_id)
        caller.can(policies.UPDATE, _target(runtime))
        for _ in range(ATTEMPTS):
            if not _new_image(runtime, values):
                words = {name: values[name] for name in runtimes.DESCRIPTIVE if name in values}
                if words:
                    self._db.write(runtimes.describe, runtime_id, words)
                return self._answer(caller, runtime_id)
            self._check_unclaimed(runtime)
            if self._db.write(runtimes.upgrade, runtime, values):
                self._engine.update_runtime(caller, runtime_id)
                return self._answer(caller, runtime_id)
            runtime = self._db.read(runtimes.get, runtime_id)
        raise exceptions.Conflict(f"Runtime {runtime_id} is being changed by others; try again.")

    @expose(None, Uuid(), status_code=204)
    def delete(self, runtime_id: str) -> None:
        caller = caller_of(pecan.request)
        runtime = self._visible(caller, runtime_id)
        caller.can(policies.DELETE, _target(runtime))
        for _ in range(ATTEMPTS):
            if runtime.status is RuntimeStatus.DELETING:
                return
            if self._db.write(runtimes.delete, runtime):
                self._engine.delete_runtime(caller, runtime_id)
                return
            runtime = self._db.read(runtimes.get, runtime_id)
        raise exceptions.Conflict(f"Runtime {runtime_id} is being changed by others; try again.")

    def _answer(self, caller: context.RequestContext, runtime_id: str) -> types.Runtime:
        return _shown(caller, self._db.read(runtimes.get, runtime_id))

    def _check_unclaimed(self, runtime: runtimes.Runtime) -> None:
        """:raises Forbidden: functions have workers of the image that is to be changed."""
        function_id = self._db.read(workers.user, runtime.id)
        if function_id is not None:
            raise exceptions.Forbidden(
                f"image: function {function_id} has workers of runtime {runtime.id}; detach them "
                "first."
            )

    def _visible(self, caller: context.RequestContext, runtime_id: str) -> runtimes.Runtime:
        """The runtime, if it exists for this caller."""
        caller.can(policies.SHOW)
        runtime = self._db.read(runtimes.get, runtime_id)
        visible = runtime.is_public or runtime.project_id == caller.project_id
        if not visible and not caller.may(policies.SHOW_ALL):
            raise exceptions.NotFound.of("Runtime", runtime_id)
        return runtime


def _shown(caller: context.RequestContext, row: runtimes.Runtime) -> types.Runtime:
    """A runtime as this caller may see it: what is wrong with its pool in whole, or the cause."""
    details = row.reason is None or caller.may(policies.SHOW_POOL, _target(row))
    return types.Runtime.from_row(row, details=details)


def _target(runtime: runtimes.Runtime) -> dict[str, Any]:
    """What a policy may look at: whose runtime it is."""
    return {"project_id": runtime.project_id}


def _new_image(runtime: runtimes.Runtime, values: dict[str, Any]) -> bool:
    """Whether ``values`` ask for another image; 409 when this is not the time."""
    if "image" not in values:
        return False
    if runtime.status is RuntimeStatus.ERROR:
        return True  # the same one, tried once more, may come up this time
    if runtime.status is not RuntimeStatus.AVAILABLE:
        raise exceptions.Conflict(
            f"image: runtime {runtime.id} is {runtime.status}; its image can be changed "
            "when it is available or in error."
        )
    return bool(values["image"] != runtime.image)
