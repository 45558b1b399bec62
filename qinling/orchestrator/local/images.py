"""Which command serves an image on this host."""

import pathlib
import shlex
import sys
from collections.abc import Iterable

import qinling
from qinling import exceptions

# -I -S: neither the environment, nor the current folder, nor what is installed
# for the control plane may add to what a worker imports.
_WORKER = pathlib.Path(qinling.__file__).parent / "worker"
PYTHON_WORKER = (sys.executable, "-I", "-S", str(_WORKER))

BUILT_IN = ("python3", "openstackqinling/python3-runtime", "openstackqinling/python-runtime")


class Images:
    """The images of ``[local] images`` beside the ones that are there from the start."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._commands: dict[str, tuple[str, ...]] = dict.fromkeys(BUILT_IN, PYTHON_WORKER)
        for entry in entries:
            name, separator, command = entry.partition("=")
            try:
                words = tuple(shlex.split(command))
            except ValueError as error:
                raise exceptions.StartupError(f"[local] images: {entry!r}: {error}") from error
            if not (separator and name.strip() and words):
                raise exceptions.StartupError(
                    f"[local] images: {entry!r} is not of the form NAME=COMMAND."
                )
            self._commands[name.strip()] = words

    def command(self, image: str) -> tuple[str, ...] | None:
        """The command of ``image``, None when this host has no such image."""
        return self._commands.get(image) or self._commands.get(_untagged(image))

    def program(self, image: str) -> tuple[str, ...] | None:
        """The same for an image that is a function: one that serves workers is none."""
        command = self.command(image)
        return None if command == PYTHON_WORKER else command


def _untagged(image: str) -> str:
    image = image.partition("@")[0]
    head, slash, tail = image.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"
