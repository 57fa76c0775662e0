"""The checks of turns: one at a time, always ended, and shown to a model whole."""
