"""Texts of unknown origin, made fit for a terminal."""

from __future__ import annotations

NAME_CHARACTERS = 200


def printable(text: str) -> str:
    """A text of unknown origin without control characters, which a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() or character == "\n" else "�" for character in text)


def as_name(text: str) -> str:
    """A name of unknown origin: one line of bounded length, as it came unless it cannot be shown so."""
    if len(text) <= NAME_CHARACTERS and text.isprintable():
        return text  # as most are, many times a second
    return " ".join(printable(text[:NAME_CHARACTERS]).split("\n"))
