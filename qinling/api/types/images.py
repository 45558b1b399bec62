"""Names of images, by the reference grammar of the distribution project.

https://pkg.go.dev/github.com/distribution/reference: ``[domain/]path[:tag][@digest]``.
A registry knows no other names, so one is refused where it is given, and not by
a node minutes later.
"""

import re
from typing import Any

from wsme import types as wtypes

from qinling.api.types.base import Text

_DOMAIN_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = rf"(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*"
_TAG = r"\w[\w.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"({_NAME})(?::{_TAG})?(?:@{_DIGEST})?", re.ASCII)
# What is meant by it is an image's id, which no registry can be asked for.
_ID = re.compile("[a-f0-9]{64}")


class Image(wtypes.UserType):  # type: ignore[misc]
    """The name of an image."""

    basetype = str
    name = "image"

    # A tag and a digest come on top of the name; the column takes as much.
    _text = Text(longest=255, shortest=1)

    def validate(self, value: Any) -> str:
        text = self._text.validate(value)
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text[:80]!r} is not the name of an image, as in "
                "registry.example.org/team/runtime:1.0; it has lower case letters before its tag"
            )
        if _ID.fullmatch(found[1]):
            raise ValueError("it is the id of an image, and not its name")
        return text
