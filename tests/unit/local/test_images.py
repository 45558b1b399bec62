"""Which command serves an image on this host."""

import sys

import pytest

from qinling import exceptions
from qinling.orchestrator.local.images import BUILT_IN, Images


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_images_that_are_there_from_the_start_run_the_own_worker(name: str) -> None:
    command = Images([]).command(name)
    assert command is not None
    assert command[0] == sys.executable
    assert command[-1].endswith("/qinling/worker")


@pytest.mark.parametrize(
    "image",
    [
        "example",
        "example:1",
        "example:latest",
        "example@sha256:0123456789abcdef",
        "example:1@sha256:0123456789abcdef",
    ],
)
def test_a_name_without_a_tag_matches_any_tag(image: str) -> None:
    assert Images(["example=/bin/one"]).command(image) == ("/bin/one",)


def test_a_port_of_a_registry_is_no_tag() -> None:
    images = Images(["registry:5000/example=/bin/one"])
    assert images.command("registry:5000/example") == ("/bin/one",)
    assert images.command("registry:5000/example:2") == ("/bin/one",)
    assert images.command("registry") is None
    assert images.command("registry:5000/other") is None


def test_a_name_with_a_tag_matches_that_tag_and_goes_first() -> None:
    images = Images(["example=/bin/any", "example:2=/bin/two"])
    assert images.command("example:2") == ("/bin/two",)
    assert images.command("example:1") == ("/bin/any",)
    assert Images(["example:2=/bin/two"]).command("example:1") is None
    assert Images(["example:2=/bin/two"]).command("example") is None


@pytest.mark.parametrize("image", ["", "examples", "my/example", "Example", "exampl"])
def test_another_name_matches_nothing(image: str) -> None:
    assert Images(["example=/bin/one"]).command(image) is None


def test_a_command_is_split_as_a_shell_does_it_and_no_shell_looks_at_it() -> None:
    images = Images(["example = /bin/sh -c 'echo $HOME; a=b' \"two words\" >x"])
    assert images.command("example") == ("/bin/sh", "-c", "echo $HOME; a=b", "two words", ">x")


def test_an_image_that_is_there_from_the_start_can_be_given_another_command() -> None:
    assert Images(["python3=/opt/own/python"]).command("python3:3.13") == ("/opt/own/python",)


@pytest.mark.parametrize("entry", ["", "example", "example=", "=/bin/one", " = ", "example='/bin"])
def test_a_malformed_entry_is_named_with_its_option(entry: str) -> None:
    with pytest.raises(exceptions.StartupError) as caught:
        Images(["good=/bin/one", entry])
    assert "[local] images" in str(caught.value)
    assert repr(entry) in str(caught.value)
