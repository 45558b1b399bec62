"""``/v1/functions``."""

import functools
import uuid
from typing import TYPE_CHECKING, Any

import pecan
from oslo_config import cfg

from qinling import context, exceptions
from qinling.api import query
from qinling.api.controllers import packages, routing
from qinling.api.controllers.routing import ATTEMPTS, caller_of
from qinling.api.controllers.v1 import function_versions, workers
from qinling.api.middleware import forms
from qinling.api.types import functions as types
from qinling.api.types.base import Uuid, expose
from qinling.conf import resource_limits
from qinling.db import api as db_api
from qinling.db import functions, runtimes
from qinling.policies import functions as policies
from qinling.policies import runtimes as runtime_policies
from qinling.states import RuntimeStatus
from qinling.storage import base as storage
from qinling.storage import inspection

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier

FIELDS = dict.fromkeys(functions.LISTED, query.TEXT) | {
    "cpu": query.NUMBER,
    "memory_size": query.NUMBER,
    "timeout": query.NUMBER,
    "count": query.NUMBER,
    "latest_version": query.NUMBER,
    "created_at": query.TIME,
    "updated_at": query.TIME,
}

DEFAULT_ENTRY = "main.main"

_MIB = 1024**2


class FunctionsController(routing.Resource):
    routes = {
        (): {"GET": "show_all", "POST": "create"},
        (None,): {"GET": "show", "PUT": "update", "DELETE": "delete"},
    }

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        engine: "EngineNotifier",
        store: storage.PackageStore,
    ) -> None:
        self._conf = conf
        self._db = db
        self._engine = engine
        self._packages = packages.Packages(db, store)
        self.nested = (
            function_versions.FunctionVersionsController(
                conf, db, engine, self._packages, self._visible
            ),
            workers.WorkersController(conf, db, engine, self._visible),
        )

    @functools.cached_property
    def _limits(self) -> dict[str, resource_limits.Bounds]:
        return resource_limits.bounds(self._conf)

    @expose(types.Function, body=types.FunctionCreate, status_code=201)
    def create(self, body: types.FunctionCreate) -> types.Function:
        caller = caller_of(pecan.request)
        caller.can(policies.CREATE)
        code, values = body.parts()
        if code is None:
            raise exceptions.BadRequest("code: it is required.")
        asked = {name: values.get(name, limit.default) for name, limit in self._limits.items()}
        self._check_limits(asked)
        made = {
            "id": str(uuid.uuid4()),
            "project_id": caller.project_id,
            "name": values.get("name"),
            "description": values.get("description"),
            **asked,
        }
        if code.source == types.IMAGE:
            _refuse_upload("an image")
            # Of what only a package has, what is given is not used.
            own = {"runtime_id": None, "entry": None, "package": None, "code": code.stored()}
            return types.Function.from_row(self._db.write(functions.create, made | own))
        runtime_id = self._check_runtime(caller, values.get("runtime_id"))
        made |= {"runtime_id": runtime_id, "entry": values.get("entry", DEFAULT_ENTRY)}
        upload = pecan.request.environ.get(forms.UPLOAD)
        if upload is None:
            raise exceptions.BadRequest(
                "package: it is required, as a file part of a multipart/form-data body."
            )
        self._check_package(upload, code, made["entry"])
        with self._packages.kept(upload) as package:
            row = self._db.write(functions.create, made | _of(package))
        return types.Function.from_row(row)

    @routing.takes_query
    @expose(types.Functions)
    def show_all(self) -> types.Functions:
        caller = caller_of(pecan.request)
        caller.can(policies.LIST)
        asked = query.Query(pecan.request, FIELDS, self._conf)
        project_id = asked.project(caller, policies.LIST_ALL)
        page = self._db.read(functions.page, asked.listing, project_id)
        answer = types.Functions(functions=[types.Function.from_row(row) for row in page.rows])
        return asked.answer(answer, page)

    @routing.takes_query
    @expose(types.Function, Uuid())
    def show(self, function_id: str) -> types.Function | pecan.Response:
        caller = caller_of(pecan.request)
        download = query.flag(pecan.request, "download")
        function = self._visible(caller, function_id)
        if not download:
            return types.Function.from_row(function)
        caller.can(policies.DOWNLOAD, _target(function))
        if function.package is None:
            raise exceptions.NoPackage(function.id)
        return self._packages.download(
            function.package,
            function.id,
            lambda: self._db.read(functions.get, function_id).package,
        )

    @expose(types.Function, Uuid(), body=types.FunctionUpdate)
    def update(self, function_id: str, body: types.FunctionUpdate) -> types.Function:
        caller = caller_of(pecan.request)
        code, values = body.parts()
        function = self._visible(caller, function_id)
        caller.can(policies.UPDATE, _target(function))
        self._check_limits(values)
        upload = pecan.request.environ.get(forms.UPLOAD)
        _check_change(function, code, values, upload)
        if upload is not None:
            entry = values.get("entry", function.entry)
            self._check_package(upload, code or types.Code(types.PACKAGE), entry)
        if upload is None:
            function, changes = self._change(function, values)
        else:
            with self._packages.kept(upload) as package:
                function, changes = self._change(function, values | _of(package))
        if not changes.keys() <= functions.DESCRIPTIVE:
            self._engine.update_function(caller, function_id)
        if "package" in changes and function.package is not None:
            self._packages.forget(function.package)
        return types.Function.from_row(self._db.read(functions.get, function_id))

    @expose(None, Uuid(), status_code=204)
    def delete(self, function_id: str) -> None:
        caller = caller_of(pecan.request)
        function = self._visible(caller, function_id)
        caller.can(policies.DELETE, _target(function))
        for _ in range(ATTEMPTS):
            deleted = self._db.write(functions.delete, function)
            if deleted is not None:
                self._engine.delete_function(caller, function_id)
                self._packages.forget(*deleted)
                return
            function = self._db.read(functions.get, function_id)
        raise exceptions.FunctionChanged(function_id)

    def _change(
        self, function: functions.Function, values: dict[str, Any]
    ) -> tuple[functions.Function, dict[str, Any]]:
        """Make a function have ``values``; it as it was before, and what was changed of it."""
        for _ in range(ATTEMPTS):
            changes = {
                name: value for name, value in values.items() if value != getattr(function, name)
            }
            try:
                if "entry" in changes and "package" not in changes:
                    assert function.package is not None
                    self._packages.check_entry(function.package, changes["entry"])
            except exceptions.PackageLost:
                # Who changes a function removes the package that it had before.
                if self._db.read(functions.get, function.id).package == function.package:
                    raise
            else:
                if not changes or self._db.write(functions.update, function, changes):
                    return function, changes
            function = self._db.read(functions.get, function.id)
        raise exceptions.FunctionChanged(function.id)

    def _visible(self, caller: context.RequestContext, function_id: str) -> functions.Function:
        """The function, if it exists for this caller."""
        caller.can(policies.SHOW)
        function = self._db.read(functions.get, function_id)
        if function.project_id != caller.project_id and not caller.may(policies.SHOW_ALL):
            raise exceptions.NotFound.of("Function", function_id)
        return function

    def _check_runtime(self, caller: context.RequestContext, runtime_id: str | None) -> str:
        if runtime_id is None:
            raise exceptions.BadRequest("runtime_id: it is required.")
        runtime = self._db.read(runtimes.find, runtime_id)
        if runtime is None or not (
            runtime.is_public
            or runtime.project_id == caller.project_id
            or caller.may(runtime_policies.SHOW_ALL)
        ):
            raise exceptions.BadRequest(f"runtime_id: runtime {runtime_id} does not exist.")
        # Asked again where the row is written; here it spares the package's inspection.
        if runtime.status is not RuntimeStatus.AVAILABLE:
            raise exceptions.BadRequest(
                f"runtime_id: runtime {runtime_id} is {runtime.status}, and not available."
            )
        return runtime_id

    def _check_limits(self, values: dict[str, Any]) -> None:
        for name, limit in self._limits.items():
            if name in values:
                limit.check(name, values[name])

    def _check_package(self, upload: storage.Upload, code: types.Code, entry: str | None) -> None:
        assert entry is not None
        md5sum = upload.package.md5sum
        if code.md5sum not in (None, md5sum):
            raise exceptions.BadRequest(
                f"code: the md5sum is {code.md5sum}, and that of the package that came is {md5sum}."
            )
        inspection.check(upload.file, self._conf.storage.max_unpacked_size * _MIB, entry)


def _target(function: functions.Function) -> dict[str, Any]:
    """What a policy may look at: whose function it is."""
    return {"project_id": function.project_id}


def _of(package: storage.Package) -> dict[str, str]:
    """What a row says of a package."""
    code = types.Code(types.PACKAGE, md5sum=package.md5sum)
    return {"package": package.digest, "code": code.stored()}


def _refuse_upload(what: str) -> None:
    if pecan.request.environ.get(forms.UPLOAD) is not None:
        raise exceptions.BadRequest(f"package: a function that is {what} has none.")


def _check_change(
    function: functions.Function,
    code: types.Code | None,
    values: dict[str, Any],
    upload: storage.Upload | None,
) -> None:
    """Refuse what no function, or not this one, can become."""
    is_image = function.package is None
    if code is not None and (code.source == types.IMAGE) != is_image:
        raise exceptions.BadRequest(
            f"code: the source of function {function.id} is "
            f"{types.IMAGE if is_image else types.PACKAGE}, and cannot change."
        )
    if is_image:
        for name, given in (("code", code), ("package", upload), ("entry", values.get("entry"))):
            if given is not None:
                raise exceptions.BadRequest(
                    f"{name}: it cannot change, function {function.id} is an image."
                )
        return
    stored = types.Code.read(function.code).md5sum
    if upload is not None and upload.package.md5sum == stored:
        raise exceptions.BadRequest(
            f"package: it is the one that function {function.id} has already (md5sum {stored})."
        )
    if upload is None and code is not None and code.md5sum is not None:
        raise exceptions.BadRequest(
            "package: it is required with another md5sum, as a file part of a "
            "multipart/form-data body."
            if code.md5sum != stored
            else f"code: the md5sum is the one that function {function.id} has already."
        )
