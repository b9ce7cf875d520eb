"""How a Python value becomes bytes and comes back: one handler a type, asked in one order.

What happens when a payload is read is decided by the reader, never by the payload.
"""
