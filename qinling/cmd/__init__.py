"""Programs: short mains that put the parts together."""
