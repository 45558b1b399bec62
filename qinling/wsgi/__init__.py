"""What WSGI servers load."""
