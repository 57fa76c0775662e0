"""How each source is read: its layout, and what its entries are here."""

from __future__ import annotations
