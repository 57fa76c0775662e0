"""Links: how scripts reach a server, whatever becomes of connections."""
