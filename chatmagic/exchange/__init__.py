"""Conversations to files and back: our own, and those of others."""
