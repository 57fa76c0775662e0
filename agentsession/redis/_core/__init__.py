"""What a connection decides: what to send, whose a reply is, what to send again. No I/O."""
