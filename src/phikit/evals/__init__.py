"""Every checkpoint on the same held-out items, every number with its interval."""
