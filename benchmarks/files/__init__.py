"""Stores in a file, side by side: ``python -m benchmarks --files``.

``roster`` says who takes part, ``cases`` what is measured as elsewhere, and ``beyond`` what is no
case: how durable a write is, how large a file becomes, several processes, a million events. What
stores is in ``benchmarks.contestants.files``.
"""

from __future__ import annotations
