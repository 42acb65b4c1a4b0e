"""Asks one question over plain Socket.IO, with the four event names alone that an old page knows, and prints what comes.

Prints one JSON object a line: {"event": NAME, "data": …}; ends with the first `ai-response`.
"""

import argparse
import json
import threading

import socketio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("question")
    options = parser.parse_args()

    client = socketio.Client()
    answered = threading.Event()

    def show(event: str, data: object) -> None:
        print(json.dumps({"event": event, "data": data}), flush=True)

    @client.on("session-id")
    def session(data):
        show("session-id", data)
        client.emit("user-query", {"query": options.question, "apiKey": options.key})

    @client.on("task-queued")
    def queued(data):
        show("task-queued", data)

    @client.on("ai-response")
    def response(data):
        show("ai-response", data)
        answered.set()

    client.connect(options.url)
    in_time = answered.wait(options.timeout)
    client.disconnect()
    if not in_time:
        raise SystemExit(f"no ai-response within {options.timeout} s")


if __name__ == "__main__":
    main()
