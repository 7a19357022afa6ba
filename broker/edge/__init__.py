"""HTTP faces of a process: health and metrics. Imports no other folder of its level."""
