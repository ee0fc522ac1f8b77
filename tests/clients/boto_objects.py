"""boto3, default integrity settings: buckets, objects, ranges, conditions, checksums, tags, metadata, copies, deletes."""

import base64
import hashlib
import io
import zlib
from datetime import datetime, timedelta, timezone

from common import *

BUCKET = new_bucket()
ALGORITHMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]


def put(key, data=b"x", **arguments):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=data, **arguments)


def get(key, **arguments):
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)


def head(key, **arguments):
    return s3.head_object(Bucket=BUCKET, Key=key, **arguments)


def b64(digest):
    return base64.b64encode(digest).decode()


# --- buckets


def test_buckets_come_and_go():
    name = new_bucket()
    assert name in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    equal(s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"], 200)
    location = s3.get_bucket_location(Bucket=name)["LocationConstraint"]
    assert location is None or location == s3.meta.region_name, location
    s3.put_object(Bucket=name, Key="k", Body=b"")
    refused(409, "BucketNotEmpty", s3.delete_bucket, Bucket=name)
    s3.delete_object(Bucket=name, Key="k")
    s3.delete_bucket(Bucket=name)
    refused(404, "404", s3.head_bucket, Bucket=name)
    refused(404, "NoSuchBucket", s3.list_objects_v2, Bucket=name)
    refused(404, "NoSuchBucket", s3.delete_bucket, Bucket=name)
    refused(404, "NoSuchBucket", s3.put_object, Bucket=name, Key="k", Body=b"x")


def test_a_bucket_of_ones_own_again():
    try:
        s3.create_bucket(Bucket=BUCKET)
    except ClientError as error:
        equal(error.response["Error"]["Code"], "BucketAlreadyOwnedByYou")


def test_owner_only_acls():
    acl = s3.get_bucket_acl(Bucket=BUCKET)
    owner = acl["Owner"]["ID"]
    put("acl")
    for grants in (acl["Grants"], s3.get_object_acl(Bucket=BUCKET, Key="acl")["Grants"]):
        equal([(grant["Grantee"]["ID"], grant["Permission"]) for grant in grants], [(owner, "FULL_CONTROL")])
    put("acl", ACL="private")
    put("acl", ACL="bucket-owner-full-control")
    refused(400, "AccessControlListNotSupported", s3.put_object, Bucket=BUCKET, Key="acl", Body=b"", ACL="public-read")


def test_unset_sub_resources():
    refused(404, "NoSuchTagSet", s3.get_bucket_tagging, Bucket=BUCKET)
    refused(404, "NoSuchLifecycleConfiguration", s3.get_bucket_lifecycle_configuration, Bucket=BUCKET)
    refused(404, "NoSuchBucketPolicy", s3.get_bucket_policy, Bucket=BUCKET)
    refused(404, "NoSuchCORSConfiguration", s3.get_bucket_cors, Bucket=BUCKET)
    refused(404, "ServerSideEncryptionConfigurationNotFoundError", s3.get_bucket_encryption, Bucket=BUCKET)
    refused(404, "ObjectLockConfigurationNotFoundError", s3.get_object_lock_configuration, Bucket=BUCKET)


def test_operations_that_are_not_there():
    for call, arguments in [
        (s3.put_bucket_logging, {"BucketLoggingStatus": {"LoggingEnabled": {"TargetBucket": BUCKET, "TargetPrefix": "x"}}}),
    ]:
        refused(501, "NotImplemented", call, Bucket=BUCKET, **arguments)


# --- objects


def test_bodies_of_every_size():
    for length in [0, 1, 511, 8191, 8192, 8193, 65535, 65536, 65537, 1 << 20, (5 << 20) + 3, (33 << 20) + 1]:
        data = body(length, length)
        stored = put("sized", data)
        equal(stored["ETag"], '"' + hashlib.md5(data).hexdigest() + '"', length)
        got = get("sized")
        equal((got["ContentLength"], got["ETag"]), (length, stored["ETag"]), length)
        assert got["Body"].read() == data, length
        equal(head("sized")["ContentLength"], length)


def test_streams_and_files():
    data = body(1, 3 << 20)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, "fileobj")
    sink = io.BytesIO()
    s3.download_fileobj(BUCKET, "fileobj", sink)
    assert sink.getvalue() == data


def test_missing():
    refused(404, "NoSuchKey", s3.get_object, Bucket=BUCKET, Key="missing")
    refused(404, "404", s3.head_object, Bucket=BUCKET, Key="missing")
    equal(s3.delete_object(Bucket=BUCKET, Key="missing")["ResponseMetadata"]["HTTPStatusCode"], 204)
    refused(404, "NoSuchBucket", s3.get_object, Bucket="no-such-bucket-here", Key="k")


def test_overwrite_and_delete():
    put("over", b"first")
    put("over", b"second, longer")
    equal(get("over")["Body"].read(), b"second, longer")
    s3.delete_object(Bucket=BUCKET, Key="over")
    refused(404, "NoSuchKey", s3.get_object, Bucket=BUCKET, Key="over")


def test_metadata_and_headers():
    given = {
        "ContentType": "application/x-test; a=b",
        "CacheControl": "max-age=3600, private",
        "ContentDisposition": 'attachment; filename="x y.bin"',
        "ContentEncoding": "br",
        "ContentLanguage": "en-GB",
        "WebsiteRedirectLocation": "/other",
        "Metadata": {"one": "1", "with-dash": "Value With  Spaces", "upper": "ABC", "long": "v" * 1500, "empty": ""},
    }
    put("headers", b"x", Expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc), **given)
    for got in (get("headers"), head("headers")):
        for name, value in given.items():
            equal(got[name], value, name)
        equal(got["ExpiresString"], "Wed, 02 Jan 2030 03:04:05 GMT")
    refused(400, "MetadataTooLarge", s3.put_object, Bucket=BUCKET, Key="headers", Body=b"", Metadata={"m": "v" * 2100})
    assert "Metadata" not in {k for k, v in head("headers").items() if v == {}}


def test_ranges():
    data = body(5, 300_000)
    put("ranged", data)
    for text, start, stop in [("0-0", 0, 1), ("100-199", 100, 200), ("65530-65545", 65530, 65546), ("299999-", 299999, 300000), ("-17", 299983, 300000), ("0-999999", 0, 300000)]:
        got = get("ranged", Range="bytes=" + text)
        equal(got["ContentRange"], f"bytes {start}-{stop - 1}/300000", text)
        assert got["Body"].read() == data[start:stop], text
    refused(416, "InvalidRange", s3.get_object, Bucket=BUCKET, Key="ranged", Range="bytes=300000-")
    assert get("ranged", PartNumber=1)["Body"].read() == data
    refused(416, "InvalidPartNumber", s3.get_object, Bucket=BUCKET, Key="ranged", PartNumber=2)


# --- conditions


def test_conditions_on_reads():
    etag = put("conditions", b"data")["ETag"]
    past, future = datetime(2020, 1, 1), datetime.now(timezone.utc) + timedelta(hours=1)
    for call in (get, head):
        call("conditions", IfMatch=etag)
        call("conditions", IfMatch="*")
        call("conditions", IfNoneMatch='"other"')
        call("conditions", IfModifiedSince=past)
        call("conditions", IfUnmodifiedSince=future)
        # RFC 7232: the ETag decides, where both are given.
        call("conditions", IfMatch=etag, IfUnmodifiedSince=past)
    s = dict(Bucket=BUCKET, Key="conditions")
    refused(412, "PreconditionFailed", s3.get_object, IfMatch='"other"', **s)
    refused(412, "PreconditionFailed", s3.get_object, IfUnmodifiedSince=past, **s)
    refused(304, ("304", "NotModified"), s3.get_object, IfNoneMatch=etag, **s)
    refused(304, ("304", "NotModified"), s3.get_object, IfNoneMatch="*", **s)
    refused(304, ("304", "NotModified"), s3.head_object, IfNoneMatch=etag, **s)
    refused(304, ("304", "NotModified"), s3.get_object, IfNoneMatch=etag, IfModifiedSince=past, **s)
    refused(412, "412", s3.head_object, IfMatch='"other"', **s)


def test_conditions_on_writes():
    key = dict(Bucket=BUCKET, Key="conditional")
    etag = s3.put_object(Body=b"1", IfNoneMatch="*", **key)["ETag"]
    refused(412, "PreconditionFailed", s3.put_object, Body=b"2", IfNoneMatch="*", **key)
    refused(412, "PreconditionFailed", s3.put_object, Body=b"2", IfMatch='"00000000000000000000000000000000"', **key)
    etag = s3.put_object(Body=b"2", IfMatch=etag, **key)["ETag"]
    equal(get("conditional")["Body"].read(), b"2")
    refused(412, "PreconditionFailed", s3.delete_object, IfMatch='"00000000000000000000000000000000"', **key)
    s3.delete_object(IfMatch=etag, **key)
    refused(404, "NoSuchKey", s3.put_object, Body=b"3", IfMatch=etag, **key)
    refused(404, "NoSuchKey", s3.get_object, **key)


def test_one_of_many_creators_wins():
    def create(number):
        try:
            s3.put_object(Bucket=BUCKET, Key="raced", Body=b"%d" % number, IfNoneMatch="*")
            return number
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), error.response

    winners = [number for number in parallel(create, range(48)) if number is not None]
    equal(len(winners), 1, "creators")
    equal(get("raced")["Body"].read(), b"%d" % winners[0])


def test_compare_and_swap_counts():
    put("counter", b"0")

    def increment(_):
        while True:
            got = get("counter")
            number = int(got["Body"].read())
            try:
                put("counter", b"%d" % (number + 1), IfMatch=got["ETag"])
                return
            except ClientError as error:
                assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict")

    parallel(increment, range(24), workers=8)
    equal(get("counter")["Body"].read(), b"24")


# --- checksums


def sums(data):
    from awscrt import checksums as crt

    return {
        "CRC32": b64(zlib.crc32(data).to_bytes(4, "big")),
        "CRC32C": b64(crt.crc32c(data).to_bytes(4, "big")),
        "CRC64NVME": b64(crt.crc64nvme(data).to_bytes(8, "big")),
        "SHA1": b64(hashlib.sha1(data).digest()),
        "SHA256": b64(hashlib.sha256(data).digest()),
    }


def test_checksums_in_trailers_and_headers():
    for length in (0, 10, 9000, 3 << 20):
        data = body(length, length)
        wanted = sums(data)
        for algorithm in ALGORITHMS:
            name = "Checksum" + algorithm
            # A stream is sent with a trailer, bytes with a header.
            for source in (data, io.BytesIO(data)):
                stored = put("summed", source, ChecksumAlgorithm=algorithm)
                equal(stored[name], wanted[algorithm], algorithm)
                got = get("summed", ChecksumMode="ENABLED")
                equal((got[name], got["ChecksumType"]), (wanted[algorithm], "FULL_OBJECT"), algorithm)
                assert got["Body"].read() == data
                equal(head("summed", ChecksumMode="ENABLED")[name], wanted[algorithm])
                assert name not in client(response_checksum_validation="when_required").head_object(Bucket=BUCKET, Key="summed")
            put("given", data, **{name: wanted[algorithm]})
            refused(400, "BadDigest", s3.put_object, Bucket=BUCKET, Key="never", Body=data, **{name: sums(data + b"x")[algorithm]})
    refused(404, "404", s3.head_object, Bucket=BUCKET, Key="never")


def test_content_md5():
    data = b"some data"
    put("md5", data, ContentMD5=b64(hashlib.md5(data).digest()))
    refused(400, "BadDigest", s3.put_object, Bucket=BUCKET, Key="md5-never", Body=data, ContentMD5=b64(hashlib.md5(b"x").digest()))
    refused(400, "InvalidDigest", s3.put_object, Bucket=BUCKET, Key="md5-never", Body=data, ContentMD5="short")
    refused(404, "404", s3.head_object, Bucket=BUCKET, Key="md5-never")


def test_object_attributes():
    data = body(3, 1000)
    etag = put("attributes", data, ChecksumAlgorithm="SHA256")["ETag"]
    got = s3.get_object_attributes(Bucket=BUCKET, Key="attributes", ObjectAttributes=["ETag", "Checksum", "ObjectSize", "StorageClass", "ObjectParts"])
    equal(got["ETag"], etag.strip('"'))
    equal(got["ObjectSize"], 1000)
    equal(got["Checksum"]["ChecksumSHA256"], sums(data)["SHA256"])
    equal(got["StorageClass"], "STANDARD")
    got = s3.get_object_attributes(Bucket=BUCKET, Key="attributes", ObjectAttributes=["ObjectSize"])
    assert "ETag" not in got and "Checksum" not in got, got
    refused(404, "NoSuchKey", s3.get_object_attributes, Bucket=BUCKET, Key="missing", ObjectAttributes=["ETag"])


# --- tags


def test_object_tags():
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b c", "Value": "x=y +/:@"}]
    put("tagged", Tagging="a=1&b%20c=x%3Dy%20%2B%2F%3A%40")
    equal(sorted_tags(s3.get_object_tagging(Bucket=BUCKET, Key="tagged")), tags)
    equal(head("tagged").get("TagCount", get("tagged").get("TagCount")), 2)
    s3.put_object_tagging(Bucket=BUCKET, Key="tagged", Tagging={"TagSet": [{"Key": "n", "Value": ""}]})
    equal(sorted_tags(s3.get_object_tagging(Bucket=BUCKET, Key="tagged")), [{"Key": "n", "Value": ""}])
    s3.delete_object_tagging(Bucket=BUCKET, Key="tagged")
    equal(s3.get_object_tagging(Bucket=BUCKET, Key="tagged")["TagSet"], [])
    refused(404, "NoSuchKey", s3.get_object_tagging, Bucket=BUCKET, Key="missing")
    for wrong in ([{"Key": "k", "Value": "v"}] * 2, [{"Key": "x" * 129, "Value": "v"}], [{"Key": f"{i}", "Value": "v"} for i in range(11)]):
        refused(400, ("InvalidTag", "BadRequest", "MalformedXML"), s3.put_object_tagging, Bucket=BUCKET, Key="tagged", Tagging={"TagSet": wrong})


def sorted_tags(answer):
    return sorted(answer["TagSet"], key=lambda tag: tag["Key"])


def test_bucket_tags():
    name = new_bucket()
    tags = [{"Key": "team", "Value": "storage"}, {"Key": "zone", "Value": "edge"}]
    s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
    equal(sorted_tags(s3.get_bucket_tagging(Bucket=name)), tags)
    s3.delete_bucket_tagging(Bucket=name)
    refused(404, "NoSuchTagSet", s3.get_bucket_tagging, Bucket=name)


# --- copies


def test_copies():
    data = body(9, 200_000)
    put("original ä+b", data, ContentType="text/original", Metadata={"m": "original"}, Tagging="t=original", ChecksumAlgorithm="SHA1")
    source = {"Bucket": BUCKET, "Key": "original ä+b"}
    copied = s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=source)["CopyObjectResult"]
    equal(copied["ETag"], '"' + hashlib.md5(data).hexdigest() + '"')
    got = get("copy", ChecksumMode="ENABLED")
    assert got["Body"].read() == data
    equal((got["ContentType"], got["Metadata"]), ("text/original", {"m": "original"}))
    equal(s3.get_object_tagging(Bucket=BUCKET, Key="copy")["TagSet"], [{"Key": "t", "Value": "original"}])
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=source, MetadataDirective="REPLACE", ContentType="text/new", Metadata={"m": "new"}, TaggingDirective="REPLACE", Tagging="t=new")
    got = head("copy")
    equal((got["ContentType"], got["Metadata"]), ("text/new", {"m": "new"}))
    equal(s3.get_object_tagging(Bucket=BUCKET, Key="copy")["TagSet"], [{"Key": "t", "Value": "new"}])
    s3.delete_object(Bucket=BUCKET, Key=source["Key"])
    assert get("copy")["Body"].read() == data
    refused(400, "InvalidRequest", s3.copy_object, Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "copy"})
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "copy"}, MetadataDirective="REPLACE", Metadata={"m": "3"})
    equal(head("copy")["Metadata"], {"m": "3"})
    refused(404, "NoSuchKey", s3.copy_object, Bucket=BUCKET, Key="x", CopySource={"Bucket": BUCKET, "Key": "missing"})
    refused(404, "NoSuchBucket", s3.copy_object, Bucket=BUCKET, Key="x", CopySource={"Bucket": "no-such-bucket-here", "Key": "k"})


def test_conditional_copies():
    etag = put("condition-source", b"data")["ETag"]
    arguments = dict(Bucket=BUCKET, Key="condition-copy", CopySource={"Bucket": BUCKET, "Key": "condition-source"})
    past = datetime(2020, 1, 1)
    s3.copy_object(CopySourceIfMatch=etag, **arguments)
    s3.copy_object(CopySourceIfNoneMatch='"other"', CopySourceIfModifiedSince=past, **arguments)
    refused(412, "PreconditionFailed", s3.copy_object, CopySourceIfMatch='"other"', **arguments)
    refused(412, "PreconditionFailed", s3.copy_object, CopySourceIfNoneMatch=etag, **arguments)
    refused(412, "PreconditionFailed", s3.copy_object, CopySourceIfUnmodifiedSince=past, **arguments)


def test_copies_between_buckets_share_nothing_visible():
    other = new_bucket()
    data = body(11, 70_000)
    put("shared", data)
    s3.copy_object(Bucket=other, Key="shared", CopySource={"Bucket": BUCKET, "Key": "shared"})
    put("shared", b"changed")
    assert s3.get_object(Bucket=other, Key="shared")["Body"].read() == data
    s3.delete_object(Bucket=other, Key="shared")
    equal(get("shared")["Body"].read(), b"changed")


# --- DeleteObjects


def test_delete_objects():
    keys = [f"del/{number}" for number in range(1000)]
    parallel(lambda key: put(key, b""), keys)
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys]})
    equal(sorted(row["Key"] for row in answer["Deleted"]), sorted(keys))
    assert "Errors" not in answer, answer
    equal(s3.list_objects_v2(Bucket=BUCKET, Prefix="del/")["KeyCount"], 0)
    put("del/quiet")
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "del/quiet"}, {"Key": "del/missing"}], "Quiet": True})
    assert "Deleted" not in answer and "Errors" not in answer, answer
    refused(400, "MalformedXML", s3.delete_objects, Bucket=BUCKET, Delete={"Objects": [{"Key": f"{n}"} for n in range(1001)]})
    awkward = ["del/<&>\"'", "del/ä🦀", "del/a b+c", "del/%2e"]
    parallel(lambda key: put(key), awkward)
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in awkward]})
    equal(s3.list_objects_v2(Bucket=BUCKET, Prefix="del/")["KeyCount"], 0)


# --- concurrency


def test_two_hundred_clients():
    def work(number):
        own = client()
        data = body(number, 1 + number * 997 % 200_000)
        own.put_object(Bucket=BUCKET, Key=f"many/{number:03}", Body=data)
        assert own.get_object(Bucket=BUCKET, Key=f"many/{number:03}")["Body"].read() == data
        return own.head_object(Bucket=BUCKET, Key=f"many/{number:03}")["ContentLength"]

    sizes = parallel(work, range(200), workers=200)
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="many/")["Contents"]
    equal([row["Size"] for row in listed], sizes)


def test_a_reader_sees_one_version_or_another():
    bodies = [bytes([65 + number]) * 700_000 for number in range(6)]
    put("torn", bodies[0])

    def work(number):
        if number % 3 == 0:
            put("torn", bodies[number % 6])
        else:
            data = get("torn")["Body"].read()
            assert data in bodies, data[:10]

    parallel(work, range(90), workers=16)


run(globals())
