"""For tests of what uses conversations: doubles of what is at their ends, and fixtures for pytest."""

from __future__ import annotations

from chatmagic.testing.doubles import FakeClient, SpyRenderer

__all__ = ["FakeClient", "SpyRenderer"]
