"""What following costs, and how long events are on their way: ``python -m benchmarks.following``.

A server of its own, and processes that take turns: ``writer`` appends, ``listener`` follows. With
``--base`` a writer of another version of the package takes turns with this one's.
"""
