"""Pydantic AI on the store: agents, what it expects of a store, what others do to the sessions."""
