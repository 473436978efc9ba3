"""What every section of the configuration is made of."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo

#: Of a field that comes first in the form.
BASIC: dict[str, Any] = {"level": "basic"}
#: Of a field that came after results had been made and kept without it: see ``Section.determinants``.
LATER: dict[str, Any] = {"later": True}


def unit(name: str, basic: bool = False) -> dict[str, Any]:
    """What a field with a unit tells the form, beside its bounds."""
    return {"unit": name, "level": "basic" if basic else "advanced"}


def _listed(value: Any) -> Any:
    """A text as ``--set`` and the form give it, "a, b", as a list."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a single number is a name too: --set run.devices=0
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


#: A list of names; one of a single line may be written "a, b".
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """One table of the TOML file: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def determinants(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """The options (as JSON has them) by which results are known, but those of ``exclude``.

        A later option counts only where it differs from its default, so that what was kept before it is still found.
        """
        fields = type(self).model_fields
        unused = {name for name, field in fields.items() if _is_later(field) and getattr(self, name) == field.default}
        return self.model_dump(mode="json", exclude={*exclude, *unused})


def _is_later(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("later"))
