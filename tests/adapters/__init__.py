"""Adapters, each on the real framework."""
