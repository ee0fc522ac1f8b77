"""CopyObject: what is copied and what is not, how a source is named, conditions on both sides, versions, and who may."""

import base64
import hashlib
import time
from datetime import datetime, timedelta, timezone
from urllib.parse import quote

from support import *

# The least that a part but the last may have.
PART = bytes(5 * 1024 * 1024)
OTHER_ETAG = '"' + hashlib.md5(b"something else").hexdigest() + '"'
HEADERS = {"CacheControl": "max-age=60", "ContentDisposition": "inline", "ContentEncoding": "gzip", "ContentLanguage": "de",
           "ContentType": "text/x-test"}


def holding(key="source", body=b"body", **arguments):
    """A bucket of main's with one object."""
    bucket = new_bucket()
    put(bucket, key, body, **arguments)
    return bucket


def versioned():
    bucket = new_bucket()
    set_versioning(bucket, "Enabled")
    return bucket


def set_versioning(bucket, status):
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def named(bucket, source="source", target="copy", version=None):
    """The arguments of a copy within a bucket."""
    source = {"Bucket": bucket, "Key": source, **({"VersionId": version} if version else {})}
    return {"Bucket": bucket, "Key": target, "CopySource": source}


def copied(bucket, source="source", target="copy", who=main, version=None, **arguments):
    """Copies within a bucket. Returns the answer."""
    return who.s3.copy_object(**named(bucket, source, target, version), **arguments)


def not_copied(status, code, bucket, source="source", target="copy", who=main, version=None, **arguments):
    """Requires that a copy within a bucket is refused."""
    return refused(status, code, who.s3.copy_object, **named(bucket, source, target, version), **arguments)


def head(bucket, key="copy", **arguments):
    return main.s3.head_object(Bucket=bucket, Key=key, **arguments)


def tags(bucket, key="copy"):
    return {tag["Key"]: tag["Value"] for tag in main.s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]}


def from_source(bucket, source, key="copy", **headers):
    """A copy whose x-amz-copy-source is sent as it stands."""
    return signed("PUT", f"/{bucket}/{key}", x_amz_copy_source=source, **headers)


def nothing_at(bucket, key="copy"):
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key=key)


def etag(body):
    return f'"{hashlib.md5(body).hexdigest()}"'


# --- what is copied


def test_same_bucket():
    """A copy within a bucket has the bytes of its source, which stays."""
    bucket = holding()
    equal(status(copied(bucket)), 200)
    equal((read(main, bucket, "copy"), read(main, bucket, "source")), (b"body", b"body"))


def test_other_bucket():
    """A copy into another bucket."""
    bucket, target = holding(), new_bucket()
    main.s3.copy_object(Bucket=target, Key="copy", CopySource={"Bucket": bucket, "Key": "source"})
    equal(read(main, target, "copy"), b"body")
    equal([one["Key"] for one in main.s3.list_objects_v2(Bucket=bucket)["Contents"]], ["source"])


def test_result():
    """CopyObjectResult has the ETag and the time of the copy, which HEAD tells too; the document is XML."""
    bucket = holding()
    answer = copied(bucket)
    result, seen = answer["CopyObjectResult"], head(bucket)
    equal((result["ETag"], seen["ETag"]), (etag(b"body"), etag(b"body")))
    equal(result["LastModified"].replace(microsecond=0), seen["LastModified"])
    equal(answer["ResponseMetadata"]["HTTPHeaders"]["content-type"], "application/xml")
    for name in ("VersionId", "CopySourceVersionId"):
        assert name not in answer, answer


def test_result_document():
    """The document's root is CopyObjectResult; headers tell of no ETag of the answer's own."""
    bucket = holding()
    answer = from_source(bucket, f"{bucket}/source")
    text = answer.data.decode()
    assert "<CopyObjectResult" in text and "<LastModified>" in text and "<ETag>" in text, text
    assert "etag" not in answer.headers, answer.headers


def test_last_modified_is_new():
    """A copy's time is that of the copy, not of its source."""
    bucket = holding()
    time.sleep(1.1)
    copied(bucket)
    assert head(bucket)["LastModified"] > head(bucket, "source")["LastModified"]


def test_empty_object():
    """An empty object is copied as one."""
    bucket = holding(body=b"")
    equal(copied(bucket)["CopyObjectResult"]["ETag"], etag(b""))
    equal((read(main, bucket, "copy"), head(bucket)["ContentLength"]), (b"", 0))


def test_large_object():
    """A copy of some megabytes."""
    bucket = holding(body=PART + b"the end")
    copied(bucket)
    equal(head(bucket)["ContentLength"], len(PART) + 7)
    equal(read(main, bucket, "copy", Range="bytes=-9"), b"\0\0the end")


def test_replaces():
    """A copy replaces what was at its key, with all that it had."""
    bucket = holding(Metadata={"new": "yes"})
    put(bucket, "copy", b"what was there before", Metadata={"old": "yes"}, ContentType="text/old", Tagging="old=yes")
    copied(bucket)
    answer = head(bucket)
    equal((answer["Metadata"], answer["ContentType"], answer["ContentLength"]), ({"new": "yes"}, "binary/octet-stream", 4))
    equal(tags(bucket), {})


def test_is_of_its_own():
    """A copy stays when its source is overwritten and deleted."""
    bucket = holding()
    copied(bucket)
    put(bucket, "source", b"other")
    main.s3.delete_object(Bucket=bucket, Key="source")
    equal(read(main, bucket, "copy"), b"body")


def test_source_is_of_its_own():
    """A source stays when its copy is overwritten and deleted."""
    bucket = holding()
    copied(bucket)
    put(bucket, "copy", b"other")
    main.s3.delete_object(Bucket=bucket, Key="copy")
    equal(read(main, bucket, "source"), b"body")


def test_copy_of_a_copy():
    """A copy may be copied, and outlives both before it."""
    bucket = holding(Metadata={"colour": "blue"})
    copied(bucket)
    copied(bucket, "copy", "third")
    for key in ("source", "copy"):
        main.s3.delete_object(Bucket=bucket, Key=key)
    equal((read(main, bucket, "third"), head(bucket, "third")["Metadata"]), (b"body", {"colour": "blue"}))


def test_deep_paths():
    """Source and target under deep paths, with empty and dotted elements."""
    bucket, key = new_bucket(), "a/b//c/./d/../e/" + "f/" * 100 + "end"
    put(bucket, key)
    copied(bucket, key, "x/" + key)
    equal(read(main, bucket, "x/" + key), b"body")


def test_longest_key():
    """A target's key may have 1,024 bytes; one more is 400 KeyTooLongError."""
    bucket = holding()
    copied(bucket, target="k" * 1024)
    equal(read(main, bucket, "k" * 1024), b"body")
    not_copied(400, "KeyTooLongError", bucket, target="k" * 1025)


def test_to_a_key_with_a_slash_at_its_end():
    """A key that ends in a slash is an ordinary one, of source and target."""
    bucket = holding("folder/")
    copied(bucket, "folder/", "other/")
    equal(read(main, bucket, "other/"), b"body")


def test_of_an_object_of_parts():
    """A copy of an object of parts has its bytes, and one ETag in the result and with HEAD."""
    bucket = new_bucket()
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="source", Metadata={"colour": "blue"})["UploadId"]
    parts = []
    for number, body in ((1, PART), (2, b"the end")):
        answer = main.s3.upload_part(Bucket=bucket, Key="source", UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
    main.s3.complete_multipart_upload(Bucket=bucket, Key="source", UploadId=upload, MultipartUpload={"Parts": parts})
    result, seen = copied(bucket)["CopyObjectResult"], head(bucket)
    equal((seen["ETag"], seen["ContentLength"], seen["Metadata"]), (result["ETag"], len(PART) + 7, {"colour": "blue"}))
    equal(read(main, bucket, "copy", Range=f"bytes={len(PART) - 1}-"), b"\0the end")


# --- metadata


def test_metadata_copied():
    """Without a directive the metadata and headers of the source are copied."""
    bucket = holding(Metadata={"colour": "blue"}, Expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc), **HEADERS)
    copied(bucket)
    answer = head(bucket)
    equal({name: answer.get(name) for name in HEADERS}, HEADERS)
    equal((answer["Metadata"], answer["ExpiresString"]), ({"colour": "blue"}, "Wed, 02 Jan 2030 03:04:05 GMT"))


def test_metadata_directive_copy():
    """With COPY, metadata and headers that the request has are ignored."""
    bucket = holding(Metadata={"colour": "blue"}, ContentType="text/x-source")
    copied(bucket, MetadataDirective="COPY", Metadata={"size": "7"}, ContentType="text/x-copy", CacheControl="no-store")
    answer = head(bucket)
    equal((answer["Metadata"], answer["ContentType"]), ({"colour": "blue"}, "text/x-source"))
    assert "CacheControl" not in answer, answer


def test_metadata_without_a_directive():
    """Metadata that the request has without a directive are ignored, as with COPY."""
    bucket = holding(Metadata={"colour": "blue"})
    copied(bucket, Metadata={"size": "7"})
    equal(head(bucket)["Metadata"], {"colour": "blue"})


def test_metadata_directive_replace():
    """With REPLACE, the copy has what the request has, and nothing of the source's."""
    bucket = holding(Metadata={"colour": "blue"}, CacheControl="no-store", ContentType="text/x-source")
    copied(bucket, MetadataDirective="REPLACE", Metadata={"size": "7"}, ContentType="text/x-copy")
    answer = head(bucket)
    equal((answer["Metadata"], answer["ContentType"]), ({"size": "7"}, "text/x-copy"))
    assert "CacheControl" not in answer, answer


def test_metadata_replaced_by_headers():
    """With REPLACE, every header of an object may be given."""
    bucket = holding()
    copied(bucket, MetadataDirective="REPLACE", Expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc), **HEADERS)
    answer = head(bucket)
    equal({name: answer.get(name) for name in HEADERS}, HEADERS)
    equal(answer["ExpiresString"], "Wed, 02 Jan 2030 03:04:05 GMT")


def test_metadata_replaced_by_nothing():
    """With REPLACE and nothing to replace by, the copy has no metadata and the type by default."""
    bucket = holding(Metadata={"colour": "blue"}, **HEADERS)
    copied(bucket, MetadataDirective="REPLACE")
    answer = head(bucket)
    equal((answer["Metadata"], answer["ContentType"]), ({}, "binary/octet-stream"))
    assert "ContentEncoding" not in answer and "CacheControl" not in answer, answer


def test_metadata_directive_unknown():
    """A directive that there is not: 400 InvalidArgument, with its name, and nothing is copied."""
    bucket = holding()
    error = not_copied(400, "InvalidArgument", bucket, MetadataDirective="MERGE")
    equal(error["Error"]["ArgumentName"], "x-amz-metadata-directive")
    nothing_at(bucket)


def test_source_keeps_its_metadata():
    """A copy with REPLACE leaves the source as it was."""
    bucket = holding(Metadata={"colour": "blue"}, Tagging="a=1")
    copied(bucket, MetadataDirective="REPLACE", Metadata={"size": "7"}, TaggingDirective="REPLACE", Tagging="b=2")
    equal((head(bucket, "source")["Metadata"], tags(bucket, "source")), ({"colour": "blue"}, {"a": "1"}))


# --- onto itself


def test_onto_itself():
    """A copy onto itself that changes nothing: 400 InvalidRequest."""
    bucket = holding()
    not_copied(400, "InvalidRequest", bucket, target="source")
    not_copied(400, "InvalidRequest", bucket, target="source", MetadataDirective="COPY")
    not_copied(400, "InvalidRequest", bucket, target="source", Metadata={"ignored": "yes"})


def test_onto_itself_replacing():
    """A copy onto itself with REPLACE changes the metadata and keeps the bytes."""
    bucket = holding(Metadata={"colour": "blue"})
    equal(copied(bucket, target="source", MetadataDirective="REPLACE", Metadata={"size": "7"})["CopyObjectResult"]["ETag"], etag(b"body"))
    equal((head(bucket, "source")["Metadata"], read(main, bucket, "source")), ({"size": "7"}, b"body"))


def test_onto_itself_replacing_by_the_same():
    """REPLACE is a change, be the metadata the same or none."""
    bucket = holding()
    copied(bucket, target="source", MetadataDirective="REPLACE")
    equal(read(main, bucket, "source"), b"body")


def test_onto_itself_storage_class():
    """A copy onto itself into another storage class."""
    bucket = holding(Metadata={"colour": "blue"})
    copied(bucket, target="source", StorageClass="STANDARD_IA")
    answer = head(bucket, "source")
    equal((answer["StorageClass"], answer["Metadata"]), ("STANDARD_IA", {"colour": "blue"}))


def test_onto_itself_website_redirect():
    """A copy onto itself with a redirect."""
    bucket = holding()
    copied(bucket, target="source", WebsiteRedirectLocation="/elsewhere")
    equal(head(bucket, "source")["WebsiteRedirectLocation"], "/elsewhere")


def test_onto_itself_in_a_versioned_bucket():
    """A copy onto itself with REPLACE makes a version; the one before keeps its metadata."""
    bucket = versioned()
    old = put(bucket, "source", Metadata={"colour": "blue"})["VersionId"]
    answer = copied(bucket, target="source", MetadataDirective="REPLACE", Metadata={"size": "7"})
    assert answer["VersionId"] != old, answer
    equal(answer["CopySourceVersionId"], old)
    equal((head(bucket, "source")["Metadata"], head(bucket, "source", VersionId=old)["Metadata"]), ({"size": "7"}, {"colour": "blue"}))


def test_same_key_in_another_bucket():
    """The same key in another bucket is another object."""
    bucket, target = holding(), new_bucket()
    main.s3.copy_object(Bucket=target, Key="source", CopySource={"Bucket": bucket, "Key": "source"})
    equal(read(main, target, "source"), b"body")


# --- tags


def test_tags_copied():
    """Without a directive, and with COPY, the source's tags are copied."""
    bucket = holding(Tagging="a=1&b=two%20words")
    copied(bucket)
    copied(bucket, target="second", TaggingDirective="COPY")
    equal((tags(bucket), tags(bucket, "second")), ({"a": "1", "b": "two words"},) * 2)


def test_tags_replaced():
    """With REPLACE the copy has the request's tags."""
    bucket = holding(Tagging="a=1&b=2")
    copied(bucket, TaggingDirective="REPLACE", Tagging="c=3&d=")
    equal(tags(bucket), {"c": "3", "d": ""})


def test_tags_replaced_by_nothing():
    """With REPLACE and no tags the copy has none."""
    bucket = holding(Tagging="a=1")
    copied(bucket, TaggingDirective="REPLACE")
    equal(tags(bucket), {})


def test_tagging_directive_unknown():
    """A directive that there is not: 400 InvalidArgument, and nothing is copied."""
    bucket = holding()
    error = not_copied(400, "InvalidArgument", bucket, TaggingDirective="MERGE")
    equal(error["Error"]["ArgumentName"], "x-amz-tagging-directive")
    nothing_at(bucket)


def test_tags_and_metadata_apart():
    """The directives are of their own: metadata may be replaced and tags copied, and the other way round."""
    bucket = holding(Tagging="a=1", Metadata={"colour": "blue"})
    copied(bucket, MetadataDirective="REPLACE", Metadata={"size": "7"})
    equal((head(bucket)["Metadata"], tags(bucket)), ({"size": "7"}, {"a": "1"}))
    copied(bucket, TaggingDirective="REPLACE", Tagging="b=2")
    equal((head(bucket)["Metadata"], tags(bucket)), ({"colour": "blue"}, {"b": "2"}))


def test_too_many_tags():
    """Eleven tags are one too many: 400 BadRequest, and nothing is copied."""
    bucket = holding()
    tagging = "&".join(f"tag{number}=x" for number in range(11))
    not_copied(400, "BadRequest", bucket, TaggingDirective="REPLACE", Tagging=tagging)
    nothing_at(bucket)


# --- storage class, redirect, access


def test_storage_class():
    """A copy is of the storage class that the request says."""
    bucket = holding()
    copied(bucket, StorageClass="STANDARD_IA")
    equal(head(bucket)["StorageClass"], "STANDARD_IA")
    equal({one["Key"]: one["StorageClass"] for one in main.s3.list_objects_v2(Bucket=bucket)["Contents"]},
          {"copy": "STANDARD_IA", "source": "STANDARD"})


def test_storage_class_not_copied():
    """Without one in the request a copy is STANDARD, whatever its source is."""
    bucket = holding(StorageClass="STANDARD_IA")
    copied(bucket)
    assert "StorageClass" not in head(bucket), head(bucket)


def test_storage_class_unknown():
    """A storage class that there is not: 400 InvalidStorageClass, and nothing is copied."""
    bucket = holding()
    not_copied(400, "InvalidStorageClass", bucket, StorageClass="COZY")
    nothing_at(bucket)


def test_website_redirect_not_copied():
    """The source's redirect is not copied, by neither directive."""
    bucket = holding(WebsiteRedirectLocation="/elsewhere")
    for directive in ("COPY", "REPLACE"):
        copied(bucket, MetadataDirective=directive)
        assert "WebsiteRedirectLocation" not in head(bucket), directive


def test_website_redirect():
    """A copy has the redirect that the request says, by either directive."""
    bucket = holding(WebsiteRedirectLocation="/elsewhere")
    for directive in ("COPY", "REPLACE"):
        copied(bucket, MetadataDirective=directive, WebsiteRedirectLocation="https://example.com/")
        equal(head(bucket)["WebsiteRedirectLocation"], "https://example.com/", directive)


def test_private():
    """x-amz-acl: private is good, and so is bucket-owner-full-control."""
    bucket = holding()
    for acl in ("private", "bucket-owner-full-control"):
        copied(bucket, target=acl, ACL=acl)
        denied(anonymous.get_object, Bucket=bucket, Key=acl)


def test_public():
    """Where the bucket's owner is enforced, any other ACL is 400 AccessControlListNotSupported, and nothing is copied."""
    bucket = holding()
    not_copied(400, "AccessControlListNotSupported", bucket, ACL="public-read")
    nothing_at(bucket)


# --- how a source is named


def test_source_with_and_without_a_slash():
    """A source may begin with a slash or not."""
    bucket = holding()
    for source in (f"{bucket}/source", f"/{bucket}/source"):
        equal(from_source(bucket, source).status, 200, source)
        equal(read(main, bucket, "copy"), b"body")


def test_source_with_an_encoded_slash():
    """The slash between bucket and key, and those in the key, may be encoded."""
    bucket = holding("deep/source")
    for source in (f"{bucket}%2Fdeep%2Fsource", f"/{bucket}/deep%2fsource", f"{bucket}/deep%2Fsource"):
        equal(from_source(bucket, source).status, 200, source)


def test_source_with_an_encoded_first_slash():
    """A source may be encoded as a whole, with the slash that it begins with."""
    bucket = holding("deep/source")
    equal(from_source(bucket, f"%2F{bucket}%2Fdeep%2Fsource").status, 200)
    equal(read(main, bucket, "copy"), b"body")


def test_source_encoded_throughout():
    """Characters that need no encoding may have it."""
    bucket = holding()
    equal(from_source(bucket, bucket + "/" + "".join(f"%{byte:02X}" for byte in b"source")).status, 200)
    equal(read(main, bucket, "copy"), b"body")


def test_source_of_odd_characters():
    """Keys with spaces, plus, ampersand, percent, question mark, hash and unicode, as boto3 encodes them."""
    bucket = new_bucket()
    keys = ("a b", "a+b", "a&b=c", "100%", "%41", "what?", "what?versionId=x", "a#b", "d\u00e4r/\u65e5\u672c/\U0001f600",
            "\"quoted\" 'key'", "a;b:c@d,e", "~tilde*star", "a\\b|c", "tab\there")
    for number, key in enumerate(keys):
        put(bucket, key, str(number).encode())
        copied(bucket, key)
        equal(read(main, bucket, "copy"), str(number).encode(), key)


def test_source_with_a_plus():
    """An encoded plus is a plus, and an encoded space a space: they are two keys."""
    bucket = holding("a+b", b"plus")
    put(bucket, "a b", b"space")
    for source, body in (("a%2Bb", b"plus"), ("a%20b", b"space")):
        equal(from_source(bucket, f"{bucket}/{source}").status, 200)
        equal(read(main, bucket, "copy"), body, source)


def test_source_is_decoded_once():
    """An encoded percent sign is one of the key."""
    bucket = holding("a%20b", b"percent")
    put(bucket, "a b", b"space")
    equal(from_source(bucket, f"{bucket}/a%2520b").status, 200)
    equal(read(main, bucket, "copy"), b"percent")


def test_source_with_an_encoded_question_mark():
    """A question mark that is encoded belongs to the key: no version is meant."""
    bucket = holding("key?versionId=null", b"odd")
    put(bucket, "key", b"plain")
    equal(from_source(bucket, f"{bucket}/key%3FversionId%3Dnull").status, 200)
    equal(read(main, bucket, "copy"), b"odd")


def test_source_with_a_version():
    """A version's id comes after the key, in a query that is not encoded."""
    bucket = versioned()
    old = put(bucket, "source", b"old")["VersionId"]
    put(bucket, "source", b"new")
    for source in (f"{bucket}/source?versionId={quote(old)}", f"/{bucket}/source?versionId={quote(old)}"):
        answer = from_source(bucket, source)
        equal((answer.status, answer.headers.get("x-amz-copy-source-version-id")), (200, old), source)
        equal(read(main, bucket, "copy"), b"old")


def test_target_of_odd_characters():
    """The target's key may have any characters too."""
    bucket = holding()
    for key in ("a b+c", "d\u00e4r/\u65e5\u672c", "100%?&#"):
        copied(bucket, target=key)
        equal(read(main, bucket, key), b"body", key)


def test_source_malformed():
    """A source without a key, or that is empty: 400 InvalidArgument, with its name, and nothing is copied."""
    bucket = holding()
    for source in (bucket, "/", f"/{bucket}", f"{bucket}/", f"/{bucket}/", f"{bucket}/?versionId=null"):
        answer = from_source(bucket, source)
        equal((answer.status, code(answer)), (400, "InvalidArgument"), source)
        assert "<ArgumentName>x-amz-copy-source</ArgumentName>" in answer.data.decode(), answer.data
    nothing_at(bucket)


def test_source_key_not_there():
    """A source that is not there: 404 NoSuchKey, with its key, and nothing is copied."""
    bucket = new_bucket()
    error = not_copied(404, "NoSuchKey", bucket, "none")
    equal(error["Error"]["Key"], "none")
    nothing_at(bucket)


def test_source_bucket_not_there():
    """A source's bucket that is not there: 404 NoSuchBucket, with its name."""
    bucket, none = new_bucket(), new_name()
    error = refused(404, "NoSuchBucket", main.s3.copy_object, Bucket=bucket, Key="copy", CopySource={"Bucket": none, "Key": "source"})
    equal(error["Error"]["BucketName"], none)


def test_target_bucket_not_there():
    """A target's bucket that is not there: 404 NoSuchBucket, with its name."""
    bucket, none = holding(), new_name()
    error = refused(404, "NoSuchBucket", main.s3.copy_object, Bucket=none, Key="copy", CopySource={"Bucket": bucket, "Key": "source"})
    equal(error["Error"]["BucketName"], none)


def test_missing_source_replaces_nothing():
    """A copy of what is not there leaves what is at the target."""
    bucket = holding("copy", b"kept")
    not_copied(404, "NoSuchKey", bucket, "none")
    equal(read(main, bucket, "copy"), b"kept")


# --- conditions on the source


def times(bucket, key="source"):
    """A time before the object's, the object's, and one after it that is not in the future."""
    modified = head(bucket, key)["LastModified"]
    time.sleep(max(0, 1.1 - (datetime.now(timezone.utc) - modified).total_seconds()))
    return modified - timedelta(hours=1), modified, modified + timedelta(seconds=1)


def test_if_match():
    """x-amz-copy-source-if-match: copied if the source has that ETag, with its quotes or without; else 412."""
    bucket = holding()
    copied(bucket, CopySourceIfMatch=etag(b"body"))
    copied(bucket, CopySourceIfMatch=etag(b"body").strip('"'))
    not_copied(412, "PreconditionFailed", bucket, target="none", CopySourceIfMatch=OTHER_ETAG)
    nothing_at(bucket, "none")


def test_if_none_match():
    """x-amz-copy-source-if-none-match: copied if the source has another ETag; else 412, not 304."""
    bucket = holding()
    copied(bucket, CopySourceIfNoneMatch=OTHER_ETAG)
    not_copied(412, "PreconditionFailed", bucket, target="none", CopySourceIfNoneMatch=etag(b"body"))
    nothing_at(bucket, "none")


def test_if_modified_since():
    """x-amz-copy-source-if-modified-since: copied if the source is newer; else 412."""
    bucket = holding()
    before, modified, after = times(bucket)
    copied(bucket, CopySourceIfModifiedSince=before)
    not_copied(412, "PreconditionFailed", bucket, target="none", CopySourceIfModifiedSince=modified)
    not_copied(412, "PreconditionFailed", bucket, target="none", CopySourceIfModifiedSince=after)
    nothing_at(bucket, "none")


def test_if_unmodified_since():
    """x-amz-copy-source-if-unmodified-since: copied if the source is not newer; else 412."""
    bucket = holding()
    before, modified, after = times(bucket)
    copied(bucket, CopySourceIfUnmodifiedSince=modified)
    copied(bucket, CopySourceIfUnmodifiedSince=after)
    not_copied(412, "PreconditionFailed", bucket, target="none", CopySourceIfUnmodifiedSince=before)
    nothing_at(bucket, "none")


def test_if_match_and_unmodified():
    """If-match that holds and if-unmodified-since that does not: copied, as AWS documents."""
    bucket = holding()
    before, _, after = times(bucket)
    copied(bucket, CopySourceIfMatch=etag(b"body"), CopySourceIfUnmodifiedSince=before)
    equal(read(main, bucket, "copy"), b"body")
    both = {"CopySourceIfMatch": OTHER_ETAG, "CopySourceIfUnmodifiedSince": after}
    not_copied(412, "PreconditionFailed", bucket, target="none", **both)


def test_if_none_match_and_modified():
    """If-none-match that does not hold and if-modified-since that does: 412 PreconditionFailed, as AWS documents."""
    bucket = holding()
    before, _, _ = times(bucket)
    not_copied(412, "PreconditionFailed", bucket, CopySourceIfNoneMatch=etag(b"body"), CopySourceIfModifiedSince=before)
    nothing_at(bucket)
    copied(bucket, CopySourceIfNoneMatch=OTHER_ETAG, CopySourceIfModifiedSince=before)


def test_condition_of_a_missing_source():
    """A condition on a source that is not there: 404 NoSuchKey."""
    bucket = new_bucket()
    not_copied(404, "NoSuchKey", bucket, CopySourceIfMatch=etag(b"body"))
    not_copied(404, "NoSuchKey", bucket, CopySourceIfNoneMatch=etag(b"body"))


def test_condition_of_a_version():
    """A condition is of the version that is copied, not of the newest."""
    bucket = versioned()
    old = put(bucket, "source", b"old")["VersionId"]
    put(bucket, "source", b"new")
    copied(bucket, version=old, CopySourceIfMatch=etag(b"old"))
    not_copied(412, "PreconditionFailed", bucket, version=old, CopySourceIfMatch=etag(b"new"))


# --- conditions on the target


def test_target_if_none_match():
    """If-None-Match: * copies where there is no object; else 412, and it stays."""
    bucket = holding()
    copied(bucket, IfNoneMatch="*")
    put(bucket, "source", b"new")
    not_copied(412, "PreconditionFailed", bucket, IfNoneMatch="*")
    equal(read(main, bucket, "copy"), b"body")


def test_target_if_none_match_after_delete():
    """If-None-Match: * copies where the newest version is a delete marker."""
    bucket = versioned()
    put(bucket, "source")
    put(bucket, "copy", b"old")
    main.s3.delete_object(Bucket=bucket, Key="copy")
    copied(bucket, IfNoneMatch="*")
    equal(read(main, bucket, "copy"), b"body")


def test_target_if_match():
    """If-Match copies where the object has that ETag; else 412, and it stays."""
    bucket = holding()
    put(bucket, "copy", b"old")
    not_copied(412, "PreconditionFailed", bucket, IfMatch=OTHER_ETAG)
    equal(read(main, bucket, "copy"), b"old")
    copied(bucket, IfMatch=etag(b"old"))
    equal(read(main, bucket, "copy"), b"body")


def test_target_if_match_none():
    """If-Match where there is no object: 404 NoSuchKey."""
    bucket = holding()
    not_copied(404, "NoSuchKey", bucket, IfMatch=etag(b"body"))
    nothing_at(bucket)


def test_conditions_on_both():
    """Conditions on the source and on the target must both hold."""
    bucket = holding()
    put(bucket, "copy", b"old")
    good = {"CopySourceIfMatch": etag(b"body"), "IfMatch": etag(b"old")}
    not_copied(412, "PreconditionFailed", bucket, **{**good, "IfMatch": OTHER_ETAG})
    not_copied(412, "PreconditionFailed", bucket, **{**good, "CopySourceIfMatch": OTHER_ETAG})
    copied(bucket, **good)
    equal(read(main, bucket, "copy"), b"body")


# --- checksums


def sha256(body):
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def test_checksum_copied():
    """Without an algorithm in the request a copy has the checksum of its source."""
    bucket = holding(ChecksumAlgorithm="SHA256")
    equal(copied(bucket)["CopyObjectResult"]["ChecksumSHA256"], sha256(b"body"))
    answer = head(bucket, ChecksumMode="ENABLED")
    equal((answer["ChecksumSHA256"], answer["ChecksumType"]), (sha256(b"body"), "FULL_OBJECT"))


def test_checksum_algorithm():
    """A copy has a checksum of the algorithm that the request says, and not that of its source."""
    bucket = holding(ChecksumAlgorithm="CRC32")
    result = copied(bucket, ChecksumAlgorithm="SHA256")["CopyObjectResult"]
    equal((result["ChecksumSHA256"], result["ChecksumType"]), (sha256(b"body"), "FULL_OBJECT"))
    answer = head(bucket, ChecksumMode="ENABLED")
    equal(answer["ChecksumSHA256"], sha256(b"body"))
    assert "ChecksumCRC32" not in answer, answer


def test_checksum_every_algorithm():
    """Every algorithm gives the checksum that PUT of the same bytes gives."""
    bucket = holding(ChecksumAlgorithm="CRC32")
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        name = "Checksum" + algorithm
        wanted = put(bucket, "put", ChecksumAlgorithm=algorithm)[name]
        equal(copied(bucket, ChecksumAlgorithm=algorithm)["CopyObjectResult"][name], wanted, algorithm)
    # That of the nine digits, "123456789", as it is published for CRC-64/NVME and CRC-32C.
    put(bucket, "digits", b"123456789")
    for algorithm, wanted in (("CRC64NVME", "ae8b14860a799888"), ("CRC32C", "e3069283")):
        result = copied(bucket, "digits", ChecksumAlgorithm=algorithm)["CopyObjectResult"]
        equal(base64.b64decode(result["Checksum" + algorithm]).hex(), wanted, algorithm)


def test_checksum_of_an_empty_object():
    """An empty object has a checksum too."""
    bucket = holding(body=b"")
    equal(copied(bucket, ChecksumAlgorithm="SHA256")["CopyObjectResult"]["ChecksumSHA256"], sha256(b""))


def test_checksum_unknown():
    """An algorithm that there is not: 400 InvalidRequest, and nothing is copied."""
    bucket = holding()
    answer = from_source(bucket, f"{bucket}/source", x_amz_checksum_algorithm="CRC7")
    equal((answer.status, code(answer)), (400, "InvalidRequest"))
    nothing_at(bucket)


def test_checksum_by_default():
    """A source without a checksum makes a copy with CRC-64/NVME."""
    bucket = new_bucket()
    equal(signed("PUT", f"/{bucket}/source", b"123456789").status, 200)
    copied(bucket)
    answer = head(bucket, ChecksumMode="ENABLED")
    equal(base64.b64decode(answer["ChecksumCRC64NVME"]).hex(), "ae8b14860a799888")


# --- versions


def test_version_ids():
    """In versioned buckets the answer tells the version that was copied and the one that was made."""
    bucket = versioned()
    old = put(bucket, "source", b"old")["VersionId"]
    new = put(bucket, "source", b"new")["VersionId"]
    answer = copied(bucket, version=old)
    equal(answer["CopySourceVersionId"], old)
    equal(read(main, bucket, "copy", VersionId=answer["VersionId"]), b"old")
    answer = copied(bucket)
    equal(answer["CopySourceVersionId"], new)
    equal(read(main, bucket, "copy", VersionId=answer["VersionId"]), b"new")
    equal(len(main.s3.list_object_versions(Bucket=bucket, Prefix="copy")["Versions"]), 2)


def test_version_of_each_side():
    """Each side tells of versions only if its bucket has them."""
    plain, full = holding(), versioned()
    put(full, "source")
    answer = main.s3.copy_object(Bucket=full, Key="copy", CopySource={"Bucket": plain, "Key": "source"})
    assert answer["VersionId"] and "CopySourceVersionId" not in answer, answer
    answer = main.s3.copy_object(Bucket=plain, Key="copy", CopySource={"Bucket": full, "Key": "source"})
    assert answer["CopySourceVersionId"] and "VersionId" not in answer, answer


def test_version_restored():
    """An old version is restored by copying it onto its own key."""
    bucket = versioned()
    old = put(bucket, "source", b"old", Metadata={"colour": "blue"})["VersionId"]
    put(bucket, "source", b"new")
    copied(bucket, target="source", version=old)
    equal((read(main, bucket, "source"), head(bucket, "source")["Metadata"]), (b"old", {"colour": "blue"}))
    equal(len(main.s3.list_object_versions(Bucket=bucket)["Versions"]), 3)


def test_version_restored_after_delete():
    """A version behind a delete marker may be copied by its id, onto its own key too."""
    bucket = versioned()
    old = put(bucket, "source", b"old")["VersionId"]
    main.s3.delete_object(Bucket=bucket, Key="source")
    copied(bucket, target="source", version=old)
    equal(read(main, bucket, "source"), b"old")


def test_version_null():
    """The version null may be copied by that name, of a bucket that never had versions too."""
    bucket = holding()
    copied(bucket, version="null")
    equal(read(main, bucket, "copy"), b"body")
    set_versioning(bucket, "Enabled")
    put(bucket, "source", b"new")
    equal(copied(bucket, version="null")["CopySourceVersionId"], "null")
    equal(read(main, bucket, "copy"), b"body")


def test_version_not_there():
    """A version that is no more: 404 NoSuchVersion, and nothing is copied."""
    bucket = versioned()
    gone = put(bucket, "source", b"gone")["VersionId"]
    put(bucket, "source", b"new")
    main.s3.delete_object(Bucket=bucket, Key="source", VersionId=gone)
    not_copied(404, "NoSuchVersion", bucket, version=gone)
    nothing_at(bucket)


def test_version_malformed():
    """A version's id that can be none: 400 InvalidArgument."""
    bucket = versioned()
    put(bucket, "source")
    not_copied(400, "InvalidArgument", bucket, version="not an id")


def test_version_delete_marker():
    """A source whose newest version is a delete marker: 404 NoSuchKey; the marker by its id: 400 InvalidRequest."""
    bucket = versioned()
    put(bucket, "source")
    marker = main.s3.delete_object(Bucket=bucket, Key="source")["VersionId"]
    not_copied(404, "NoSuchKey", bucket)
    not_copied(400, "InvalidRequest", bucket, version=marker)
    nothing_at(bucket)


def test_version_suspended():
    """Where versioning is suspended a copy is the null version, and replaces the one before."""
    bucket = versioned()
    put(bucket, "source")
    kept = put(bucket, "copy", b"kept")["VersionId"]
    set_versioning(bucket, "Suspended")
    put(bucket, "copy", b"null")
    copied(bucket)
    versions = [(one["VersionId"], one["IsLatest"]) for one in main.s3.list_object_versions(Bucket=bucket, Prefix="copy")["Versions"]]
    equal(versions, [("null", True), (kept, False)])
    equal(read(main, bucket, "copy", VersionId="null"), b"body")


# --- who may


def test_expected_owner_of_the_target():
    """The target's bucket must be of the account that is expected: else 403 AccessDenied, and nothing is copied."""
    bucket = holding()
    not_copied(403, "AccessDenied", bucket, ExpectedBucketOwner=alt.id)
    nothing_at(bucket)
    copied(bucket, ExpectedBucketOwner=main.id)


def test_expected_owner_of_the_source():
    """The source's bucket must be of the account that is expected: else 403 AccessDenied, and nothing is copied."""
    bucket = holding()
    not_copied(403, "AccessDenied", bucket, ExpectedSourceBucketOwner=alt.id)
    nothing_at(bucket)
    copied(bucket, ExpectedSourceBucketOwner=main.id, ExpectedBucketOwner=main.id)


def test_expected_owners_of_two_accounts():
    """Source and target may be of different accounts, each the one expected."""
    bucket, target = holding(), new_bucket(alt)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    call = {"Bucket": target, "Key": "copy", "CopySource": {"Bucket": bucket, "Key": "source"}}
    denied(alt.s3.copy_object, ExpectedBucketOwner=main.id, ExpectedSourceBucketOwner=alt.id, **call)
    alt.s3.copy_object(ExpectedBucketOwner=alt.id, ExpectedSourceBucketOwner=main.id, **call)
    equal(read(alt, target, "copy"), b"body")


def test_others_may_not():
    """Neither another account nor anybody may copy from or to a bucket, nor within it."""
    bucket, own = holding(), new_bucket(alt)
    put(own, "source", who=alt)
    not_copied(403, "AccessDenied", bucket, who=alt)
    denied(anonymous.copy_object, **named(bucket))
    denied(alt.s3.copy_object, Bucket=own, Key="copy", CopySource={"Bucket": bucket, "Key": "source"})
    denied(alt.s3.copy_object, Bucket=bucket, Key="copy", CopySource={"Bucket": own, "Key": "source"})
    nothing_at(bucket)


def test_missing_source_of_others():
    """Who may not list another account's bucket is not told whether a source is there: 403 AccessDenied."""
    bucket, own = holding(), new_bucket(alt)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    denied(alt.s3.copy_object, Bucket=own, Key="copy", CopySource={"Bucket": bucket, "Key": "none"})
    may_list = statement("Allow", alt.arn, "s3:ListBucket", arn(bucket))
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")), may_list)
    refused(404, "NoSuchKey", alt.s3.copy_object, Bucket=own, Key="copy", CopySource={"Bucket": bucket, "Key": "none"})


def test_version_of_others():
    """To copy a version by its id one needs s3:GetObjectVersion on it."""
    bucket, own = versioned(), new_bucket(alt)
    version = put(bucket, "source")["VersionId"]
    call = {"Bucket": own, "Key": "copy", "CopySource": {"Bucket": bucket, "Key": "source", "VersionId": version}}
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    denied(alt.s3.copy_object, **call)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectVersion", arn(bucket, "*")))
    alt.s3.copy_object(**call)
    equal(read(alt, own, "copy"), b"body")


def test_tags_of_others():
    """To give a copy tags in another account's bucket one needs s3:PutObjectTagging there."""
    bucket, own = new_bucket(), new_bucket(alt)
    put(own, "source", who=alt)
    call = {"Bucket": bucket, "Key": "copy", "CopySource": {"Bucket": own, "Key": "source"}, "TaggingDirective": "REPLACE", "Tagging": "a=1"}
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    denied(alt.s3.copy_object, **call)
    set_policy(bucket, statement("Allow", alt.arn, ["s3:PutObject", "s3:PutObjectTagging"], arn(bucket, "*")))
    alt.s3.copy_object(**call)
    equal(tags(bucket), {"a": "1"})


def test_copy_belongs_to_the_bucket():
    """What another account copied into a bucket is the bucket owner's, whose it is to read."""
    bucket, own = new_bucket(), new_bucket(alt)
    put(own, "source", who=alt)
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    alt.s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": own, "Key": "source"})
    equal(read(main, bucket, "copy"), b"body")
    denied(alt.s3.get_object, Bucket=bucket, Key="copy")
