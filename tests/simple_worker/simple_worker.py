"""A worker that speaks the simple worker protocol and nothing else: an MQTT client and one unary gRPC call.

It answers every question with a fixed transformation of it, so that a test knows what must come back. What it does on
standard output is for the tests: `subscribed`, `task {...}`, `acknowledged {...}`, one a line.
"""

import argparse
import json
import pathlib
import queue
import sys
import time
import uuid

import grpc
import paho.mqtt.client as mqtt

# The stubs are made from the very file that the master is built from.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "proto" / "proto"))
protos, services = grpc.protos_and_services("worker/worker.proto")


def now_ms() -> int:
    return int(time.time() * 1000)


def say(word: str, **fields) -> None:
    print(word, json.dumps(fields), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="of the broker")
    parser.add_argument("--port", type=int, default=1883, help="of the broker")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--root", default="flota", help="of the topics")
    parser.add_argument("--id", default=f"python-{uuid.uuid4().hex[:8]}", help="of this worker")
    parser.add_argument("--answer", default="upper", help="upper, reverse, 'error' for a failure, or the text to answer")
    parser.add_argument("--twice", action="store_true", help="send every result twice, as a confused worker might")
    parser.add_argument("--silent", action="store_true", help="take tasks and never answer")
    return parser.parse_args()


class SimpleWorker:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tasks: queue.Queue[dict] = queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=options.id)
        if options.user:
            self.client.username_pw_set(options.user, options.password)
        self.client.on_connect = self.connected
        self.client.on_subscribe = lambda *_: self.subscribed()
        self.client.on_message = lambda _client, _data, message: self.tasks.put(json.loads(message.payload))

    def topic(self, rest: str) -> str:
        return f"{self.options.root}/workers/{rest}"

    def connected(self, client, _data, _flags, reason, _properties) -> None:
        if reason.is_failure:
            sys.exit(f"the broker refused the connection: {reason}")
        client.subscribe(self.topic(f"{self.options.id}/tasks"), qos=1)

    def subscribed(self) -> None:
        hello = {"worker_id": self.options.id, "language": "python", "status": "idle", "timestamp": now_ms()}
        self.client.publish(self.topic("register"), json.dumps(hello), qos=0)
        say("subscribed", worker_id=self.options.id)

    def status(self, status: str) -> None:
        message = {"worker_id": self.options.id, "status": status, "timestamp": now_ms()}
        self.client.publish(self.topic("status"), json.dumps(message), qos=0)

    def answer(self, question: str) -> str:
        fixed = {"upper": question.upper(), "reverse": question[::-1], "error": "Error: out of order"}
        return fixed.get(self.options.answer, self.options.answer)

    def work(self, task: dict) -> None:
        say("task", **task)
        if self.options.silent:
            return
        self.status("busy")
        started = now_ms()
        result = protos.TaskResult(
            worker_id=task["worker_id"],
            session_id=task["session_id"],
            original_query=task["query"],
            ai_response=self.answer(task["query"]),
            api_key=task["api_key"],
            processing_time_ms=now_ms() - started,
            query_timestamp=task["timestamp"],
            completion_timestamp=now_ms(),
        )
        for _ in range(2 if self.options.twice else 1):
            with grpc.insecure_channel(task["grpc_endpoint"]) as channel:
                ack = services.WorkerCallbackStub(channel).SendResult(result, timeout=10)
            say("acknowledged", success=ack.success, message=ack.message)
        self.status("idle")

    def run(self) -> None:
        self.client.connect(self.options.host, self.options.port)
        self.client.loop_start()
        while True:
            self.work(self.tasks.get())


if __name__ == "__main__":
    SimpleWorker(arguments()).run()
