"""Links: how scripts reach a server, also when connections are lost."""
