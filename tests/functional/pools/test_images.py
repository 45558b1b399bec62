"""Images that do not come up, and what becomes of their runtimes."""

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.process import wait_until
from tests.functional.pools.conftest import IMAGES, Site


def test_a_new_image_that_does_not_come_up_is_rolled_back_and_the_reason_kept(
    any_site: Site,
) -> None:
    site = any_site
    runtime = site.create()
    site.wait_whole(runtime["id"])
    before = site.pod_names(runtime["id"])
    failing = {"nowhere/to/be:found": ["nowhere/to/be:found cannot be pulled"]}
    if isinstance(site.cluster, Cluster):
        failing |= {
            "crashing": ["crashing does not stay up", "exited with code 3", "starting | out of"],
            "deaf": ["deaf", "did not become ready in time"],
        }
    for image, words in failing.items():
        assert site.client.update(runtime["id"], image=image).json()["image"] == image
        shown = site.client.wait_for(runtime["id"], "available", timeout=300)
        assert shown["image"] == site.image
        site.wait_whole(runtime["id"])
        site.wait_reason(runtime["id"], "rolled back", *words)
    # The old workers were there all the time, and still are.
    assert site.pod_names(runtime["id"]) == before
    site.delete(runtime["id"])


def test_a_runtime_in_error_takes_a_good_image(site: Site) -> None:
    runtime = site.client.create(image="crashing")
    shown = site.client.wait_for(runtime["id"], "error")
    assert "exited with code 3" in shown["status_reason"]
    assert site.client.update(runtime["id"], image="python3").status_code == 200
    shown = site.client.wait_for(runtime["id"], "available")
    assert shown["status_reason"] is None
    site.wait_whole(runtime["id"])
    site.delete(runtime["id"])


def test_an_error_heals_when_the_image_comes_to_the_registry(site: Site) -> None:
    runtime = site.client.create(image="late")
    site.client.wait_for(runtime["id"], "error")
    site.cluster.images["late"] = IMAGES["python3"]
    try:
        shown = site.client.wait_for(runtime["id"], "available")
        assert shown["status_reason"] is None
        site.delete(runtime["id"])
    finally:
        del site.cluster.images["late"]


def test_the_same_image_asked_for_again_is_tried_again_at_once(site: Site) -> None:
    runtime = site.client.create(image="again")
    site.client.wait_for(runtime["id"], "error")
    before = site.pod_names(runtime["id"])
    assert site.client.update(runtime["id"], image="again").json()["status"] == "upgrading"
    # It is an attempt of its own, and not the old failure told once more.
    shown = site.client.wait_for(runtime["id"], "error")
    assert site.pod_names(runtime["id"]) - before
    assert "again cannot be pulled" in shown["status_reason"]
    site.delete(runtime["id"])


def test_what_an_image_failed_of_once_is_no_failure_of_it_when_it_is_asked_for_again(
    site: Site,
) -> None:
    runtime = site.client.create(image="late")
    site.client.wait_for(runtime["id"], "error")
    assert site.client.update(runtime["id"], image="nowhere/to/be:found").status_code == 200
    site.wait_reason(runtime["id"], "nowhere/to/be:found cannot be pulled")
    site.client.wait_for(runtime["id"], "error")
    site.cluster.images["late"] = IMAGES["python3"]
    try:
        assert site.client.update(runtime["id"], image="late").status_code == 200
        ends: set[str] = set()

        def ended() -> bool:
            ends.add(site.client.show(runtime["id"])["status"])
            return ends != {"upgrading"}

        wait_until(ended, 60, "an end", pause=0.01)
        assert ends <= {"upgrading", "available"}
        site.wait_whole(runtime["id"], "late")
        site.delete(runtime["id"])
    finally:
        del site.cluster.images["late"]
