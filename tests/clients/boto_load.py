"""A load of mixed calls by boto3 with its default retries: no call may fail, and nothing may be read but what was written.

usage: boto_load.py BUCKET PREFIX ENDPOINT...     one thread an endpoint, each with keys of its own

Works until standard input ends, then reads everything once more. Prints `calls N` as it goes; at the end one line of JSON.
"""

import hashlib
import json
import random
import sys
import threading
import time
import traceback

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

BUCKET, PREFIX, ENDPOINTS = sys.argv[1], sys.argv[2], sys.argv[3:]
PART_BYTES = 5 << 20

stop = threading.Event()
failed = threading.Event()


class Writer:
    """One client and what its keys hold."""

    def __init__(self, number, endpoint):
        self.endpoint = endpoint
        self.prefix = f"{PREFIX}/{number}/"
        self.random = random.Random(self.prefix)
        self.held = {}
        self.calls = self.retries = 0
        self.slowest_s = 0.0
        self.s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}))

    def call(self, name, **arguments):
        started = time.monotonic()
        try:
            answer = getattr(self.s3, name)(Bucket=BUCKET, **arguments)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 412:
                raise
            answer = error.response
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        self.calls += 1
        self.retries += answer["ResponseMetadata"]["RetryAttempts"]
        return answer

    def body(self):
        bound = self.random.choice([100, 8 << 10, 8 << 10, 200 << 10, 200 << 10, 3 << 20])
        return self.random.randbytes(self.random.randrange(bound))

    def key(self):
        return f"{self.prefix}{self.random.randrange(12):02}"

    def put(self):
        key, body = self.key(), self.body()
        answer = self.call("put_object", Key=key, Body=body)
        assert answer["ETag"] == '"' + hashlib.md5(body).hexdigest() + '"', answer
        self.held[key] = (body, answer["ETag"])

    def put_on_condition(self):
        key, body = self.key(), self.body()
        answer = self.call("put_object", Key=key, Body=body, IfNoneMatch="*")
        created = "ETag" in answer
        # Sent again after an answer that was lost, its own first try may be what it met.
        again = answer["ResponseMetadata"]["RetryAttempts"] > 0 and key not in self.held
        assert created != (key in self.held) or again, (key, answer)
        if key not in self.held:
            answer = answer if created else self.call("get_object", Key=key)
            assert created or answer["Body"].read() == body, key
        else:
            answer = self.call("put_object", Key=key, Body=body, IfMatch=self.held[key][1])
            if "ETag" not in answer:
                assert answer["ResponseMetadata"]["RetryAttempts"] > 0, (key, answer)
                answer = self.call("get_object", Key=key)
                assert answer["Body"].read() == body, key
        self.held[key] = (body, answer["ETag"])

    def multipart(self):
        key = self.key()
        parts = [self.random.randbytes(PART_BYTES), self.random.randbytes(1000)]
        upload = dict(Key=key, UploadId=self.call("create_multipart_upload", Key=key)["UploadId"])
        done = []
        for number, part in enumerate(parts, 1):
            etag = self.call("upload_part", PartNumber=number, Body=part, **upload)["ETag"]
            done.append({"PartNumber": number, "ETag": etag})
        answer = self.call("complete_multipart_upload", MultipartUpload={"Parts": done}, **upload)
        self.held[key] = (b"".join(parts), answer["ETag"])

    def get(self):
        if self.held:
            self.expect(self.random.choice(sorted(self.held)))

    def expect(self, key):
        answer = self.call("get_object", Key=key)
        assert answer["Body"].read() == self.held[key][0], f"{key} is not what was written"

    def delete(self):
        if self.held:
            key = self.random.choice(sorted(self.held))
            self.call("delete_object", Key=key)
            del self.held[key]

    def list(self):
        answer = self.call("list_objects_v2", Prefix=self.prefix)
        listed = {row["Key"]: row["Size"] for row in answer.get("Contents", [])}
        held = {key: len(body) for key, (body, _) in self.held.items()}
        assert listed == held, f"listed {listed}, and held are {held}"

    def step(self):
        kinds = [self.put, self.get, self.put_on_condition, self.delete, self.list, self.multipart]
        self.random.choices(kinds, [40, 30, 10, 8, 8, 4])[0]()

    def run(self):
        try:
            while not (stop.is_set() or failed.is_set()):
                self.step()
            for key in sorted(self.held):
                self.expect(key)
            self.list()
        except Exception:
            failed.set()
            print(f"{time.strftime('%FT%TZ', time.gmtime())} through {self.endpoint}, after {self.calls} calls:", file=sys.stderr)
            traceback.print_exc()


def watch_input():
    sys.stdin.read()
    stop.set()


writers = [Writer(number, endpoint) for number, endpoint in enumerate(ENDPOINTS)]
threads = [threading.Thread(target=writer.run) for writer in writers]
threading.Thread(target=watch_input, daemon=True).start()
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    print("calls", sum(writer.calls for writer in writers), flush=True)
    time.sleep(0.1)
slowest_ms = max(round(writer.slowest_s * 1000) for writer in writers)
calls, retries = (sum(getattr(writer, name) for writer in writers) for name in ("calls", "retries"))
print(json.dumps({"calls": calls, "retries": retries, "slowest_ms": slowest_ms}), flush=True)
sys.exit(failed.is_set())
