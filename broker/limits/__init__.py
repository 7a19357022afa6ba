"""Limits of a deployment: windows of requests and tokens, slots, permits. No I/O, time as an argument."""
