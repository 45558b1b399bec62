"""What every request passes before Pecan sees it; the order is in ``api.app``."""
