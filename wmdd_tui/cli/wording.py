"""How help texts are worded: paragraphs that flow to any width, whatever the width of the source."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])


def flowing(command: Command) -> Command:
    """Join the lines of each paragraph of a command's docstring, which Typer would otherwise break where we did."""
    command.__doc__ = "\n\n".join(paragraphs(command.__doc__))
    return command


def paragraphs(text: str | None) -> list[str]:
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n") if part.strip()]
