"""Registered memory: tokens, regions, windows, logical addresses, and the one access check."""
