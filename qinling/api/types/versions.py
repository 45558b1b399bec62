"""What ``GET /`` and ``GET /v1`` answer."""

from qinling.api.types.base import Type


class Link(Type):
    href = str
    target = str
    rel = str


class Version(Type):
    id = str
    status = str
    links = [Link]


class Versions(Type):
    versions = [Version]


class Resource(Type):
    uri = str
