"""The REST API: the wire contract v1 on Pecan and WSME."""
