"""Making what is into what should be."""
