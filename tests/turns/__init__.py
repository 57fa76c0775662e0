"""Turns in processes of their own, which are killed, frozen, and want one session at once."""
