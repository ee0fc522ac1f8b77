"""boto3: versioning, ListObjectVersions, delete markers, null versions."""

from common import *


def versioned():
    bucket = new_bucket()
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def put(bucket, key, data):
    return s3.put_object(Bucket=bucket, Key=key, Body=data).get("VersionId")


def read(bucket, key, version=None):
    return s3.get_object(Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))["Body"].read()


def history(bucket, page_size=1000, **arguments):
    """Every version as (key, version id, kind, latest), in the order listed within its page's two lists, merged by key."""
    rows = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": page_size}, **arguments):
        rows += [(row["Key"], row["VersionId"], "version", row["IsLatest"]) for row in page.get("Versions", [])]
        rows += [(row["Key"], row["VersionId"], "marker", row["IsLatest"]) for row in page.get("DeleteMarkers", [])]
    return sorted(rows)


def empty(bucket):
    """As conformance suites tear down."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        rows = page.get("Versions", []) + page.get("DeleteMarkers", [])
        if rows:
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": row["Key"], "VersionId": row["VersionId"]} for row in rows]})
            assert "Errors" not in answer, answer
    s3.delete_bucket(Bucket=bucket)


def test_status():
    bucket = new_bucket()
    equal(s3.get_bucket_versioning(Bucket=bucket).get("Status"), None)
    for status in ("Enabled", "Suspended", "Enabled"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})
        equal(s3.get_bucket_versioning(Bucket=bucket)["Status"], status)


def test_versions_are_kept():
    bucket = versioned()
    ids = [put(bucket, "k", b"%d" % number) for number in range(5)]
    equal(len(set(ids)), 5)
    equal(read(bucket, "k"), b"4")
    for number, version in enumerate(ids):
        equal(read(bucket, "k", version), b"%d" % number)
        equal(s3.head_object(Bucket=bucket, Key="k", VersionId=version)["VersionId"], version)
    page = s3.list_object_versions(Bucket=bucket)
    equal([row["VersionId"] for row in page["Versions"]], ids[::-1])
    equal([row["IsLatest"] for row in page["Versions"]], [True] + [False] * 4)
    s3.delete_object(Bucket=bucket, Key="k", VersionId=ids[4])
    equal(read(bucket, "k"), b"3")
    s3.delete_object(Bucket=bucket, Key="k", VersionId=ids[1])
    refused(404, "NoSuchVersion", s3.get_object, Bucket=bucket, Key="k", VersionId=ids[1])
    empty(bucket)


def test_delete_markers():
    bucket = versioned()
    first = put(bucket, "k", b"first")
    answer = s3.delete_object(Bucket=bucket, Key="k")
    assert answer["DeleteMarker"] is True
    marker = answer["VersionId"]
    error = refused(404, "NoSuchKey", s3.get_object, Bucket=bucket, Key="k")
    equal(error["ResponseMetadata"]["HTTPHeaders"].get("x-amz-delete-marker"), "true")
    refused(404, "404", s3.head_object, Bucket=bucket, Key="k")
    refused(405, "MethodNotAllowed", s3.get_object, Bucket=bucket, Key="k", VersionId=marker)
    equal(read(bucket, "k", first), b"first")
    equal(s3.list_objects_v2(Bucket=bucket)["KeyCount"], 0)
    refused(409, "BucketNotEmpty", s3.delete_bucket, Bucket=bucket)
    equal(history(bucket), sorted([("k", first, "version", False), ("k", marker, "marker", True)]))
    answer = s3.delete_object(Bucket=bucket, Key="k", VersionId=marker)
    equal((answer["DeleteMarker"], answer["VersionId"]), (True, marker))
    equal(read(bucket, "k"), b"first")
    assert s3.delete_object(Bucket=bucket, Key="never there")["DeleteMarker"] is True
    empty(bucket)


def test_null_versions():
    bucket = new_bucket()
    assert put(bucket, "k", b"before") is None
    equal(history(bucket), [("k", "null", "version", True)])
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    second = put(bucket, "k", b"second")
    equal(read(bucket, "k", "null"), b"before")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    equal(put(bucket, "k", b"suspended") in (None, "null"), True)
    equal(read(bucket, "k"), b"suspended")
    equal(read(bucket, "k", "null"), b"suspended")
    equal(read(bucket, "k", second), b"second")
    equal(history(bucket), sorted([("k", "null", "version", True), ("k", second, "version", False)]))
    answer = s3.delete_object(Bucket=bucket, Key="k")
    equal((answer["DeleteMarker"], answer["VersionId"]), (True, "null"))
    equal(history(bucket), sorted([("k", "null", "marker", True), ("k", second, "version", False)]))
    s3.delete_object(Bucket=bucket, Key="k", VersionId="null")
    equal(read(bucket, "k"), b"second")
    empty(bucket)


def test_copies_of_versions():
    bucket = versioned()
    old = put(bucket, "k", b"old")
    put(bucket, "k", b"new")
    answer = s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k", "VersionId": old})
    equal(answer["CopySourceVersionId"], old)
    equal(read(bucket, "k"), b"old")
    equal(read(bucket, "k", answer["VersionId"]), b"old")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    refused(404, "NoSuchKey", s3.copy_object, Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "k"})
    refused(400, "InvalidRequest", s3.copy_object, Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "k", "VersionId": marker})
    empty(bucket)


def test_tags_belong_to_versions():
    bucket = versioned()
    old = put(bucket, "k", b"old")
    put(bucket, "k", b"new")
    s3.put_object_tagging(Bucket=bucket, Key="k", VersionId=old, Tagging={"TagSet": [{"Key": "age", "Value": "old"}]})
    equal(s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"], [])
    equal(s3.get_object_tagging(Bucket=bucket, Key="k", VersionId=old)["TagSet"], [{"Key": "age", "Value": "old"}])
    empty(bucket)


def test_multipart_makes_a_version():
    bucket = versioned()
    old = put(bucket, "k", b"old")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"parts")["ETag"]
    answer = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    equal(read(bucket, "k", answer["VersionId"]), b"parts")
    equal(read(bucket, "k", old), b"old")
    empty(bucket)


def test_listing_versions_by_page():
    bucket = versioned()
    wanted = []
    for key in ("a", "a/b", "a/c", "b", "c/d/e", "ä b"):
        for number in range(3):
            wanted.append((key, put(bucket, key, b"%d" % number)))
        if key != "b":
            wanted.append((key, s3.delete_object(Bucket=bucket, Key=key)["VersionId"]))
    for page_size in (1, 2, 3, 5, 7, 1000):
        equal([row[:2] for row in history(bucket, page_size)], sorted(wanted), page_size)
    equal([row[:2] for row in history(bucket, 2, Prefix="a/")], sorted(row for row in wanted if row[0].startswith("a/")))
    page = s3.list_object_versions(Bucket=bucket, Delimiter="/")
    equal([row["Prefix"] for row in page["CommonPrefixes"]], ["a/", "c/"])
    latest = [row for row in history(bucket) if row[3]]
    equal(len(latest), 6)
    empty(bucket)


def test_delete_objects_with_versions():
    bucket = versioned()
    ids = [put(bucket, "k", b"%d" % number) for number in range(4)]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": ids[0]}, {"Key": "k"}, {"Key": "other"}]})
    markers = [row for row in answer["Deleted"] if row.get("DeleteMarker")]
    equal(sorted(row["Key"] for row in markers), ["k", "other"])
    assert all(row["DeleteMarkerVersionId"] for row in markers), answer
    refused(404, "NoSuchKey", s3.get_object, Bucket=bucket, Key="k")
    equal(read(bucket, "k", ids[3]), b"3")
    empty(bucket)


def test_a_marker_between_directories():
    """History lives on where nothing is visible: a/b gone leaves a/b's versions, and a/c stays listed."""
    bucket = versioned()
    old = put(bucket, "a/b", b"old")
    put(bucket, "a/c", b"c")
    s3.delete_object(Bucket=bucket, Key="a/b")
    equal([row["Key"] for row in s3.list_objects_v2(Bucket=bucket)["Contents"]], ["a/c"])
    s3.delete_object(Bucket=bucket, Key="a/c")
    equal(s3.list_objects_v2(Bucket=bucket, Delimiter="/").get("CommonPrefixes"), None)
    equal(read(bucket, "a/b", old), b"old")
    put(bucket, "a", b"a file now")
    equal(read(bucket, "a"), b"a file now")
    empty(bucket)


run(globals())
