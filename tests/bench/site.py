"""The services that are measured, each started when a figure first asks for it."""

import contextlib
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Self

from qinling.conf import api, engine, local
from tests.bench.rows import Table
from tests.fixtures import deployment
from tests.fixtures.deployment import Deployment, Distributed, Standalone, running
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import Process, free_port
from tests.fixtures.rabbitmq import RabbitMQ


def defaults() -> dict[str, dict[str, str]]:
    """What the tests set to be quick, set back to what an operator gets."""
    hurried = {
        "api": (api, ("threads",)),
        "engine": (engine, deployment.ENGINE),
        "local": (local, deployment.LOCAL),
    }
    return {"DEFAULT": {"debug": "false"}} | {
        group: {option.name: str(option.default) for option in module.OPTS if option.name in names}
        for group, (module, names) in hurried.items()
    }


class Site:
    """All services of one run of the benchmark; ended with it.

    :param root: an empty folder of its own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # Workers with a user id of their own must be able to pass.
        root.chmod(0o711)
        self._stack = contextlib.ExitStack()
        self._standalones = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @cached_property
    def mariadb(self) -> MariaDB:
        """A database server that flushes each commit to the disk."""
        say("starting MariaDB")
        return self._stack.enter_context(MariaDB(self.root / "mariadb", durable=True))

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        say("starting RabbitMQ")
        return self._stack.enter_context(RabbitMQ(self.root / "rabbitmq"))

    @cached_property
    def _distributed(self) -> Distributed:
        found = Distributed(self.root / "distributed", self.mariadb, self.rabbitmq, defaults())
        say("starting qinling-api and qinling-engine")
        self._stack.enter_context(running(found))
        return found

    def distributed(self) -> Distributed:
        """API and engine as processes, without Keystone and otherwise with default options."""
        found = self._distributed
        if not found.engine.running:
            found.engine.start()
            found.engine.wait_for_line("The engine is running", timeout=30)
        return found

    @contextlib.contextmanager
    def api_alone(self) -> Iterator[tuple[Distributed, Table]]:
        """The API without its engine, whose rows make no workers; they are gone afterwards.

        The engine has run before: there is a queue that takes the casts.
        """
        found = self._distributed
        if found.engine.running:
            found.engine.terminate(30)
        table = Table(self.mariadb, found.database)
        try:
            yield found, table
        finally:
            table.clear()

    @contextlib.contextmanager
    def floor(
        self, database: str, program: str = "tests.bench.floor", *options: str
    ) -> Iterator[int]:
        """A floor's server on a database; its port."""
        port = free_port()
        server = Process(
            [
                *(sys.executable, "-m", program),
                *("--database", database),
                *("--port", str(port)),
                *("--threads", str(_threads())),
                *options,
            ],
            self.root / "floor.log",
            cwd=Path(__file__).parents[2],
        )
        with server:
            server.wait_for_line("^Serving$", timeout=30)
            yield port

    def standalone(self) -> Standalone:
        """``qinling-standalone`` on a new state folder, not started."""
        self._standalones += 1
        return Standalone(self.root / f"standalone-{self._standalones}", defaults())

    def running(self, installation: Deployment) -> Deployment:
        """Start an installation that ends with this run."""
        return self._stack.enter_context(running(installation))


def _threads() -> int:
    return next(int(option.default) for option in api.OPTS if option.name == "threads")


def say(words: str) -> None:
    """A line of progress."""
    print(f"… {words}", file=sys.stderr, flush=True)
