"""The benchmark: the figures that this release is held to, and the floors beside them.

``python -m tests.bench`` starts real services, measures, prints a table and writes JSON. It is no
part of the tests. A figure with a floor is judged by its ratio to it: both are taken in turn in the
same run, so that a busy machine hits both. What has no goal is there to compare (`beside`). Each
module but the plumbing (`report`, `site`, `rows`, `wire`) is a figure or a program that one needs.
"""
