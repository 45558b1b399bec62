"""``GET /`` and ``GET /v1``, and the way down to the nouns."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pecan
import webob
from oslo_config import cfg

from qinling.api.controllers import routing
from qinling.api.controllers.v1 import executions, function_aliases, functions, runtimes
from qinling.api.types import versions
from qinling.api.types.base import expose
from qinling.db import api as db_api
from qinling.execution.dispatch import Dispatcher
from qinling.storage import base as storage

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier


class RootController(routing.Resource):
    routes = {(): {"GET": "show_versions"}, ("v1",): {"GET": "show_v1"}}

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        engine: "EngineNotifier",
        store: storage.PackageStore,
        dispatcher: Dispatcher,
    ) -> None:
        self._nouns: dict[str, routing.Resource] = {
            "aliases": function_aliases.FunctionAliasesController(conf, db),
            "executions": executions.ExecutionsController(conf, db, engine, dispatcher),
            "functions": functions.FunctionsController(conf, db, engine, store),
            "runtimes": runtimes.RuntimesController(conf, db, engine),
        }

    def find(
        self, parts: list[str], request: webob.Request
    ) -> tuple[Callable[..., Any], list[str]]:
        noun = self._nouns.get(parts[1]) if len(parts) > 1 and parts[0] == "v1" else None
        if noun is not None:
            return noun.find(parts[2:], request)
        return super().find(parts, request)

    @expose(versions.Versions)
    def show_versions(self) -> versions.Versions:
        link = versions.Link(href=f"{pecan.request.application_url}/v1", target="v1", rel="self")
        return versions.Versions(
            versions=[versions.Version(id="v1.0", status="CURRENT", links=[link])]
        )

    @expose(versions.Resource)
    def show_v1(self) -> versions.Resource:
        return versions.Resource(uri=f"{pecan.request.application_url}/v1")
