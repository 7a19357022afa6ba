"""What carries the ports: one file per port and technology, and an in-memory twin of each."""
