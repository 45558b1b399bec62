"""Manifests: what the cluster is sent for a pool, and what never gets into it."""

import copy
import json
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.orchestrator.base import PoolSpec, RunSpec
from qinling.orchestrator.kubernetes import names
from qinling.orchestrator.kubernetes.manifests import Templates, alone, is_as
from tests.fixtures.kubernetes import defaults, patches
from tests.fixtures.kubernetes.resources import DEPLOYMENTS

Object = dict[str, Any]

POOL = "0f2b6ac1-3c5e-4b6e-9a43-1f0f3f1f6e11"
SPEC = PoolSpec(id=POOL, image="registry.example.org/python3:1", size=3, trusted=True, revision=7)

#: Options of `[kubernetes]` that change a manifest.
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "a disk for /tmp": {"tmp_medium": "disk"},
    "user namespaces": {"user_namespaces": True},
    "a RuntimeClass": {"untrusted_runtime_class": "gvisor"},
    "secrets to pull with": {"image_pull_secrets": ["registry-key"]},
    "nobody may call": {"control_plane_pods": {}, "control_plane_cidrs": []},
    "networks may call": {"control_plane_cidrs": ["192.0.2.0/24", "2001:db8::/64"]},
    "nothing is blocked": {"blocked_cidrs": []},
    "a cache of names on each node": {"dns_cidrs": ["169.254.20.10/32"]},
}


def templates(conf: cfg.ConfigOpts, **options: Any) -> Templates:
    for name, value in options.items():
        conf.set_override(name, value, group="kubernetes")
    return Templates(conf)


def pod(conf: cfg.ConfigOpts, spec: PoolSpec = SPEC, **options: Any) -> dict[str, Any]:
    made = templates(conf, **options).deployment(spec, {})
    return dict(made["spec"]["template"]["spec"])


@pytest.mark.parametrize("version", ["1.33", "1.34", "1.35", "1.36"])
@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_manifest_is_valid_on_the_clusters_of_today(
    conf: cfg.ConfigOpts, options: dict[str, Any], trusted: bool, version: str
) -> None:
    made = templates(conf, **options)
    spec = PoolSpec(POOL, SPEC.image, 3, trusted, 7)
    # One that asks for less than a worker does, and gets what it prints of dollars back.
    run = RunSpec(POOL, POOL, "some/image", ("$(HOME)", "b"), 5, 16 * 1024**2, 20.5)
    manifests = (made.deployment(spec, {names.WAKE: "1"}), made.network_policy(), made.run(run))
    assert manifests[2]["spec"]["containers"][0]["args"] == ["$$(HOME)", "b"]
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_worker_is_told_its_number_of_processes_where_its_user_is_its_own(
    conf: cfg.ConfigOpts,
) -> None:
    def told(**options: Any) -> list[str]:
        (container,) = pod(conf, **options)["containers"]
        named = {each["name"]: each.get("value") for each in container["env"]}
        return [named[name] for name in named if name == "QINLING_WORKER_MAX_PROCESSES"]

    # Without, the kernel would count the pods of a node together.
    assert told() == []
    assert told(user_namespaces=True) == ["150"]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_worker_meets_the_restricted_pod_security_standard(
    conf: cfg.ConfigOpts, options: dict[str, Any]
) -> None:
    found = pod(conf, **options)
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        assert field not in found
    assert [list(volume) for volume in found["volumes"]] == [["name", "emptyDir"]]
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["runAsUser"] > 0
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = found["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all("hostPort" not in port for port in container["ports"])


def test_a_worker_gets_nothing_of_the_cluster(conf: cfg.ConfigOpts) -> None:
    found = pod(conf)
    assert found["automountServiceAccountToken"] is False
    assert found["enableServiceLinks"] is False
    environment = {entry["name"] for entry in found["containers"][0]["env"]}
    assert environment == {"QINLING_WORKER_ID", "QINLING_WORKER_HOST", "QINLING_WORKER_PORT"}


def test_a_node_may_be_taken_away_by_the_autoscaler_with_its_workers(conf: cfg.ConfigOpts) -> None:
    # Also with a claimed one, of a Deployment alone, and where /tmp is on the disk.
    made = templates(conf, tmp_medium="disk").deployment(SPEC, {})
    annotations = made["spec"]["template"]["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"


def test_a_worker_is_asked_often_only_until_it_is_up(conf: cfg.ConfigOpts) -> None:
    (container,) = pod(conf, progress_deadline=120)["containers"]
    startup, readiness = container["startupProbe"], container["readinessProbe"]
    assert startup["httpGet"] == readiness["httpGet"] == container["livenessProbe"]["httpGet"]
    assert (startup["periodSeconds"], readiness["periodSeconds"]) == (1, 10)
    # A pool that does not come up is late before its workers are started anew.
    assert startup["periodSeconds"] * startup["failureThreshold"] > 120


def test_requests_are_below_limits_so_that_a_resize_keeps_the_class(conf: cfg.ConfigOpts) -> None:
    resources = pod(conf, startup_cpu=2000, cpu_request=10, worker_memory=704)["containers"][0][
        "resources"
    ]
    assert resources == {
        "requests": {"cpu": "10m", "memory": "32Mi"},
        # As the API server writes them: 2000m and 1024Mi would come back as another text.
        "limits": {"cpu": "2", "memory": "1Gi"},
    }


@pytest.mark.parametrize(
    "options",
    [{"cpu_request": 1000, "startup_cpu": 1000}, {"memory_request": 65, "worker_memory": 64}],
    ids=str,
)
def test_a_request_that_is_no_less_than_its_limit_is_refused_at_the_start(
    conf: cfg.ConfigOpts, options: dict[str, int]
) -> None:
    (request, limit) = options
    with pytest.raises(exceptions.StartupError, match=f"{request} is .* not less than {limit}"):
        templates(conf, **options)


def test_a_tmp_that_the_largest_package_does_not_fit_into_is_refused_at_the_start(
    conf: cfg.ConfigOpts,
) -> None:
    conf.set_override("max_unpacked_size", 1000, group="storage")
    with pytest.raises(
        exceptions.StartupError, match="tmp_size is 1050 and less than the 1051 MiB"
    ):
        templates(conf, tmp_size=1050)
    assert templates(conf, tmp_size=1051)


def test_a_tmp_in_memory_is_added_to_the_limit_and_one_on_disk_is_not(
    conf: cfg.ConfigOpts,
) -> None:
    for medium, limit in (("memory", "384Mi"), ("disk", "64Mi")):
        found = pod(conf, tmp_medium=medium, tmp_size=320, worker_memory=64)
        assert found["containers"][0]["resources"]["limits"]["memory"] == limit
        assert found["volumes"][0]["emptyDir"]["sizeLimit"] == "320Mi"
        assert found["volumes"][0]["emptyDir"].get("medium") == (
            "Memory" if medium == "memory" else None
        )


def test_a_worker_has_time_to_end_the_longest_function(conf: cfg.ConfigOpts) -> None:
    conf.set_override("max_timeout", 900, group="resource_limits")
    assert pod(conf)["terminationGracePeriodSeconds"] == 910


def test_only_untrusted_runtimes_get_the_runtime_class(conf: cfg.ConfigOpts) -> None:
    untrusted = PoolSpec(POOL, SPEC.image, 3, False, 7)
    options = {"untrusted_runtime_class": "gvisor"}
    assert pod(conf, untrusted, **options)["runtimeClassName"] == "gvisor"
    assert "runtimeClassName" not in pod(conf, SPEC, **options)


def test_a_rollout_never_takes_a_worker_before_its_successor_is_there(
    conf: cfg.ConfigOpts,
) -> None:
    strategy = templates(conf).deployment(SPEC, {})["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxUnavailable"] == 0


def test_a_new_revision_alone_starts_no_worker_anew(conf: cfg.ConfigOpts) -> None:
    made = templates(conf)
    first = made.deployment(SPEC, {})
    second = made.deployment(PoolSpec(POOL, SPEC.image, 3, True, 8), {})
    assert first["spec"]["template"] == second["spec"]["template"]
    assert first["metadata"] != second["metadata"]


def test_another_attempt_starts_workers_anew(conf: cfg.ConfigOpts) -> None:
    made = templates(conf)
    first = made.deployment(SPEC, {})
    again = made.deployment(SPEC, {names.ATTEMPT: "8"})
    assert first["spec"]["template"] != again["spec"]["template"]
    # It is no other configuration, of which another engine would be told.
    digests = {
        one["spec"]["template"]["metadata"]["annotations"][names.CONFIGURATION]
        for one in (first, again)
    }
    assert len(digests) == 1


def test_all_that_is_the_users_is_the_image(conf: cfg.ConfigOpts) -> None:
    text = json.dumps(templates(conf).deployment(SPEC, {}))
    assert text.count(SPEC.image) == 1
    assert text.count(POOL) >= 3


def test_nobody_gets_to_a_worker_who_is_not_named(conf: cfg.ConfigOpts) -> None:
    policy = templates(conf, control_plane_pods={}, control_plane_cidrs=[]).network_policy()
    assert policy["spec"]["podSelector"] == {}
    assert "Ingress" in policy["spec"]["policyTypes"]
    assert "ingress" not in policy["spec"]


def test_workers_get_into_the_world_but_not_to_the_cluster_or_the_metadata_service(
    conf: cfg.ConfigOpts,
) -> None:
    policy = templates(conf, blocked_cidrs=["10.0.0.0/8", "fc00::/7"]).network_policy()
    dns, world = policy["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    v4, v6 = (peer["ipBlock"] for peer in world["to"])
    assert v4 == {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "169.254.0.0/16"]}
    assert v6 == {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10"]}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_pool_says_all_that_a_server_would_fill_in(
    conf: cfg.ConfigOpts, options: dict[str, Any]
) -> None:
    made = templates(conf, **options).deployment(PoolSpec(POOL, SPEC.image, 3, False, 7), {})
    filled = copy.deepcopy(made)
    defaults.fill(DEPLOYMENTS, filled)
    assert is_as(filled["spec"], made["spec"])


def _container(spec: Object) -> Object:
    container: Object = spec["template"]["spec"]["containers"][0]
    return container


#: What somebody adds to a pool's Deployment, or changes in it.
EDITS: dict[str, Callable[[Object], object]] = {
    "paused": lambda spec: spec.update(paused=True),
    "minReadySeconds": lambda spec: spec.update(minReadySeconds=9),
    "strategy": lambda spec: spec.update(strategy={"type": "Recreate"}),
    "nodeName": lambda spec: spec["template"]["spec"].update(nodeName="node1"),
    "an account": lambda spec: spec["template"]["spec"].update(
        serviceAccountName="theirs", serviceAccount="theirs"
    ),
    "dnsPolicy": lambda spec: spec["template"]["spec"].update(dnsPolicy="None"),
    "hostPID": lambda spec: spec["template"]["spec"].update(hostPID=True),
    "sysctls": lambda spec: spec["template"]["spec"]["securityContext"].update(sysctls=[{}]),
    "privileged": lambda spec: _container(spec)["securityContext"].update(privileged=True),
    "capabilities": lambda spec: _container(spec)["securityContext"]["capabilities"].update(
        add=["SYS_ADMIN"]
    ),
    "a probe": lambda spec: _container(spec)["livenessProbe"].update(initialDelaySeconds=600),
    "a command": lambda spec: _container(spec).update(command=["/bin/false"]),
    "a variable": lambda spec: _container(spec)["env"].append({"name": "MORE", "value": "1"}),
    "a container": lambda spec: spec["template"]["spec"]["containers"].append({"name": "more"}),
    "a container before": lambda spec: spec["template"]["spec"].update(initContainers=[{}]),
    "a label less": lambda spec: spec["template"]["metadata"]["labels"].popitem(),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_whatever_is_added_or_changed_is_seen_and_merged_away(
    conf: cfg.ConfigOpts, edit: Callable[[Object], object]
) -> None:
    made = templates(conf).deployment(SPEC, {})
    edited = copy.deepcopy(made)
    edit(edited["spec"])
    assert not is_as(edited, made)
    assert is_as(patches.merge(edited, alone(made, edited["spec"])), made)


def test_what_others_note_in_metadata_is_left(conf: cfg.ConfigOpts) -> None:
    made = templates(conf).deployment(SPEC, {})
    noted = copy.deepcopy(made)
    for metadata in (noted["metadata"], noted["spec"]["template"]["metadata"]):
        metadata["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    # Kubernetes before 1.35 fills this in.
    noted["spec"]["template"]["metadata"]["creationTimestamp"] = None
    assert is_as(noted, made)
    assert patches.merge(noted, alone(made, noted["spec"])) == noted
