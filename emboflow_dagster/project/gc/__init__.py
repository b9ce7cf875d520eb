"""Keeping and letting go: the one liveness rule, the collection, and why something is kept (decision 13)."""
