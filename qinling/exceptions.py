"""Every error of the service: its message and its HTTP code.

Raised anywhere; turned into an answer in one place, the error middleware of
the API. Messages are written for the person who reads them: what, which one,
why and what to do.
"""


class QinlingError(Exception):
    """An error with an HTTP code. ``retry_after`` is in seconds."""

    code = 500
    retry_after: int | None = None


class BadRequest(QinlingError):
    code = 400


class Forbidden(QinlingError):
    code = 403


class NotFound(QinlingError):
    code = 404

    @classmethod
    def of(cls, noun: str, key: str) -> "NotFound":
        return cls(f"{noun} {key} does not exist.")


class MethodNotAllowed(QinlingError):
    code = 405

    def __init__(self, method: str, path: str, allowed: list[str]) -> None:
        self.allowed = allowed
        super().__init__(f"Method {method} is not allowed on {path}; use {', '.join(allowed)}.")


class NoPackage(MethodNotAllowed):
    """The download of a function that is an image: the contract gives it this code."""

    def __init__(self, function_id: str) -> None:
        self.allowed = ["DELETE", "GET", "HEAD", "PUT"]
        QinlingError.__init__(
            self, f"Function {function_id} is an image, and has no package to download."
        )


class Conflict(QinlingError):
    code = 409


class FunctionChanged(Conflict):
    """The function has changed since it was read, or the worker is let go: read again."""

    def __init__(self, function_id: str) -> None:
        super().__init__(f"Function {function_id} is being changed by others; try again.")


class ExecutionTaken(QinlingError):
    """It has ended, was deleted, or another process has it: this one's lease had lapsed."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(f"Execution {execution_id} is no longer this process's.")


class KeyTaken(Conflict):
    """There is an execution with this Idempotency-Key: read it."""

    def __init__(self) -> None:
        super().__init__("Idempotency-Key: requests with it come and go; try again.")


class StillRunning(Conflict):
    """The first request with an Idempotency-Key has no answer yet."""

    retry_after = 1


class BodyTooSlow(QinlingError):
    code = 408


class LengthRequired(QinlingError):
    code = 411


class BodyTooLarge(QinlingError):
    code = 413


class UnsupportedMediaType(QinlingError):
    code = 415


class Overloaded(QinlingError):
    """There is too much to do already; the caller may try again."""

    code = 429
    retry_after = 1


class Unprocessable(QinlingError):
    code = 422


class Unavailable(QinlingError):
    """Something the service needs is away for now; the caller may try again."""

    code = 503
    retry_after = 5


class DatabaseUnavailable(Unavailable):
    pass


class PackageLost(QinlingError):
    """The store has not, or not as it was, what the database refers to."""

    def __init__(self, digest: str, what: str) -> None:
        super().__init__(
            f"Package {digest} {what} in the store of packages: restore it from a backup, or "
            "upload it again."
        )


class NotAllowed(Forbidden):
    """The policy refuses; the contract asks for these very words."""

    def __init__(self, rule: str) -> None:
        super().__init__(f"Operation not allowed: {rule} is not granted to you by the policy.")


class StartupError(QinlingError):
    """The service cannot start as configured: told in one line, exit code 1."""


class LeaseLapsed(QinlingError):
    """An engine that has not renewed its lease in time must not work."""


class InvalidTransition(QinlingError):
    """A status change that ``states.py`` does not know: a mistake in the code."""


class OrchestratorError(QinlingError):
    """The orchestrator cannot do what it was asked for now; asked again later."""

    @property
    def cause(self) -> str:
        """What everybody may read of it: what is behind the first ": " is the operator's matter."""
        return str(self).partition(": ")[0]


class PoolBusy(OrchestratorError):
    """Another engine is at work on this pool at this moment."""


class ClusterAway(OrchestratorError):
    """The cluster gave no answer, or one that says to come back later.

    What raises it tells of it in the log, once for all who meet the same.

    :param status: the HTTP status of that answer.
    :param retry_after: seconds until then, where the cluster names them.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ClusterRefusal(OrchestratorError):
    """The cluster will not do this as it was asked; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class RunRefused(OrchestratorError):
    """A run of an image can never be as it was asked for."""


class RunLost(OrchestratorError):
    """A run was begun, and nobody will ever know how it ended."""


class StaleRevision(OrchestratorError):
    """What was asked for is older than what is there already, ``revision``."""

    def __init__(self, message: str, revision: int) -> None:
        super().__init__(message)
        self.revision = revision


class WorkerError(QinlingError):
    """A worker did not do what it was asked for."""


class WorkerGone(WorkerError):
    """It is not there, or not the one that it was: nothing was run."""


class WorkerAway(WorkerGone):
    """It cannot be reached now: what it was asked before may go on."""


class WorkerBusy(WorkerError):
    """It runs as many executions as it may: nothing was run."""


class WorkerLost(WorkerError):
    """It was asked and did not answer: nobody knows what it has done."""


class WorkerBroken(WorkerError):
    """It has answered what cannot be, and would again: nobody will know what it has done."""


class FunctionRefused(WorkerError):
    """It does not take the function as it is, and no other one would."""


class WorkerUnfit(WorkerError):
    """It cannot have what its function needs; another one may."""


class NoWorker(WorkerError):
    """No worker could be had in time."""
