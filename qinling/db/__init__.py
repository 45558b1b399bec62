"""Rows: what should be. Nothing outside this package sees SQLAlchemy."""
