"""A proof of ``service.subscribe``: ``python -m reliability.following``.

Processes of ``followers`` follow sessions, to which processes of ``writers`` write, and which they
rewind, while connections are cut and servers are lost. In the end ``checker`` compares what each
follower was given with the raw logs. ``trial`` puts these together.
"""
