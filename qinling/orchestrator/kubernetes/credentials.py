"""What says where the cluster is and who Qinling is there, read from files and a plugin.

For the client alone. Certificates and keys are kept in memory, a plugin gets a
time to end in, and each file that was read is remembered, so that one which was
renewed is read again.
"""

import base64
import contextlib
import json
import os
import signal
import subprocess  # nosec B404
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

# Bytes of what a plugin complains that go into a message.
_LONGEST_TEXT = 300
# Seconds before its end at which a credential is asked for anew.
_EARLY = 10.0


class Files:
    """Files as they were when they were read."""

    def __init__(self) -> None:
        self._stamps: dict[Path, object] = {}

    def read(self, path: str | Path) -> bytes:
        path = Path(path)
        self._stamps[path] = _stamp(path)
        return path.read_bytes()

    def changed(self) -> bool:
        return any(_stamp(path) != stamp for path, stamp in self._stamps.items())


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


@dataclass(slots=True)
class Keys:
    """Certificates and keys (PEM), and when they or a token end (Unix time)."""

    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    ends: float = float("inf")

    @property
    def ended(self) -> bool:
        return time.time() >= self.ends - _EARLY


def kubeconfig(files: Files, path: str, context: str | None, timeout: float) -> tuple[Object, Keys]:
    """A kubeconfig that the library needs no more files for, and what was taken out of it.

    What is wrong with its form is left to the library to tell.

    :param timeout: seconds that its credential plugin may take.
    :raises OSError, ValueError, yaml.YAMLError: it, or what it names, cannot be used.
    """
    place = Path(path).expanduser()
    config = yaml.safe_load(files.read(place))
    if not isinstance(config, dict):
        raise ValueError("there is no configuration in it")
    home = place.absolute().parent
    chosen = _part(config, "context", context or config.get("current-context"))
    cluster = _part(config, "cluster", chosen.get("cluster"))
    user = _part(config, "user", chosen.get("user"))
    keys = Keys(
        _content(files, home, cluster, "certificate-authority"),
        _content(files, home, user, "client-certificate"),
        _content(files, home, user, "client-key"),
    )
    if user.get("tokenFile") and not user.get("token"):
        user["token"] = files.read(home / user["tokenFile"]).decode().strip()
    plugin = user.pop("exec", None)
    if plugin and not user.get("token"):
        _use(_credential(plugin, cluster, keys.authority, home, timeout), user, keys)
    return config, keys


def _part(config: Object, kind: str, name: object) -> Object:
    """What the configuration has of a kind under a name."""
    for entry in config.get(f"{kind}s") or ():
        if entry.get("name") == name and isinstance(entry.get(kind), dict):
            found: Object = entry[kind]
            return found
    return {}


def _content(files: Files, home: Path, holder: Object, name: str) -> bytes | None:
    data, path = holder.pop(f"{name}-data", None), holder.pop(name, None)
    if data:
        return base64.b64decode(data)
    return files.read(home / path) if path else None


def _use(status: Object, user: Object, keys: Keys) -> None:
    """Take over what a plugin has answered."""
    if token := status.get("token"):
        user["token"] = token
    if status.get("clientCertificateData"):
        keys.certificate = str(status["clientCertificateData"]).encode()
        keys.key = str(status.get("clientKeyData") or "").encode()
    if status.get("expirationTimestamp"):
        keys.ends = datetime.fromisoformat(status["expirationTimestamp"]).timestamp()


def _credential(
    plugin: Object, cluster: Object, authority: bytes | None, home: Path, timeout: float
) -> Object:
    """What a credential plugin answers.

    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    command, version = plugin.get("command"), plugin.get("apiVersion")
    spec: Object = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = _told(cluster, authority)
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    env = {one["name"]: str(one["value"]) for one in plugin.get("env") or ()}
    env["KUBERNETES_EXEC_INFO"] = json.dumps(asked)
    output = _run([str(command), *map(str, plugin.get("args") or ())], env, home, timeout)
    try:
        answer = json.loads(output)
        status: Object = answer["status"]
        if answer["apiVersion"] == version and (
            status.get("token") or status.get("clientCertificateData")
        ):
            return status
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    # Not what it has printed, which may hold half a credential.
    raise ValueError(
        f"the credential plugin {command} did not answer with a credential of {version}"
    )


def _told(cluster: Object, authority: bytes | None) -> Object:
    """What a plugin that wants to is told of its cluster."""
    plain = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url")
    told = {name: cluster[name] for name in plain if name in cluster}
    if authority is not None:
        told["certificate-authority-data"] = base64.b64encode(authority).decode()
    for one in cluster.get("extensions") or ():
        if one.get("name") == "client.authentication.k8s.io/exec":
            told["config"] = one.get("extension")
    return told


def _run(command: list[str], env: Mapping[str, str], home: Path, timeout: float) -> bytes:
    """What a program prints; it ends in time, with all that it has started."""
    try:
        process = subprocess.Popen(  # nosec B603
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env={**os.environ, **env},
            start_new_session=True,
        )
    except OSError as error:
        raise ValueError(
            f"the credential plugin {command[0]} cannot be run: {error.strerror}"
        ) from error
    with process:
        try:
            output, complaint = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            raise ValueError(
                f"the credential plugin {command[0]} did not end within {timeout:g} s"
            ) from None
    if process.returncode:
        said = complaint[-_LONGEST_TEXT:].decode(errors="replace").strip()
        raise ValueError(
            f"the credential plugin {command[0]} ended with code {process.returncode}: "
            f"{said or 'it does not say why'}"
        )
    return output
