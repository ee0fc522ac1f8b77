"""What the boto3 suites share: a client with default settings, a runner, and assertions that say what they saw."""

import os
import sys
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import ClientError


def client(**config):
    """An S3 client as the environment says; integrity settings are boto3's own defaults."""
    return boto3.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **config))


s3 = client(max_pool_connections=64)


def new_bucket(**arguments):
    name = "boto-" + uuid.uuid4().hex[:20]
    s3.create_bucket(Bucket=name, **arguments)
    return name


def body(seed, length):
    """`length` bytes that belong to `seed`."""
    import random

    return random.Random(seed).randbytes(length)


def refused(status, code, call, **arguments):
    """Calls and requires that the answer is `status` with `code` (each one, or any of a tuple). Returns the error."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        response = error.response
        got = (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"])
        statuses = status if isinstance(status, tuple) else (status,)
        codes = code if isinstance(code, tuple) else (code,)
        assert got[0] in statuses and got[1] in codes, f"expected {status} {code}, got {got}: {response}"
        return response
    raise AssertionError(f"expected {status} {code}, and it succeeded: {answer}")


def equal(got, wanted, what=""):
    assert got == wanted, f"{what}: got {shown(got)}, wanted {shown(wanted)}"


def shown(value):
    text = repr(value)
    return text if len(text) < 600 else text[:600] + "…"


def parallel(function, items, workers=32):
    """Calls `function` on each item, concurrently; results in order."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


def run(names):
    """Runs every `test_…` of the namespace (or those named on the command line); exits with 1 if one fails."""
    tests = [(name, test) for name, test in names.items() if name.startswith("test_")]
    wanted = sys.argv[1:]
    failed = []
    for name, test in tests:
        if wanted and name not in wanted:
            continue
        try:
            test()
            print("ok  ", name, flush=True)
        except Exception:
            failed.append(name)
            print("FAIL", name, flush=True)
            traceback.print_exc()
    print(f"{len(tests)} tests, {len(failed)} failed {failed} (boto3 {boto3.__version__})", flush=True)
    sys.exit(1 if failed else 0)
