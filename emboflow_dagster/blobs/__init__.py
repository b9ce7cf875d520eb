"""Versions, hashes, ownership: bytes first, metadata second."""
