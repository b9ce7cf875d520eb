"""Checks of recordings, demonstrations, datasets and videos: measurements, judged by thresholds."""
