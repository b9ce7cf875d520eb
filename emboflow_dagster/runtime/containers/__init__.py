"""Containers: how a node runs an image with nothing but its inputs, and how what it leaves is checked."""
