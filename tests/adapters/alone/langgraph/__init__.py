"""LangGraph on the store: its published suite, what that leaves out, and its graphs."""
