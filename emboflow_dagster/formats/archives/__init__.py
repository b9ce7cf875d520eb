"""Archives of recordings: listed, judged before anything is written, looked into, unpacked in bounds."""
