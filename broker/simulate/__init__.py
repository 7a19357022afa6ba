"""Providers that are none: their APIs on this machine, as strict as they are, with faults and limits on demand."""
