"""The Python handle: one place that ties the rooms below together for a user, a command or a Dagster step."""
