"""One file or folder a subject; Dagster finds them by themselves."""
