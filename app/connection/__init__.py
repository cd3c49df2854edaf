"""The server's end of one HTTP/1.1 connection: uvicorn's, with the deadlines, bounds and strictness it lacks.

What uvicorn alone does, and this does not: wait for ever for the rest of a request, or for a reader of the answer;
hold a request head of any size; take chunked trailers for headers; start a request without a Host; answer a broken
pipelined request in the place of the good one before it; lose the body of a request that offers ``Upgrade: h2c``, as
Java's client does unasked. The parser (llhttp) already refuses every other framing trick we know.
"""

from app.connection.deadlines import Limits
from app.connection.held import Shortcut
from app.connection.protocol import Connection
from app.connection.shortcut import connections

__all__ = ["Connection", "Limits", "Shortcut", "connections"]
