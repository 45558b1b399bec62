"""Pools on Kubernetes: each one a Deployment, of which a claimed worker is let out."""
