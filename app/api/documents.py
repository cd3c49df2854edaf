"""The shape of bodies: what comes in is strict, what goes out is complete; names are camelCase on both sides."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

from app.domain.errors import InvalidField
from app.domain.secret import MASK
from app.domain.signature import parse_secret

Text = Annotated[str, StringConstraints(max_length=1000)]


class Form(BaseModel):
    """A body, or a part of one. Unknown fields are refused, and no value is taken for one of another type."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, serialize_by_alias=True,
        use_attribute_docstrings=True,
    )  # fmt: skip

    def given(self, *but: str) -> dict[str, Any]:
        """The fields that were there, by their names in Python, without those named."""
        return {name: getattr(self, name) for name in self.model_fields_set if name not in but}


class Answer(BaseModel):
    """A document that goes out."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True,
        use_attribute_docstrings=True,
    )  # fmt: skip


class Pause(Answer):
    """Since when nothing is delivered, and why."""

    reason: str | None
    since: datetime

    @classmethod
    def of(cls, since: datetime | None, reason: str | None) -> Self | None:
        return None if since is None else cls(reason=reason, since=since)


def unmasked(secret: str | None, present: str | None, field: str) -> str | None:
    """The secret that is meant: in a declaration the mask stands for the one there is. Raises InvalidField."""
    if secret == MASK:
        if present is None:
            raise InvalidField.of(field, "is the mask of a secret, and there is none yet")
        return present
    if secret is not None:
        parse_secret(secret, field)
    return secret
