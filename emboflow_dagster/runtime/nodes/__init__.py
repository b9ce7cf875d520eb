"""The kinds of work there are: one module each, with a ``NODE``; ``_`` starts the names of shared parts."""
