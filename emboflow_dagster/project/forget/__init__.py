"""Forgetting episodes: found everywhere, left out, their bytes destroyed, a tombstone left (decision 26)."""
