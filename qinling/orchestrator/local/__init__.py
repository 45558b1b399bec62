"""Pools of worker processes on this host.

``driver`` decides, ``state`` remembers on disk, ``process`` starts, ``watch``
observes and ends, with ``group`` for all processes of a worker and ``probe`` for
its answers; ``guard`` is a program that ties other programs to the engine.

A worker is isolated by process, by user id when the engine is root, and by
rlimits, and by nothing else: for one tenant on one host.
"""
