"""Names of images: what a registry could be asked for, and nothing else."""

import pytest

from qinling.api.types.images import Image

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "name",
    [
        "python3",
        "python3:latest",
        "openstackqinling/python3-runtime",
        "registry.example.org/team/sub/runtime:1.0_rc-2",
        "registry.example.org:5000/runtime",
        "localhost/runtime",
        "[2001:db8::1]:5000/runtime:1",
        f"runtime@{DIGEST}",
        f"Registry.Example.ORG/runtime:Tag@{DIGEST}",
        "a__b--c.d/e",
        "a" * 255,
    ],
)
def test_what_a_registry_can_be_asked_for_is_taken(name: str) -> None:
    assert Image().validate(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Python3",
        "runtime:",
        "runtime:-tag",
        "runtime:" + "t" * 129,
        "run time",
        " runtime",
        "runtime\n",
        "-runtime",
        "runtime-",
        "a..b",
        "a___b",
        "/runtime",
        "registry.example.org//runtime",
        "https://registry.example.org/runtime",
        "runtime@sha256:abc",
        "runtime;reboot",
        "$(reboot)",
        "../../etc/passwd",
        "rüntime",
        "runtime:tąg",
        "0123456789abcdef" * 4,
        "a" * 256,
        7,
        None,
        ["runtime"],
    ],
)
def test_anything_else_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match=r"^it |is not the name of an image"):
        Image().validate(name)
