"""What of curl the README needs, for machines without it: ``-sS -w TEXT -X METHOD -H HEADER -d BODY URL``."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request


def main() -> None:
    options = argparse.ArgumentParser(prog="curl")
    options.add_argument("-sS", action="store_true")
    options.add_argument("-w", default="")
    options.add_argument("-X", default="GET")
    options.add_argument("-H", action="append", default=[])
    options.add_argument("-d")
    options.add_argument("url")
    given = options.parse_args()
    body = None if given.d is None else given.d.encode()
    request = urllib.request.Request(given.url, body, method=given.X)
    for header in given.H:
        name, _, value = header.partition(":")
        request.add_header(name, value.strip())
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        content = error.read()
    sys.stdout.buffer.write(content + given.w.replace("\\n", "\n").encode())


if __name__ == "__main__":
    main()
