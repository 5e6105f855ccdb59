"""Graders: pure functions of an item and an answer. Each says in one line which published rule it is."""
