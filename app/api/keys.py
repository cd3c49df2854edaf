"""API keys over HTTP. Only the root key manages them, in every namespace."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from app.api.dependencies import TheCaller, TheParts
from app.api.documents import Answer, Form
from app.api.paging import Page, PageQuery, page
from app.api.problems import problems
from app.api.route import Route, root_only
from app.broker import keys
from app.domain.errors import Forbidden, InvalidField
from app.domain.key import EVERYTHING, RIGHTS, Key, check_pattern
from app.domain.names import NAME_PATTERN
from app.domain.position import parse_time
from app.storage.database import clock
from app.storage.keys import list_keys

MAX_PATTERNS = 100
MAX_PER_SECOND = 10**12

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=Route)

Right = Literal["publish", "consume", "manage"]
Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$", examples=["default"])]
Pattern = Annotated[
    str, AfterValidator(lambda pattern: check_pattern(pattern, "topics")), Field(min_length=1, max_length=128)
]
KeyId = Annotated[str, Path(alias="keyId", description="Id of the key.", examples=["key_4fJq0ZcWm1Xt"])]
EXAMPLE: JsonDict = {"name": "checkout", "scopes": ["publish"], "topics": ["orders-*"]}


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters")
    return text


def _moment(value: object) -> datetime:
    """An ISO 8601 time in UTC, as everywhere; never a number."""
    if isinstance(value, str):
        with suppress(InvalidField):
            return parse_time(value, "expiresAt")
    raise ValueError("must be an ISO 8601 time like 2026-01-31T12:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_moment)]


class KeyForm(Form):
    """What a key should be allowed to do."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    name: Annotated[str, AfterValidator(_printable)] = Field(min_length=1, max_length=128, examples=["checkout"])
    """For people."""
    project: Name | None = None
    """The namespace it is for; by default the one the request is in."""
    environment: Name | None = None
    scopes: list[Right] = Field(min_length=1, max_length=len(RIGHTS))
    """They do not imply each other; names, configuration and lag of its topics any key may read."""
    topics: list[Pattern] = Field([EVERYTHING], min_length=1, max_length=MAX_PATTERNS)
    """Names of topics, in which ``*`` stands for any characters."""
    expires_at: Moment | None = Field(None, examples=[None])
    """Null: never."""
    requests_per_second: int | None = Field(None, ge=0, le=MAX_PER_SECOND, examples=[None])
    """Null: what the server gives every key, LOGPOST_KEY_REQUESTS_PER_S. 0: as many as it likes."""
    bytes_per_second: int | None = Field(None, ge=0, le=MAX_PER_SECOND, examples=[None])
    """Of the bodies of its requests. Null: LOGPOST_KEY_BYTES_PER_S. 0: as many as it likes."""


class KeyAnswer(Answer):
    """A key, without what makes it one."""

    id: str = Field(examples=["key_4fJq0ZcWm1Xt"])
    name: str
    project: str
    environment: str
    scopes: list[Right]
    topics: list[str]
    expires_at: datetime | None
    created_at: datetime
    last_used_at: datetime | None
    """To within some seconds."""
    requests_per_second: int | None
    bytes_per_second: int | None

    @classmethod
    def of(cls, key: Key) -> KeyAnswer:
        return cls(
            id=key.id,
            name=key.name,
            project=key.namespace.project,
            environment=key.namespace.environment,
            scopes=[right for right in RIGHTS if right in key.rights],
            topics=list(key.patterns),
            expires_at=key.expires_at,
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            requests_per_second=key.requests_per_s,
            bytes_per_second=key.bytes_per_s,
        )


class NewKeyAnswer(KeyAnswer):
    """A key that was just made: ``key`` is shown this once."""

    key: str = Field(examples=["lp_4fJq0ZcWm1Xt_…"])


class KeysQuery(PageQuery):
    project: Annotated[Name | None, Query(description="Only keys of this project.")] = None
    environment: Annotated[Name | None, Query(description="Only keys of this environment.")] = None


@router.post(
    "", operation_id="createKey", summary="Make a key", status_code=201, responses=problems(401, 403)
)  # fmt: skip
@root_only
async def create_key(form: KeyForm, parts: TheParts, caller: TheCaller) -> NewKeyAnswer:
    """The answer is the only time that the key is shown: what is kept of it cannot be used."""
    if not parts.gate.has_keys:
        raise Forbidden("Keys are switched off: LOGPOST_ROOT_KEY switches them on.")
    if form.expires_at is not None:
        async with parts.db.connection() as connection:
            if form.expires_at <= await clock(connection):
                raise InvalidField.of("expiresAt", "must be in the future")
    namespace = await parts.gate.namespace(
        form.project or caller.namespace.project, form.environment or caller.namespace.environment
    )
    made, key = await keys.create_key(
        parts.db, namespace,
        name=form.name,
        rights=[right for right in RIGHTS if right in form.scopes],
        patterns=list(dict.fromkeys(form.topics)),
        expires_at=form.expires_at,
        requests_per_s=form.requests_per_second,
        bytes_per_s=form.bytes_per_second,
        most=parts.limits.keys,
    )  # fmt: skip
    return NewKeyAnswer(**KeyAnswer.of(key).model_dump(by_alias=False), key=made.text)


@router.get("", operation_id="listKeys", summary="List keys", responses=problems(401, 403, 422))
@root_only
async def list_all(parts: TheParts, query: Annotated[KeysQuery, Query()]) -> Page[KeyAnswer]:
    """Of every namespace, or of the one that is asked for. The keys themselves are not shown."""
    found = await list_keys(
        parts.db, project=query.project, environment=query.environment, after=query.after(str, ""),
        limit=query.limit + 1,
    )  # fmt: skip
    return Page(**page(found, query.limit, KeyAnswer.of, lambda key: key.prefix))


@router.get("/{keyId}", operation_id="getKey", summary="Read a key", responses=problems(401, 403, 404, 422))
@root_only
async def get_key(key_id: KeyId, parts: TheParts) -> KeyAnswer:
    """What it may do, and when it was used last."""
    return KeyAnswer.of(await keys.read_key(parts.db, key_id))


@router.delete(
    "/{keyId}", operation_id="revokeKey", summary="Revoke a key", status_code=204,
    responses=problems(401, 403, 404, 422),
)  # fmt: skip
@root_only
async def revoke_key(key_id: KeyId, parts: TheParts) -> None:
    """For good. Every replica refuses it within five seconds, and ends the streams that it opened."""
    await keys.revoke_key(parts.db, parts.gate.keyring, key_id)
