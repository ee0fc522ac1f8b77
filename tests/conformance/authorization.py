"""Who is not allowed something is denied it: every operation, by every kind of authentication that proves nothing or too little.

Each case is one operation. It is asked for without a signature, under an access key that there is not, with a forged signature,
with one that is an hour old, by a presigned URL that has expired, by another account's signature, by that account's presigned
URL, and by one to which a byte was added: 403 all of them, with the code that says why. (DeleteObjects is decided key by key: by
another account it is 200, and AccessDenied of each key.) And then by its owner's signature, who is not denied.
`docs/AUTHORIZATION.md` has the table that this makes.
"""

import base64
import hashlib
from datetime import datetime, timedelta, timezone

from botocore.auth import S3SigV4QueryAuth

from support import *

XML = {
    "versioning": "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    "tagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
    "cors": "<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>",
    "block": "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls></PublicAccessBlockConfiguration>",
    "ownership": "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>",
    "payment": "<RequestPaymentConfiguration><Payer>BucketOwner</Payer></RequestPaymentConfiguration>",
    "accelerate": "<AccelerateConfiguration><Status>Enabled</Status></AccelerateConfiguration>",
    "lock": "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>",
    "hold": "<LegalHold><Status>OFF</Status></LegalHold>",
    "retention": "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>",
    "notification": "<NotificationConfiguration/>",
    "delete": "<Delete><Object><Key>other</Key></Object></Delete>",
}

# Operation: method, what follows the bucket, body. `{upload}` is an upload under way.
OPERATIONS = {
    "ListBuckets": ("GET", None, ""),
    "CreateBucket": ("PUT", "-new", ""),
    "HeadBucket": ("HEAD", "", ""),
    "ListObjects": ("GET", "", ""),
    "ListObjectsV2": ("GET", "?list-type=2", ""),
    "ListObjectVersions": ("GET", "?versions", ""),
    "ListMultipartUploads": ("GET", "?uploads", ""),
    "GetBucketLocation": ("GET", "?location", ""),
    "GetBucketVersioning": ("GET", "?versioning", ""),
    "PutBucketVersioning": ("PUT", "?versioning", XML["versioning"]),
    "GetBucketAcl": ("GET", "?acl", ""),
    "PutBucketAcl": ("PUT", "?acl", ""),
    "GetBucketTagging": ("GET", "?tagging", ""),
    "PutBucketTagging": ("PUT", "?tagging", XML["tagging"]),
    "DeleteBucketTagging": ("DELETE", "?tagging", ""),
    "GetBucketPolicy": ("GET", "?policy", ""),
    "PutBucketPolicy": ("PUT", "?policy", "{}"),
    "DeleteBucketPolicy": ("DELETE", "?policy", ""),
    "GetBucketPolicyStatus": ("GET", "?policyStatus", ""),
    "GetPublicAccessBlock": ("GET", "?publicAccessBlock", ""),
    "PutPublicAccessBlock": ("PUT", "?publicAccessBlock", XML["block"]),
    "DeletePublicAccessBlock": ("DELETE", "?publicAccessBlock", ""),
    "GetBucketOwnershipControls": ("GET", "?ownershipControls", ""),
    "PutBucketOwnershipControls": ("PUT", "?ownershipControls", XML["ownership"]),
    "DeleteBucketOwnershipControls": ("DELETE", "?ownershipControls", ""),
    "GetBucketCors": ("GET", "?cors", ""),
    "PutBucketCors": ("PUT", "?cors", XML["cors"]),
    "DeleteBucketCors": ("DELETE", "?cors", ""),
    "GetBucketNotificationConfiguration": ("GET", "?notification", ""),
    "PutBucketNotificationConfiguration": ("PUT", "?notification", XML["notification"]),
    "GetBucketRequestPayment": ("GET", "?requestPayment", ""),
    "PutBucketRequestPayment": ("PUT", "?requestPayment", XML["payment"]),
    "GetBucketAccelerateConfiguration": ("GET", "?accelerate", ""),
    "PutBucketAccelerateConfiguration": ("PUT", "?accelerate", XML["accelerate"]),
    "GetBucketLogging": ("GET", "?logging", ""),
    "GetBucketLifecycleConfiguration": ("GET", "?lifecycle", ""),
    "GetBucketEncryption": ("GET", "?encryption", ""),
    "GetBucketWebsite": ("GET", "?website", ""),
    "GetBucketReplication": ("GET", "?replication", ""),
    "ListBucketAnalyticsConfigurations": ("GET", "?analytics", ""),
    "GetBucketAnalyticsConfiguration": ("GET", "?analytics&id=a", ""),
    "ListBucketIntelligentTieringConfigurations": ("GET", "?intelligent-tiering", ""),
    "ListBucketInventoryConfigurations": ("GET", "?inventory", ""),
    "ListBucketMetricsConfigurations": ("GET", "?metrics", ""),
    "GetObjectLockConfiguration": ("GET", "?object-lock", ""),
    "PutObjectLockConfiguration": ("PUT", "?object-lock", XML["lock"]),
    "GetObject": ("GET", "/key", ""),
    "HeadObject": ("HEAD", "/key", ""),
    "PutObject": ("PUT", "/new", "body"),
    "CopyObject": ("PUT", "/copy", ""),
    "GetObjectAttributes": ("GET", "/key?attributes", ""),
    "GetObjectAcl": ("GET", "/key?acl", ""),
    "PutObjectAcl": ("PUT", "/key?acl", ""),
    "GetObjectTagging": ("GET", "/key?tagging", ""),
    "PutObjectTagging": ("PUT", "/key?tagging", XML["tagging"]),
    "DeleteObjectTagging": ("DELETE", "/key?tagging", ""),
    "GetObjectRetention": ("GET", "/key?retention", ""),
    "PutObjectRetention": ("PUT", "/key?retention", XML["retention"]),
    "GetObjectLegalHold": ("GET", "/key?legal-hold", ""),
    "PutObjectLegalHold": ("PUT", "/key?legal-hold", XML["hold"]),
    "CreateMultipartUpload": ("POST", "/new?uploads", ""),
    "ListParts": ("GET", "/part?uploadId={upload}", ""),
    "UploadPart": ("PUT", "/part?partNumber=1&uploadId={upload}", "body"),
    "UploadPartCopy": ("PUT", "/part?partNumber=2&uploadId={upload}", ""),
    "CompleteMultipartUpload": ("POST", "/part?uploadId={upload}", ""),
    "AbortMultipartUpload": ("DELETE", "/part?uploadId={upload}", ""),
    "DeleteObjects": ("POST", "?delete", XML["delete"]),
    "DeleteObject": ("DELETE", "/key", ""),
    "DeleteBucket": ("DELETE", "", ""),
}

HEADERS = {
    "CopyObject": "x-amz-copy-source",
    "UploadPartCopy": "x-amz-copy-source",
    "PutBucketAcl": "x-amz-acl",
    "PutObjectAcl": "x-amz-acl",
    "GetObjectAttributes": "x-amz-object-attributes",
    "DeleteObjects": "content-md5",
}


class Asker:
    """One operation on a bucket, ready to be asked for by anybody."""

    def __init__(self, operation):
        self.operation = operation
        self.method, rest, self.body = OPERATIONS[operation]
        self.bucket = new_bucket(ObjectLockEnabledForBucket=True)
        put(self.bucket, "key")
        upload = main.s3.create_multipart_upload(Bucket=self.bucket, Key="part")["UploadId"]
        self.path = "/" if rest is None else f"/{self.bucket}" + rest.replace("{upload}", upload)
        values = {
            "x-amz-copy-source": f"{self.bucket}/key",
            "x-amz-acl": "private",
            "x-amz-object-attributes": "ETag",
            "content-md5": base64.b64encode(hashlib.md5(self.body.encode()).digest()).decode(),
        }
        self.headers = {name: values[name] for name in [HEADERS.get(operation)] if name}

    def request(self, headers=()):
        return AWSRequest(self.method, ENDPOINT + self.path, data=self.body.encode(), headers={**self.headers, **dict(headers)})

    def send(self, request):
        answer = fetch(self.method, request.url, body=self.body.encode(), headers=dict(request.headers))
        return answer.status, code(answer) if self.method != "HEAD" else ""

    def nobody(self):
        return self.send(self.request())

    def signed(self, key, secret, at=None):
        request = self.request()
        signer = S3SigV4Auth(Credentials(key, secret), "s3", main.s3.meta.region_name)
        if at is None:
            signer.add_auth(request)
        else:
            request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
            signer._modify_request_before_signing(request)
            text = signer.string_to_sign(request, signer.canonical_request(request))
            signer._inject_signature_to_request(request, signer.signature(text, request))
        return self.send(request)

    def presigned(self, key, secret, at=None, suffix=""):
        request = self.request()
        signer = S3SigV4QueryAuth(Credentials(key, secret), "s3", main.s3.meta.region_name, expires=60)
        request.context["timestamp"] = (at or datetime.now(timezone.utc)).strftime("%Y%m%dT%H%M%SZ")
        query, request.data = request.url.partition("?")[2], b""
        request.params = dict(part.partition("=")[::2] for part in query.split("&")) if query else {}
        request.url = request.url.partition("?")[0]
        signer._modify_request_before_signing(request)
        text = signer.string_to_sign(request, signer.canonical_request(request))
        signer._inject_signature_to_request(request, signer.signature(text, request))
        request.url += suffix
        return self.send(request)


def ways(asker):
    """Ways of asking that do not do: what they are called, and what came."""
    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    yield "no signature", "AccessDenied", asker.nobody()
    yield "unknown key", "InvalidAccessKeyId", asker.signed("NOSUCHKEY00000000001", main.secret)
    yield "forged signature", "SignatureDoesNotMatch", asker.signed(main.key, "not the secret of the main account")
    yield "an hour old", "RequestTimeTooSkewed", asker.signed(main.key, main.secret, at=hour_ago)
    yield "presigned, expired", "AccessDenied", asker.presigned(main.key, main.secret, at=hour_ago)
    yield "presigned, changed", "SignatureDoesNotMatch", asker.presigned(main.key, main.secret, suffix="0")
    if asker.operation not in ("ListBuckets", "CreateBucket"):
        yield "another account", "AccessDenied", asker.signed(alt.key, alt.secret)
        yield "another account, presigned", "AccessDenied", asker.presigned(alt.key, alt.secret)


def check(operation):
    asker = Asker(operation)
    for way, wanted, (status, got) in ways(asker):
        by_key = operation == "DeleteObjects" and way.startswith("another account")
        equal((status, got), (200 if by_key else 403, "" if asker.method == "HEAD" else wanted), f"{operation}, {way}")
    status, got = asker.signed(main.key, main.secret)
    assert status != 403, f"{operation}, its owner: {status} {got}"


def case(operation):
    def test():
        check(operation)

    test.__doc__ = f"{operation} is denied to whoever may not, however he asks, and not to the owner."
    return test


for operation in OPERATIONS:
    globals()[f"test_{operation}"] = case(operation)
