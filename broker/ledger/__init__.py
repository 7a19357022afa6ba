"""What an attempt costs and how it is told: events, prices, estimates. No I/O; `now` is an argument."""
