"""One module a dialect, and those it is made of."""
