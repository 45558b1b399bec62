"""Pools of worker processes on this host.

``driver`` decides, ``state`` remembers on disk, ``process`` starts and signals,
``watch`` observes. A worker is isolated by process, by user id when the engine
is root, and by rlimits, and by nothing else: for one tenant on one host.
"""
