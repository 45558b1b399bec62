"""The keys of workers: made here, kept encrypted in the database.

A key follows from the worker's id and ``[execution] secret``, so that a worker can be told
at its start, before anybody wants it, which key it is to take: by the key's digest, from which
nobody who reads it can make the key.
"""

import base64
import hashlib
import hmac

from cryptography import fernet
from oslo_config import cfg

from qinling import exceptions


class Keys:
    """Makes keys, and hides and reveals them with ``[execution] secret``.

    :raises StartupError: there is no such secret, or it is not one.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        secret = conf.execution.secret
        if not secret:
            raise exceptions.StartupError(
                "[execution] secret is not set: make one by `openssl rand -base64 32 | tr +/ -_` "
                "and give the same one to API and engine."
            )
        try:
            self._fernet = fernet.Fernet(secret)
            self._secret = base64.urlsafe_b64decode(secret)
        except ValueError as error:
            # Not its text, nor the value.
            raise exceptions.StartupError(
                "[execution] secret is not 32 bytes as base64 for URLs."
            ) from error

    def make(self, worker_id: str) -> bytes:
        """The key of one worker, 256 bits."""
        return hmac.digest(self._secret, f"key of worker {worker_id}".encode(), "sha256")

    def digest(self, worker_id: str) -> str:
        """SHA-256 of a worker's key, in hexadecimal digits."""
        return hashlib.sha256(self.make(worker_id)).hexdigest()

    def hide(self, key: bytes) -> str:
        return self._fernet.encrypt(key).decode()

    def reveal(self, hidden: str) -> bytes | None:
        """A key that was hidden; None when that was with another secret."""
        try:
            return self._fernet.decrypt(hidden)
        except fernet.InvalidToken:
            return None
