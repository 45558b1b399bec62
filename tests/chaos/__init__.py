"""The history check: whole installations under load and faults, and what must hold afterwards.

``plan``: what befalls an installation, from a seed. ``sites``: the installations. ``actors``: eight
clients that call, update, scale and detach functions, and the hand that kills and stops processes.
``history``: what they have seen and done. ``checker``: what a history, the rows in the database
and what the functions themselves have written down must be together; pure functions. ``trial``: one
seed on one installation, from its start to its empty end. ``python -m tests.chaos`` runs many.
"""
