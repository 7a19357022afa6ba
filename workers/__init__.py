"""The processes that serve requests: the loop, the provider calls, the relay and the sinks."""
