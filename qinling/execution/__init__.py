"""From an accepted execution to its end: picks a worker, sends, records. Used by API and engine."""
