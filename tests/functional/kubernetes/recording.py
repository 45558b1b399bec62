"""Recordings of a real Kubernetes, and how to compare what they hold with what another answers.

Names that a server makes, uids, versions, times and addresses differ from run to run. `Names` makes
them alike: a template's hash becomes its number among the hashes of its Deployment, in the order in
which they appeared, and the random end of a pod's name a star.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Object = dict[str, Any]

_TRANSCRIPTS = Path(__file__).parent / "transcripts"
# What differs between any two runs, wherever it stands in an object.
_VOLATILE = frozenset(
    (
        "uid", "resourceVersion", "managedFields", "containerID", "imageID", "hostIP", "hostIPs",
        "podIP", "podIPs", "nodeName", "continue", "fieldsV1", "host", "reportingInstance",
        "ip",
    )
)  # fmt: skip
_SET = re.compile(r'[Rr]eplica ?[Ss]et "([a-z0-9]+)-([a-z0-9]+)"')
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
_ADDRESS = re.compile(r"\b(10|127)\.\d+\.\d+\.\d+\b")
# What the real server quotes of its own structures to show what was changed.
_DIFFERENCE = re.compile(r"\n@@.*(?=\])|\n@@.*", re.DOTALL)
_VERSION = re.compile(r"\b(precondition|record) \(\d+\)")
_EPOCH = re.compile(r"\b\d{10}\.\d+")
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NAME = re.compile(
    r"\b([a-z0-9]+)-([bcdfghjklmnpqrstvwxz2456789]{8,10})(-[a-z0-9]{5}(?![a-z0-9]))?"
)


@dataclass(frozen=True)
class Call:
    """One exchange; `number` is its place in the scenario."""

    scenario: str
    number: int
    recorded: Mapping[str, Any]

    def is_in(self, table: Mapping[str, str]) -> bool:
        """Whether a table of what is left out names it or its scenario."""
        if self.scenario in table or f"{self.scenario}#{self.number}" in table:
            return True
        return any(f"{self.scenario}#{first}+" in table for first in range(self.number + 1))

    @property
    def at(self) -> float:
        return float(self.recorded.get("at", 0))

    @property
    def note(self) -> str:
        return str(self.recorded.get("note", ""))

    @property
    def request(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self.recorded.get("request")
        return found

    @property
    def response(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.recorded["response"]
        return found

    def __str__(self) -> str:
        what = "" if self.request is None else f"{self.request['method']} {self.request['path']}"
        return f"{self.scenario} call {self.number} ({self.note}) {what}"


@dataclass(frozen=True)
class Scenario:
    name: str
    document: Mapping[str, Any]

    @property
    def trimmed(self) -> bool:
        return "trimmed" in self.document

    @cached_property
    def calls(self) -> list[Call]:
        return [
            Call(self.name, number, recorded)
            for number, recorded in enumerate(self.document["calls"])
        ]

    @property
    def watches(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self.document["watches"]
        return found

    def events(self, watch: Mapping[str, Any]) -> Iterator[tuple[float, str, Object]]:
        """The time, the type and the object of each event."""
        for recorded in watch["events"]:
            event = recorded.get("event", recorded)
            if "type" in event:
                yield recorded["at"], event["type"], event["object"]

    def objects(self) -> Iterator[tuple[float, Object]]:
        """Every object that the recording shows, with its time."""
        for watch in self.watches:
            for at, _, found in self.events(watch):
                yield at, found
        for call in self.calls:
            body = call.response.get("body")
            if isinstance(body, dict):
                kind = body.get("kind", "")
                for item in body.get("items", [body]):
                    yield call.at, {"kind": kind.removesuffix("List"), **item}


def names() -> list[str]:
    """Of all scenarios, in order."""
    return sorted(path.name.removesuffix(".json.gz") for path in _TRANSCRIPTS.glob("*.json.gz"))


def load(name: str) -> Scenario:
    with gzip.open(_TRANSCRIPTS / f"{name}.json.gz", "rt") as file:
        return Scenario(name, json.load(file))


class Names:
    """The names that one server made."""

    def __init__(self) -> None:
        self._hashes: dict[str, list[str]] = {}

    def learn(self, found: Object) -> None:
        """Take note of the template's hash of an object."""
        metadata = found.get("metadata", {})
        hashed = (metadata.get("labels") or {}).get("pod-template-hash")
        if hashed:
            name = metadata.get("generateName") or metadata.get("name", "")
            self._number(name.partition(f"-{hashed}")[0], hashed)
        status = found.get("status")
        for condition in (status.get("conditions") or ()) if isinstance(status, dict) else ():
            for match in _SET.finditer(condition.get("message", "")):
                self._number(match[1], match[2])

    def _number(self, owner: str, hashed: str) -> int:
        hashes = self._hashes.setdefault(owner, [])
        if hashed not in hashes:
            hashes.append(hashed)
        return hashes.index(hashed) + 1

    def plain(self, text: str) -> str:
        """A text without what is this server's own."""
        text = _DIFFERENCE.sub("", text)
        text = _EPOCH.sub("<time>", text)
        text = _VERSION.sub(r"\1 (<version>)", text)
        text = _UID.sub("<uid>", _ADDRESS.sub("<address>", text))
        return _NAME.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        owner, hashed, pod = match.groups()
        if hashed not in self._hashes.get(owner, ()):
            return match[0]
        return f"{owner}-#{self._number(owner, hashed)}" + ("-*" if pod else "")

    def named(self, plain: str) -> str:
        """This server's name for a plain one."""
        owner, mark, number = plain.partition("-#")
        hashes = self._hashes.get(owner, [])
        return (
            f"{owner}-{hashes[int(number) - 1]}" if mark and int(number) <= len(hashes) else plain
        )

    def hash(self, hashed: str) -> str:
        for hashes in self._hashes.values():
            if hashed in hashes:
                return f"#{hashes.index(hashed) + 1}"
        return hashed

    def normal(self, found: Any) -> Any:
        """An object as it compares with one of another server."""
        if isinstance(found, dict):
            return {
                name: self._normal_field(name, value)
                for name, value in found.items()
                if name not in _VOLATILE
            }
        if isinstance(found, list):
            return [self.normal(item) for item in found]
        if isinstance(found, str):
            return "<time>" if _TIME.match(found) else self.plain(found)
        return found

    def _normal_field(self, name: str, value: Any) -> Any:
        if name == "name" and isinstance(value, str):
            # An event's, which ends in the time.
            value = re.sub(r"\.[0-9a-f]{16}$", ".<number>", value)
        if name == "causes" and isinstance(value, list):
            # The real server checks some things twice.
            value = [cause for n, cause in enumerate(value) if cause not in value[:n]]
        if name == "pod-template-hash":
            return self.hash(value)
        if name == "conditions" and isinstance(value, list):
            # Their order is that in which they last changed.
            return sorted(self.normal(value), key=lambda found: str(found.get("type")))
        return self.normal(value)


def differences(expected: Any, found: Any, path: str = "", *, whole: bool) -> Iterator[str]:
    """Where two normal objects differ.

    :param whole: whether what was recorded is all there may be.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            if name not in found:
                yield f"{path}.{name} is missing; recorded: {value!r}"
            else:
                yield from differences(value, found[name], f"{path}.{name}", whole=whole)
        if whole:
            for name in found.keys() - expected.keys():
                yield f"{path}.{name} was not recorded: {found[name]!r}"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (value, there) in enumerate(zip(expected, found, strict=True)):
            yield from differences(value, there, f"{path}[{number}]", whole=whole)
    elif expected != found:
        yield f"{path} is {found!r}; recorded: {expected!r}"
