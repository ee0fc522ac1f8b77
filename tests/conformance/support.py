"""What the areas of the conformance suite share: clients of several accounts, buckets, and assertions that say what they saw.

Sources: the S3 API Reference, the S3 User Guide and the IAM User Guide of AWS, as published. A case's docstring says what it
checks. Cases run in threads, side by side, so each has buckets of its own.
"""

import json
import os
import uuid

import boto3
import botocore
import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
CA = os.environ["AWS_CA_BUNDLE"]


class Account:
    """An account, by its own key. `s3`: its client."""

    def __init__(self, name):
        self.id, self.key, self.secret = os.environ["ACCOUNT_" + name.upper()].split(":")
        self.arn = f"arn:aws:iam::{self.id}:root"
        self.s3 = client(aws_access_key_id=self.key, aws_secret_access_key=self.secret)


def client(signature_version="s3v4", **credentials):
    config = Config(
        signature_version=signature_version,
        s3={"addressing_style": "path"},
        retries={"max_attempts": 1},
        max_pool_connections=32,
    )
    return boto3.client("s3", config=config, **credentials)


main, alt, tenant = (Account(name) for name in ("main", "alt", "tenant"))
anonymous = client(signature_version=botocore.UNSIGNED)


def new_name():
    return "conform-" + uuid.uuid4().hex[:20]


def new_bucket(owner=main, **arguments):
    name = new_name()
    owner.s3.create_bucket(Bucket=name, **arguments)
    return name


def put(bucket, key, body=b"body", who=main, **arguments):
    return who.s3.put_object(Bucket=bucket, Key=key, Body=body, **arguments)


def refused(status, code, call, /, **arguments):
    """Calls and requires that the answer is `status` with `code`. Returns the error."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        response = error.response
        got = (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"])
        # A HEAD has no body: boto3 then gives the status for a code.
        wanted = [(status, code), (status, str(status))]
        assert got in wanted, f"expected {status} {code}, got {got}: {response}"
        return response
    raise AssertionError(f"expected {status} {code}, and it succeeded: {answer}")


def denied(call, /, **arguments):
    return refused(403, "AccessDenied", call, **arguments)


def status(answer):
    return answer["ResponseMetadata"]["HTTPStatusCode"]


def equal(got, wanted, what=""):
    assert got == wanted, f"{what}: got {shown(got)}, wanted {shown(wanted)}"


def shown(value):
    text = repr(value)
    return text if len(text) < 600 else text[:600] + "…"


def read(who, bucket, key, **arguments):
    s3 = who.s3 if isinstance(who, Account) else who
    return s3.get_object(Bucket=bucket, Key=key, **arguments)["Body"].read()


HTTP = urllib3.PoolManager(num_pools=4, maxsize=16, ca_certs=CA, retries=False, timeout=60)


def fetch(method, url, **arguments):
    """A request as it stands: nothing is signed. Has `status`, `data` and `headers`."""
    return HTTP.request(method, url, **arguments)


def raw(method, path, **arguments):
    """A request without a signature."""
    return fetch(method, ENDPOINT + path, **arguments)


def signed(method, path, body=b"", who=main, **headers):
    """A request of which boto3 knows nothing, signed. Has `status`, `data` and `headers`."""
    request = AWSRequest(method, ENDPOINT + path, data=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    S3SigV4Auth(Credentials(who.key, who.secret), "s3", main.s3.meta.region_name).add_auth(request)
    return fetch(method, ENDPOINT + path, body=body, headers=dict(request.headers))


def code(answer):
    """The code of an error's document."""
    text = answer.data.decode()
    return text.partition("<Code>")[2].partition("</Code>")[0]


# --- policies


def statement(effect, principal, action, resource, **more):
    if principal != "*" and not isinstance(principal, dict):
        principal = {"AWS": principal}
    return {"Effect": effect, "Principal": principal, "Action": action, "Resource": resource, **more}


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def set_policy(bucket, *statements, owner=main):
    return owner.s3.put_bucket_policy(Bucket=bucket, Policy=document(*statements))


def arn(bucket, key=None):
    return f"arn:aws:s3:::{bucket}" + ("" if key is None else "/" + key)
