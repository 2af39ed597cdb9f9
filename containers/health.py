"""The image's health check: each port given answers `/health/live` with 200 (an empty slot does, too)."""

import sys
from http.client import HTTPConnection, HTTPException

for port in map(int, sys.argv[1:]):
    connection = HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", "/health/live")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        sys.exit(f"port {port}: {error}")
    if status != 200:
        sys.exit(f"port {port}: answered {status}")
