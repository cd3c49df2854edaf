"""The tables, to read. The migrations make them; a test holds the two equal to the last check and index.

Nothing here is queried through: statements are SQL, next to the function that runs them.
"""

from app.storage.tables import access, groups, hooks, log, replicas
from app.storage.tables.columns import metadata

__all__ = ["access", "groups", "hooks", "log", "metadata", "replicas"]
