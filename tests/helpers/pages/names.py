"""Names and links."""
from .blocks import Page


def faults(page: Page) -> list[str]:
    return []
