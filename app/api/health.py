"""Whether the process runs (``/livez``) and whether it is of use (``/readyz``)."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.api.dependencies import Db
from app.api.problems import problems
from app.storage.database import is_up

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/livez", operation_id="livez")
async def livez() -> Health:
    """200 as long as the process answers at all; says nothing of the database."""
    return Health()


@router.get("/readyz", operation_id="readyz", responses=problems(503))
async def readyz(db: Db) -> Health:
    """200 when the database answers, 503 when it does not."""
    await is_up(db)
    return Health()
