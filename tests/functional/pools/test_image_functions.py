"""Functions that are images on a cluster: all that holds on one host, and what only pods do."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qinling.orchestrator.kubernetes import names
from tests.fixtures.deployment import Deployment
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.process import wait_until
from tests.functional.pools.conftest import Object, Site
from tests.functional.test_image_functions import *  # noqa: F403
from tests.functional.test_image_functions import check_true_end, create, result

pytestmark = pytest.mark.usefixtures("permitted")


@pytest.fixture(scope="module")
def deployment(site: Site) -> Deployment:
    return site.deployment


def runs(site: Site) -> list[Object]:
    """The pods of executions."""
    found = site.cluster.client.list("pods", site.namespace, labelSelector=names.EXECUTION)
    return list(found)


def run_of(site: Site, execution: Object) -> Object:
    """The pod of an execution, once its program runs."""

    def running() -> Object | None:
        for pod in runs(site):
            if pod["metadata"]["name"] == execution["id"] and pod["status"]["phase"] == "Running":
                return pod
        return None

    return dict(wait_until(running, 30, "its pod running") or {})


def test_a_run_is_one_locked_down_pod_with_the_limits_of_its_function(site: Site) -> None:
    client = site.client
    function_id = create(client, cpu=200, memory_size=67108864, timeout=20)
    execution = client.execute(function_id, sync=False, input="sleep 2")
    pod = run_of(site, execution)
    spec = pod["spec"]
    [container] = spec["containers"]
    assert spec["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] > 60 + 20
    assert spec["automountServiceAccountToken"] is False
    assert container["resources"]["limits"] == {"cpu": "200m", "memory": "64Mi"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert client.wait_ended(execution["id"])["status"] == "success"
    wait_until(lambda: not runs(site), 20, "no pod left")


def test_a_run_that_exhausts_its_memory_has_failed(site: Site, cluster: Cluster) -> None:
    client = site.client
    execution = client.execute(create(client, timeout=60), sync=False, input="sleep 50")
    cluster.kill_container(
        run_of(site, execution)["metadata"]["name"], site.namespace, out_of_memory=True
    )
    ended = client.wait_ended(execution["id"])
    assert ended["status"] == "failed"
    assert "too much resource consumption" in result(ended)["output"]


@pytest.mark.parametrize("site", ["distributed"], indirect=True)
def test_a_run_whose_engine_was_killed_has_its_true_end_and_runs_once(
    site: Site, open_folder: Path
) -> None:
    check_true_end(site.deployment, open_folder)


@pytest.mark.parametrize(
    ("trouble", "words"),
    # One that goes is seen while it ends, or when it has gone.
    [("evict", "Evicted"), ("delete", "its (pod was deleted|run was removed)")],
)
def test_a_run_that_the_cluster_takes_away_is_an_error(
    site: Site, cluster: Cluster, trouble: str, words: str
) -> None:
    client = site.client
    execution = client.execute(create(client, timeout=60), sync=False, input="sleep 50")
    name = run_of(site, execution)["metadata"]["name"]
    if trouble == "evict":
        cluster.evict(name, site.namespace, "The node was low on resource: memory. ")
    else:
        cluster.client.delete("pods", name, site.namespace)
    ended = client.wait_ended(execution["id"])
    assert ended["status"] == "error"
    assert re.search(words, result(ended)["output"])
    wait_until(lambda: not runs(site), 20, "no pod left")


def test_an_image_that_cannot_be_run_is_told_with_its_reason(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(execution={"start_timeout": "3"})
    client = site.client
    execution = client.execute(create(client, image="no/such"))
    assert execution["status"] == "error"
    assert "image no/such cannot be pulled" in result(execution)["output"]
    execution = client.execute(create(client), input="/no/such/program")
    # The image's own program is there, and says what it lacks.
    assert (execution["status"], "code 127" in result(execution)["output"]) == ("failed", True)
    wait_until(lambda: not runs(site), 20, "no pod left")
