"""The installations that are put under load, each for one trial alone."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
import sqlalchemy as sa

from tests.fixtures.deployment import Deployment, Distributed, Standalone, running
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import Process, wait_until
from tests.fixtures.rabbitmq import RabbitMQ
from tests.fixtures.service import Service
from tests.functional.pools.conftest import CLOCK, IMAGES, options, prepare

#: Few, so that executions wait for them.
MOST_WORKERS = 3
POOL = 2
OPTIONS = {"engine": {"pool_size": str(POOL), "max_workers_per_function": str(MOST_WORKERS)}}


@dataclass(frozen=True, slots=True)
class Site:
    """A running installation.

    :ivar urls: of its APIs. :ivar programs: its processes, by kind, as of ``history.Harm``.
    :ivar workers: ids of all workers that live, whether anybody knows of them or not.
    :ivar database: its URL.
    :ivar services: what it needs, whose processes are among the programs.
    """

    deployment: Deployment
    urls: tuple[str, ...]
    programs: Mapping[str, tuple[Process, ...]]
    workers: Callable[[], set[str]]
    database: str
    services: Sequence[Service] = ()

    def query(self, statement: str) -> list[tuple[str, ...]]:
        engine = sa.create_engine(self.database)
        try:
            with engine.connect() as connection:
                return [tuple(row) for row in connection.execute(sa.text(statement))]
        finally:
            engine.dispose()


#: What makes an installation on services that run.
Make = Callable[[Path, MariaDB, RabbitMQ], contextlib.AbstractContextManager[Site]]


@contextlib.contextmanager
def standalone(root: Path) -> Iterator[Site]:
    """All in one process, with SQLite; its workers end with it."""
    found = Standalone(root, OPTIONS)
    with running(found):
        database = f"sqlite:///{found.state_dir / 'qinling.db'}"
        programs = {"all": (found.process,)}
        yield Site(found, (found.url,), programs, lambda: _of_host(found), database)


@contextlib.contextmanager
def distributed(root: Path, mariadb: MariaDB, rabbitmq: RabbitMQ) -> Iterator[Site]:
    """Two APIs and two engines on MariaDB and RabbitMQ; the workers are this host's."""
    found = Distributed(root, mariadb, rabbitmq, OPTIONS)
    with _doubled(found) as (urls, programs):
        services = (mariadb, rabbitmq)
        yield Site(found, urls, programs, lambda: _of_host(found), found.database, services)


@contextlib.contextmanager
def kubernetes(root: Path, mariadb: MariaDB, rabbitmq: RabbitMQ) -> Iterator[Site]:
    """The same with workers on a cluster."""
    with Cluster(root / "cluster", images=IMAGES, clock=CLOCK, backoff=0.05) as cluster:
        namespace, kubeconfig = prepare(cluster)
        chosen = options(namespace, kubeconfig, OPTIONS)
        found = Distributed(root / "site", mariadb, rabbitmq, chosen, vhost="kubernetes")

        def workers() -> set[str]:
            return {pod["metadata"]["uid"] for pod in cluster.client.list("pods", namespace)}

        with _doubled(found) as (urls, programs):
            services = (mariadb, rabbitmq)
            yield Site(found, urls, programs, workers, found.database, services)
        cluster.check()


@contextlib.contextmanager
def _doubled(
    found: Distributed,
) -> Iterator[tuple[tuple[str, ...], dict[str, tuple[Process, ...]]]]:
    """An installation of two APIs and two engines; the APIs' URLs, and all processes."""
    api, url = found.second_api()
    engine = found.second_engine()
    with running(found, api.close, engine.close):
        api.start()
        engine.start()
        engine.wait_for_line("The engine is running", timeout=30)
        wait_until(lambda: _serves(url), 30, "the second API serves")
        yield (
            (found.url, url),
            {
                "api": (found.api, api),
                "engine": (found.engine, engine),
                "database": (found.mariadb.server,),
                "broker": (found.rabbitmq.server,),
            },
        )


def _serves(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{url}/healthcheck", timeout=30).status_code == 200
    return False


def _of_host(found: Deployment) -> set[str]:
    ids = set()
    for pid in found.worker_processes():
        with contextlib.suppress(OSError):
            for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                name, _, value = variable.partition(b"=")
                if name == b"QINLING_WORKER_ID":
                    ids.add(value.decode())
    return ids
