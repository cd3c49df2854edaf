"""What the streams of a process stand on: the reader of the topics that are watched, and the look at open windows."""

from __future__ import annotations

from app.broker.feed import Feeds
from app.broker.window import Windows
from app.loops.loop import Loop
from app.loops.supervisor import Supervisor

# How soon a settle on another replica frees a window when its hint was lost.
LOOK_INTERVAL_MS = 250


def start_streams(supervisor: Supervisor, feeds: Feeds, windows: Windows) -> None:
    look = Loop("windows", windows.look, interval_ms=LOOK_INTERVAL_MS)
    windows.on_hint = look.wake
    supervisor.start("feeds", feeds.run, stop=feeds.stop)
    supervisor.start_loop(look)
