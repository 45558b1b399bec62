"""The keys of workers: made here, kept encrypted in the database."""

import secrets

from cryptography import fernet
from oslo_config import cfg

from qinling import exceptions

_BYTES = 32


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
        except ValueError as error:
            # Not its text, nor the value.
            raise exceptions.StartupError(
                "[execution] secret is not 32 bytes as base64 for URLs."
            ) from error

    def make(self) -> bytes:
        """A new key for one worker."""
        return secrets.token_bytes(_BYTES)

    def hide(self, key: bytes) -> str:
        return self._fernet.encrypt(key).decode()

    def reveal(self, hidden: str) -> bytes | None:
        """A key that was hidden; None when that was with another secret."""
        try:
            return self._fernet.decrypt(hidden)
        except fernet.InvalidToken:
            return None
