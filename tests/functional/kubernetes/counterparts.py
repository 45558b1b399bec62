"""What stands here for what the recording names.

Pods have random names: the n-th pod of a template stands for the n-th recorded one. Both sides are
learned from what they showed, ours from watches of the whole namespace.
"""

import http.client
import json
import socket
import threading
import urllib.parse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.client import path_of
from tests.fixtures.process import wait_until
from tests.functional.kubernetes.recording import Names, Object, Scenario

# Seconds within which something must come to stand for a recorded thing.
_DEADLINE = 8.0
_WATCHED = ("pods", "replicasets", "deployments")


class Follower:
    """A watch of the test server that keeps all it is told."""

    def __init__(self, cluster: Cluster, path: str, query: Mapping[str, Any]) -> None:
        self.events: list[tuple[str, Object]] = []
        self._begun = threading.Event()
        self._connection = cluster.client.connection()
        encoded = urllib.parse.urlencode({**query, "timeoutSeconds": 120})
        self._connection.request("GET", f"{path}?{encoded}", headers=cluster.client.headers())
        # Before the answer takes the connection for itself.
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        assert self._begun.wait(5), f"{path}: the watch does not begin"

    def _follow(self) -> None:
        try:
            while line := self._answer.readline():
                event = json.loads(line)
                self.events.append((event["type"], event["object"]))
                if event["type"] == "BOOKMARK":
                    self._begun.set()
        except (OSError, ValueError, http.client.HTTPException):
            return

    def told_of(self, name: str | None) -> list[tuple[str, Object]]:
        return [event for event in list(self.events) if event[1]["metadata"].get("name") == name]

    def close(self) -> None:
        # Wakes the thread, which the end of file ends.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()


class Counterparts:
    def __init__(self, cluster: Cluster, namespace: str, scenarios: Sequence[Scenario]) -> None:
        self.theirs, self.ours = Names(), Names()
        #: Everything that was recorded, in the order of time.
        self.recorded = sorted(
            (pair for scenario in scenarios for pair in scenario.objects()),
            key=lambda pair: pair[0],
        )
        self._their_pods: dict[str, list[str]] = defaultdict(list)
        self._our_pods: dict[str, list[str]] = defaultdict(list)
        self._now: dict[tuple[str, str], Object] = {}
        self._learn_theirs()
        query = {"watch": "true", "allowWatchBookmarks": "true"}
        self._followers = [
            Follower(cluster, path_of(plural, namespace), query) for plural in _WATCHED
        ]
        self._read = [0] * len(self._followers)

    def close(self) -> None:
        for follower in self._followers:
            follower.close()

    def _learn_theirs(self) -> None:
        known: dict[str, Object] = {}
        for _, found in self.recorded:
            self.theirs.learn(found)
            name = found.get("metadata", {}).get("name")
            if found.get("kind") == "Pod" and name not in (None, *known):
                known[name] = found
        # What was told at once is in the order of creation only within a second.
        pods = sorted(known.values(), key=lambda pod: pod["metadata"].get("creationTimestamp", ""))
        for pod in pods:
            self._their_pods[_group(pod, self.theirs)].append(pod["metadata"]["name"])

    def update(self) -> None:
        """Take in what our watches have told since."""
        told = []
        for number, follower in enumerate(self._followers):
            events = follower.events[self._read[number] :]
            self._read[number] += len(events)
            told += [(kind, found) for kind, found in events if kind != "BOOKMARK"]
        for _, found in told:
            self.ours.learn(found)
        for kind, found in told:
            key = found["kind"], found["metadata"]["name"]
            if kind == "DELETED":
                self._now.pop(key, None)
            else:
                self._now[key] = found
            if kind == "ADDED" and found["kind"] == "Pod":
                self._our_pods[_group(found, self.ours)].append(key[1])

    def is_pod(self, name: str) -> bool:
        """Whether it is a pod of the recording."""
        return any(name in pods for pods in self._their_pods.values())

    def pod(self, name: str) -> str | None:
        """Our pod for a recorded one, when it is there."""
        for group, theirs in self._their_pods.items():
            if name in theirs:
                ours = self._our_pods.get(group, [])
                number = theirs.index(name)
                return ours[number] if number < len(ours) else None
        return None

    def wait_for_pod(self, name: str) -> str:
        def found() -> str | None:
            self.update()
            return self.pod(name)

        ours = wait_until(found, _DEADLINE, f"what stands for the recorded pod {name}")
        assert ours is not None
        return ours

    def name(self, theirs: Object) -> str | None:
        """Our name of what stands for a recorded object."""
        name: str = theirs["metadata"]["name"]
        if theirs["kind"] == "Pod" and self.is_pod(name):
            return self.pod(name)
        return self.ours.named(self.theirs.plain(name))

    def now(self, theirs: Object) -> Object | None:
        """What stands for a recorded object, as it is."""
        return self._now.get((theirs["kind"], self.name(theirs) or ""))


def _group(pod: Object, names: Names) -> str:
    """Pods of one template alike; one that was made by hand has its own name."""
    prefix: str | None = pod["metadata"].get("generateName")
    name: str = pod["metadata"]["name"]
    return names.plain(name if prefix is None else f"{prefix}aaaaa")
