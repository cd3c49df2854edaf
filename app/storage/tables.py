"""The tables, for alembic's comparison and for whoever wants to read them in one place."""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData()
