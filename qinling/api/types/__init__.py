"""WSME types: what goes over the wire, one module per noun."""
