"""Calls to providers: one file a dialect, one seam for HTTP. Nothing outside this folder knows a provider's format."""
