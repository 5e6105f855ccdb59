"""The nano world's held-out tasks: every checkpoint of a run on the same items, in stage `eval`."""
