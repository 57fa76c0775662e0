"""Attacks on the service, and a checker that proves what is left.

``workers`` do what a seed decides, in several processes, and record what they did and saw
(``history``), while ``faults`` befall the ``site`` that they work on. In the end ``checker``
compares all that was recorded with what the service promises. ``trial`` puts these together, and
``python -m reliability`` runs many of them.
"""

from __future__ import annotations

import logging

# What befalls connections here is intended, and would fill the terminal.
logging.getLogger("agentsession").addHandler(logging.NullHandler())
