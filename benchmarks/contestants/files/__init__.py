"""Stores in a file: this project's and the frameworks' own, for ``--files``."""

from __future__ import annotations
