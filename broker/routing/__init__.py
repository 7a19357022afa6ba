"""Which deployment serves an alias: catalogue, strategies, cool-down, and the router over them. No I/O."""
