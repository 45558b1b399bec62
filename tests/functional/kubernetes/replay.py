"""Asks a test server what was asked of a real one, and compares the answers.

Requests name things that the real server made: pods, uids, versions. They are translated to what
stands in their place here, and a version that was outdated when it was sent to one that is outdated
now. A GET is asked again until the answer is as recorded, within a deadline: what took the real one
seconds takes this one as long as it takes.
"""

import json
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tests.fixtures.kubernetes import Cluster, left_out
from tests.functional.kubernetes.counterparts import Counterparts, Follower
from tests.functional.kubernetes.milestones import milestones, missing
from tests.functional.kubernetes.recording import Call, Object, Scenario, differences

# Seconds within which an answer must come to be as recorded.
_DEADLINE = 8.0
# Seconds that a write waits for what had settled in the recording.
_SETTLED = 2.0
_NOBODY = "00000000-0000-0000-0000-000000000000"
# What is watched; events are compared where they are listed.
_FOLLOWED = ("deployments", "pods", "replicasets")
# Written by a controller, like a status.
_REVISION = "deployment.kubernetes.io/revision"
# Events that are told or not as it happens, and those of the recorded node's own trouble.
_TIMING = ("BackOff", "MissingClusterDNS", "Unhealthy")
_OUTCOMES = ("NewReplicaSetAvailable", "ProgressDeadlineExceeded")


@dataclass
class Answer:
    status: int
    warning: str | None
    body: Any


class Replay:
    """The scenarios of one recording, which follow one another in one cluster.

    :param odd: how to ask what the recording tells by its note alone.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        scenarios: list[Scenario],
        odd: Mapping[str, Callable[["Replay"], Answer]],
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._odd = odd
        self._counterparts = Counterparts(cluster, namespace, scenarios)
        #: By uid, what a recorded version was taken for.
        self._versions: dict[str, dict[str, str]] = defaultdict(dict)
        self._followers: list[Follower] = []

    def close(self) -> None:
        self._counterparts.close()
        for follower in self._followers:
            follower.close()

    def run(self, scenario: Scenario) -> None:
        watches = [
            watch for watch in scenario.watches if watch["path"].rpartition("/")[2] in _FOLLOWED
        ]
        followers = [self._follow(watch) for watch in watches]
        for call in scenario.calls:
            if not call.is_in(left_out.NOT_ASKED):
                self.call(call, trimmed=scenario.trimmed)
        if scenario.name not in left_out.NOT_WATCHED:
            for watch, follower in zip(watches, followers, strict=True):
                self._compare_watch(scenario, watch, follower)

    # Watching

    def _follow(self, watch: Mapping[str, Any]) -> Follower:
        query = dict(watch["query"])
        field, equals, name = query.get("fieldSelector", "").partition("metadata.name=")
        if equals and not field and self._counterparts.is_pod(name):
            query["fieldSelector"] = equals + self._counterparts.wait_for_pod(name)
        follower = Follower(self.cluster, watch["path"], query)
        self._followers.append(follower)
        return follower

    def _compare_watch(
        self, scenario: Scenario, watch: Mapping[str, Any], follower: Follower
    ) -> None:
        recorded: dict[str, list[tuple[str, Object]]] = defaultdict(list)
        for _, kind, found in scenario.events(watch):
            if kind != "BOOKMARK":
                recorded[found["metadata"]["name"]].append((kind, found))
        for name, events in recorded.items():
            if f"{scenario.name}/{name}" in left_out.NOT_WATCHED:
                continue
            # What was ending when the watch began may be gone here.
            if "deletionTimestamp" not in events[0][1]["metadata"]:
                self._compare_told(f"{scenario.name}: {name}", events, follower)

    def _compare_told(
        self, what: str, events: list[tuple[str, Object]], follower: Follower
    ) -> None:
        theirs = milestones(events, self._counterparts.theirs)
        deadline = time.monotonic() + _DEADLINE
        while True:
            self._counterparts.update()
            told = follower.told_of(self._counterparts.name(events[0][1]))
            ours = milestones(told, self._counterparts.ours)
            gap = missing(theirs, ours)
            if gap is None:
                return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{what}: the watch never told {gap}\nrecorded: {theirs}\ntold: {ours}"
                )
            time.sleep(0.05)

    # Asking

    def call(self, call: Call, *, trimmed: bool) -> None:
        request = call.request
        if request is None:
            self._compare(call, self._odd[call.note](self), trimmed=trimmed)
            return
        path = self._path(request["path"])
        if request["method"] == "GET":
            self._ask_until_same(call, path, trimmed=trimmed)
            return
        theirs = self._before(call)
        self._wait_until_settled(call)
        current = self._wait_until_ready(path, self._relied_on(call, theirs))
        body = self._translate(request["body"], current, theirs)
        answer = self.ask(request["method"], path, request["query"], body, request["content_type"])
        self._compare(call, answer, trimmed=trimmed)

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Any = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        if query:
            path += "?" + urllib.parse.urlencode(query)
        sent = self.cluster.client.headers() | dict(headers or {})
        if content_type and body is not None:
            sent["Content-Type"] = content_type
        with closing(self.cluster.client.connection()) as connection:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, sent)
            answer = connection.getresponse()
            found = answer.read()
            warning = answer.getheader("Warning")
            is_json = answer.getheader("Content-Type", "").startswith("application/json")
        decoded = json.loads(found) if is_json else found.decode(errors="replace")
        return Answer(answer.status, warning, decoded)

    def _ask_until_same(self, call: Call, path: str, *, trimmed: bool) -> None:
        assert call.request is not None
        deadline = time.monotonic() + _DEADLINE
        while True:
            answer = self.ask("GET", path, call.request["query"])
            found = list(self._compared(call, answer, trimmed=trimmed))
            if not found:
                return
            assert time.monotonic() < deadline, f"{call}:\n" + "\n".join(found)
            time.sleep(0.05)

    # What a write relies on

    def _before(self, call: Call) -> Object | None:
        """What the recording last showed of the object that a call is about."""
        assert call.request is not None
        name = call.request["path"].split("/")[-1]
        found = None
        for at, seen in self._counterparts.recorded:
            if at < call.at and seen.get("metadata", {}).get("name") == name:
                found = seen
        return found

    def _wait_until_settled(self, call: Call) -> None:
        """Let rollouts end that had ended in the recording, and pods be ready that were."""
        settled = {}
        for at, seen in self._counterparts.recorded:
            if at < call.at and seen.get("kind") in ("Deployment", "Pod"):
                settled[seen["kind"], seen.get("metadata", {}).get("name")] = seen
        deadline = time.monotonic() + _SETTLED
        for theirs in settled.values():
            while _settled(theirs) and time.monotonic() < deadline:
                self._counterparts.update()
                ours = self._counterparts.now(theirs)
                if ours is None or _settled(ours) == _settled(theirs):
                    break
                time.sleep(0.02)

    def _relied_on(self, call: Call, theirs: Object | None) -> Object | None:
        """The pod that a write is about, as it was."""
        body = call.response.get("body")
        if call.is_in(left_out.NOT_COMPARED):
            return None
        # What a patch of a pod answers shows best how that pod was.
        return body if isinstance(body, dict) and body.get("kind") == "Pod" else theirs

    def _wait_until_ready(self, path: str, theirs: Object | None) -> Object | None:
        """What a write is about, once it is as ready as it was in the recording."""
        # Without a subresource; where nothing is named, there is nothing to be ready.
        length = 8 if path.startswith("/apis") else 7
        parts = path.split("/")
        if len(parts) < length and "namespaces" in parts[:-1]:
            return None
        base = "/".join(parts[:length])
        deadline = time.monotonic() + _DEADLINE
        while True:
            answer = self.ask("GET", base, {})
            current: Object | None = answer.body if answer.status == 200 else None
            if theirs is None or current is None or _readiness(current) == _readiness(theirs):
                return current
            assert time.monotonic() < deadline, (
                f"{path} is {_readiness(current)}; recorded: {_readiness(theirs)}"
            )
            time.sleep(0.02)

    # Translating requests

    def _path(self, path: str) -> str:
        parts = path.split("/")
        for number, part in enumerate(parts):
            name, colon, port = part.partition(":")
            if number and parts[number - 1] == "pods" and self._counterparts.is_pod(name):
                parts[number] = self._counterparts.wait_for_pod(name) + colon + port
        return "/".join(parts)

    def _translate(self, value: Any, current: Object | None, theirs: Object | None) -> Any:
        """A body with our names, uids and versions."""
        if isinstance(value, list):
            return [self._translate(item, current, theirs) for item in value]
        if not isinstance(value, dict):
            return value
        found = {name: self._translate(item, current, theirs) for name, item in value.items()}
        if "resourceVersion" in found and current is not None:
            found["resourceVersion"] = self._version(found["resourceVersion"], current, theirs)
        if "uid" in found and found["uid"] != _NOBODY:
            found["uid"] = self._uid(found, current)
        if found.get("kind") == "Eviction" and current is not None:
            found["metadata"]["name"] = current["metadata"]["name"]
        return found

    def _version(self, recorded: str, current: Object, theirs: Object | None) -> str:
        if recorded in ("", "0"):
            return recorded
        versions = self._versions[current["metadata"]["uid"]]
        latest = 0 if theirs is None else int(theirs["metadata"]["resourceVersion"])
        if recorded not in versions:
            outdated = int(recorded) < latest
            versions[recorded] = "1" if outdated else current["metadata"]["resourceVersion"]
        return versions[recorded]

    def _uid(self, found: Mapping[str, Any], current: Object | None) -> str:
        if found.get("kind") == "Deployment":
            owner = self.cluster.client.get("deployments", found["name"], self.namespace)
            return str(owner["metadata"]["uid"])
        return str(current["metadata"]["uid"]) if current else _NOBODY

    # Comparing

    def _compare(self, call: Call, answer: Answer, *, trimmed: bool) -> None:
        found = list(self._compared(call, answer, trimmed=trimmed))
        assert not found, f"{call}:\n" + "\n".join(found)

    def _compared(self, call: Call, answer: Answer, *, trimmed: bool) -> Iterator[str]:
        self._counterparts.update()
        recorded = call.response
        if recorded["status"] != answer.status:
            yield f"status {answer.status}; recorded: {recorded['status']} ({answer.body})"
            return
        if recorded.get("warning") != answer.warning:
            yield f"warning {answer.warning}; recorded: {recorded.get('warning')}"
        expected, body = recorded.get("body"), answer.body
        if call.is_in(left_out.NOT_COMPARED):
            return
        if isinstance(expected, str) and isinstance(body, str):
            plain = self._counterparts.theirs.plain(expected), self._counterparts.ours.plain(body)
            if plain[0] != plain[1]:
                yield f"the body is {body!r}; recorded: {expected!r}"
        if not isinstance(expected, dict) or not isinstance(body, dict):
            return
        if "items" in expected:
            yield from self._compare_lists(expected, body, trimmed=trimmed)
            return
        # What a write answers shows a status in passing too.
        written = call.request is not None and call.request["method"] != "GET"
        passing = expected.get("kind") != "Status" and (written or call.is_in(left_out.IN_PASSING))
        yield from self._compare_objects(expected, body, trimmed=trimmed, passing=passing)

    def _compare_objects(
        self, expected: Object, found: Object, *, trimmed: bool, passing: bool
    ) -> Iterator[str]:
        expected = self._counterparts.theirs.normal(expected)
        found = self._counterparts.ours.normal(found)
        if passing:
            for one in (expected, found):
                one.pop("status", None)
                one["metadata"].get("annotations", {}).pop(_REVISION, None)
                if one["metadata"].get("annotations") == {}:
                    del one["metadata"]["annotations"]
        yield from differences(expected, found, whole=not trimmed)

    def _compare_lists(self, expected: Object, found: Object, *, trimmed: bool) -> Iterator[str]:
        theirs = self._counterparts.theirs.normal(expected["items"])
        ours = self._counterparts.ours.normal(found["items"])
        if expected["kind"] == "EventList":
            yield from _compare_events(theirs, ours, whole=not trimmed)
            return
        if len(theirs) != len(ours):
            yield f"{len(ours)} items; recorded: {len(theirs)}"
            return
        for number, (one, other) in enumerate(
            zip(sorted(theirs, key=_text), sorted(ours, key=_text), strict=True)
        ):
            yield from differences(one, other, f"[{number}]", whole=not trimmed)


def _compare_events(theirs: list[Object], ours: list[Object], *, whole: bool) -> Iterator[str]:
    told, here = (
        {_told(event) for event in events if event["reason"] not in _TIMING}
        for events in (theirs, ours)
    )
    for event in sorted(told - here):
        yield f"not told: {event}"
    for event in sorted(here - told) if whole else ():
        yield f"not recorded: {event}"


def _told(event: Object) -> tuple[str, ...]:
    """What an event says; how often is a matter of timing."""
    involved = event["involvedObject"]
    return (
        involved["kind"],
        involved["name"],
        event["type"],
        event["reason"],
        event["message"],
        event["reportingComponent"],
    )


def _text(found: Object) -> str:
    return json.dumps(found, sort_keys=True)


def _readiness(found: Object) -> tuple[Any, ...]:
    """How far a pod is: what a write of the recording relied on."""
    if found.get("kind") != "Pod":
        return ()
    conditions = found["status"].get("conditions", ())
    phase = found["status"].get("phase")
    ready = {condition["type"]: condition["status"] for condition in conditions}.get("Ready")
    # Of a pod that was ready a trimmed recording says no more than that it runs.
    return phase, ready or ("True" if phase == "Running" else None)


def _settled(found: Object) -> str | None:
    """How a rollout ended, if it has; or that a pod is ready."""
    for condition in found.get("status", {}).get("conditions", ()):
        if condition["type"] == "Progressing" and condition["reason"] in _OUTCOMES:
            return str(condition["reason"])
        if found["kind"] == "Pod" and (condition["type"], condition["status"]) == ("Ready", "True"):
            return "Ready"
    return None
