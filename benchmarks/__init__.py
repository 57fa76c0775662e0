"""The benchmark suite: ``python -m benchmarks``, or ``nox -s bench``.

``suite`` runs it, ``cases`` says what is measured, ``goals`` what is hoped for. Each contestant
runs in a process of its own (``driver``), in an environment of its own where it is somebody else's
package, so what a contestant imports - ``cases``, ``messages``, ``measure``, ``driver`` - needs
nothing but Python.
"""

from __future__ import annotations
