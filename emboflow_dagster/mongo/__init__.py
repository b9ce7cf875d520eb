"""Where it is remembered; the only room that imports pymongo."""
