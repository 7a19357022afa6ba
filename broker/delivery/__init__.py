"""Delivery policy: offsets, the life of a request, and what to do after a failed try. No I/O, time as an argument."""
