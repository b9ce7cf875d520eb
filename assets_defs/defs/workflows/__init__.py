"""The workflows of the database."""
