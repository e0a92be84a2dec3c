"""Where reports go."""

from __future__ import annotations

from pathlib import Path


def report(records: list[dict], folder: Path) -> None:
    pass


def publish(records: list[dict], repo: Path) -> None:
    pass
