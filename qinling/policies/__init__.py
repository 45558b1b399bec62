"""oslo.policy in code: the rules, and the enforcer that asks them."""

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from oslo_config import cfg
from oslo_log import log
from oslo_policy import opts as policy_opts
from oslo_policy import policy

from qinling import exceptions
from qinling.policies import (
    base,
    executions,
    function_aliases,
    function_versions,
    functions,
    runtimes,
    workers,
)

if TYPE_CHECKING:
    from oslo_context import context as oslo_context

LOG = log.getLogger(__name__)

# Seconds between looks for a changed policy file.
_RELOAD = 1.0


def list_rules() -> Iterable[policy.RuleDefault]:
    """All rules with their defaults (the entry point ``oslo.policy.policies``)."""
    return [
        *base.rules,
        *runtimes.rules,
        *functions.rules,
        *function_versions.rules,
        *function_aliases.rules,
        *workers.rules,
        *executions.rules,
    ]


def set_defaults(conf: cfg.ConfigOpts) -> None:
    """Hold the new defaults from the start: there are no old ones. Scopes are always held."""
    policy_opts.set_defaults(conf, policy_file="policy.yaml", enforce_new_defaults=True)


class Enforcer:
    """Answers whether a rule is granted; one per application, never global.

    :raises StartupError: the policy file cannot be read.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._enforcer = policy.Enforcer(conf)
        self._enforcer.register_defaults(list(list_rules()))
        try:
            self._enforcer.load_rules()
        except Exception as error:
            # oslo.policy meets a file that is no mapping unprepared: with any of Python's errors.
            raise exceptions.StartupError(
                f"[oslo_policy] policy_file {conf.oslo_policy.policy_file}: it is not YAML that "
                f"maps policies to rules, or cannot be read: {error}"
            ) from error
        # It would look for a changed file at every question, in eleven places.
        self._enforcer.use_conf = False
        self._reload_due = time.monotonic() + _RELOAD
        self._reloading = threading.Lock()

    def grants(
        self, rule: str, target: dict[str, Any], context: "oslo_context.RequestContext"
    ) -> bool:
        """Whether ``context`` is granted ``rule`` on ``target``.

        A token of a scope that the rule does not know is not granted it.
        """
        if time.monotonic() >= self._reload_due:
            self._reload()
        try:
            return bool(self._enforcer.authorize(rule, target, context))
        except policy.InvalidScope:
            return False

    def _reload(self) -> None:
        """Read the policy file again if it has changed; a broken one changes nothing."""
        with self._reloading:
            self._reload_due = time.monotonic() + _RELOAD
            self._enforcer.use_conf = True
            try:
                self._enforcer.load_rules()
            except Exception as error:
                LOG.error("The policy file cannot be read, so the old rules hold: %s", error)
            finally:
                self._enforcer.use_conf = False


def get_enforcer() -> policy.Enforcer:
    """For the oslopolicy-* tools (the entry point ``oslo.policy.enforcer``)."""
    conf = cfg.CONF
    # A tool has read its command line, which may name other files than the usual ones.
    conf([], project="qinling", default_config_files=getattr(conf, "config_file", None) or None)
    set_defaults(conf)
    enforcer = policy.Enforcer(conf)
    enforcer.register_defaults(list(list_rules()))
    return enforcer
