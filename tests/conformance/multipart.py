"""Multipart uploads: their beginning, parts, copied parts, completion and abortion, and how objects made of parts are read."""

import base64
import hashlib
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, unquote

from support import *

# The least that a part but the last may have.
PART = random.Random(1).randbytes(5 * 1024 * 1024)
CHECKSUMS = ("ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", "ChecksumSHA256")
NO_UPLOAD = "upload-that-never-was"


def versioned():
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def begin(bucket, key="key", who=main, **arguments):
    """Begins an upload. Returns its id."""
    return who.s3.create_multipart_upload(Bucket=bucket, Key=key, **arguments)["UploadId"]


def in_list(number, answer):
    """A part as the list of CompleteMultipartUpload has it."""
    return {"PartNumber": number, "ETag": answer["ETag"], **{name: answer[name] for name in CHECKSUMS if name in answer}}


def part(bucket, upload, number=1, body=b"body", key="key", who=main, **arguments):
    answer = who.s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **arguments)
    return in_list(number, answer)


def copied(bucket, upload, number=1, source=None, key="key", who=main, **arguments):
    """UploadPartCopy of `source`, a bucket and a key."""
    source = dict(zip(("Bucket", "Key", "VersionId"), source))
    answer = who.s3.upload_part_copy(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, CopySource=source, **arguments)
    return in_list(number, answer["CopyPartResult"])


def complete(bucket, upload, parts, key="key", who=main, **arguments):
    return who.s3.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **arguments)


def incomplete(status, code, bucket, upload, parts, key="key", who=main, **arguments):
    """Requires that CompleteMultipartUpload is refused."""
    arguments["MultipartUpload"] = {"Parts": parts}
    return refused(status, code, who.s3.complete_multipart_upload, Bucket=bucket, Key=key, UploadId=upload, **arguments)


def of_parts(bucket, *bodies, key="key", numbers=None, **arguments):
    """An object made of these parts. Returns the answer of CompleteMultipartUpload."""
    upload = begin(bucket, key, **arguments)
    numbers = numbers or range(1, len(bodies) + 1)
    checksum = {"ChecksumAlgorithm": arguments.get("ChecksumAlgorithm", "CRC32")}
    return complete(bucket, upload, [part(bucket, upload, number, body, key, **checksum) for number, body in zip(numbers, bodies)], key)


def md5(body):
    return hashlib.md5(body).hexdigest()


def etag(*bodies):
    """The ETag of an object of these parts."""
    return f'"{md5(b"".join(hashlib.md5(body).digest() for body in bodies))}-{len(bodies)}"'


def parts_of(bucket, upload, key="key"):
    """The parts of an upload under way: number, size."""
    answer = main.s3.list_parts(Bucket=bucket, Key=key, UploadId=upload)
    return [(one["PartNumber"], one["Size"]) for one in answer.get("Parts", [])]


def uploads(bucket):
    return [(one["Key"], one["UploadId"]) for one in main.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


def no_such_upload(bucket, upload, key="key"):
    """Requires that every operation on an upload says 404 NoSuchUpload."""
    put(bucket, "source for no_such_upload")
    named = {"Bucket": bucket, "Key": key, "UploadId": upload}
    refused(404, "NoSuchUpload", main.s3.upload_part, PartNumber=1, Body=b"body", **named)
    source = {"Bucket": bucket, "Key": "source for no_such_upload"}
    refused(404, "NoSuchUpload", main.s3.upload_part_copy, PartNumber=1, CopySource=source, **named)
    refused(404, "NoSuchUpload", main.s3.list_parts, **named)
    incomplete(404, "NoSuchUpload", bucket, upload, [{"PartNumber": 1, "ETag": etag(b"body")}], key)
    refused(404, "NoSuchUpload", main.s3.abort_multipart_upload, **named)


# --- CreateMultipartUpload


def test_create():
    """CreateMultipartUpload answers 200 with the bucket, the key and an upload id, which ListMultipartUploads then has."""
    bucket = new_bucket()
    answer = main.s3.create_multipart_upload(Bucket=bucket, Key="a/key")
    equal((status(answer), answer["Bucket"], answer["Key"]), (200, bucket, "a/key"))
    equal(uploads(bucket), [("a/key", answer["UploadId"])])


def test_create_makes_no_object():
    """Until an upload is complete there is no object, whatever parts it has."""
    bucket = new_bucket()
    part(bucket, begin(bucket))
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")
    assert "Contents" not in main.s3.list_objects_v2(Bucket=bucket)


def test_create_no_such_bucket():
    """An upload to a bucket that is not there: 404 NoSuchBucket."""
    refused(404, "NoSuchBucket", main.s3.create_multipart_upload, Bucket=new_name(), Key="key")


def test_create_key_too_long():
    """A key of more than 1,024 bytes: 400 KeyTooLongError, already when the upload begins."""
    refused(400, "KeyTooLongError", main.s3.create_multipart_upload, Bucket=new_bucket(), Key="k" * 1025)


def test_create_longest_key():
    """A key of 1,024 bytes is good."""
    bucket = new_bucket()
    of_parts(bucket, b"body", key="k" * 1024)
    equal(read(main, bucket, "k" * 1024), b"body")


def test_create_metadata():
    """The user's metadata that the upload began with are the object's."""
    bucket = new_bucket()
    of_parts(bucket, b"body", Metadata={"colour": "blue", "size": "7"})
    equal(main.s3.head_object(Bucket=bucket, Key="key")["Metadata"], {"colour": "blue", "size": "7"})


def test_create_headers():
    """The headers that the upload began with are the object's."""
    bucket = new_bucket()
    headers = {"CacheControl": "max-age=60", "ContentDisposition": "inline", "ContentEncoding": "gzip", "ContentLanguage": "de",
               "ContentType": "text/x-test"}
    of_parts(bucket, b"body", Expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc), **headers)
    answer = main.s3.head_object(Bucket=bucket, Key="key")
    equal({name: answer.get(name) for name in headers}, headers)
    equal(answer["ExpiresString"], "Wed, 02 Jan 2030 03:04:05 GMT")


def test_create_content_type_by_default():
    """An upload that began without a Content-Type makes an object of binary/octet-stream."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    equal(main.s3.head_object(Bucket=bucket, Key="key")["ContentType"], "binary/octet-stream")


def test_create_tags():
    """The tags that the upload began with are the object's."""
    bucket = new_bucket()
    of_parts(bucket, b"body", Tagging="one=1&two=a%20b")
    tags = main.s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"]
    equal(sorted((tag["Key"], tag["Value"]) for tag in tags), [("one", "1"), ("two", "a b")])
    equal(main.s3.get_object(Bucket=bucket, Key="key")["TagCount"], 2)


def test_create_too_many_tags():
    """Eleven tags are one too many, already when the upload begins."""
    tagging = "&".join(f"tag{number}=x" for number in range(11))
    error = refused(400, "BadRequest", main.s3.create_multipart_upload, Bucket=new_bucket(), Key="key", Tagging=tagging)
    assert "10" in error["Error"]["Message"], error


def test_create_same_tag_twice():
    """A tag's key twice: 400 InvalidTag or InvalidArgument, already when the upload begins."""
    bucket = new_bucket()
    answer = signed("POST", f"/{bucket}/key?uploads", x_amz_tagging="a=1&a=2")
    equal(answer.status, 400)
    assert code(answer) in ("InvalidTag", "InvalidArgument"), answer.data


def test_create_storage_class():
    """The storage class that the upload began with is the object's, and is told of the upload."""
    bucket = new_bucket()
    upload = begin(bucket, StorageClass="STANDARD_IA")
    equal(main.s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["StorageClass"], "STANDARD_IA")
    equal(main.s3.list_parts(Bucket=bucket, Key="key", UploadId=upload)["StorageClass"], "STANDARD_IA")
    complete(bucket, upload, [part(bucket, upload)])
    equal(main.s3.head_object(Bucket=bucket, Key="key")["StorageClass"], "STANDARD_IA")


def test_create_storage_class_by_default():
    """Without a storage class it is STANDARD, of which HEAD does not speak."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    assert "StorageClass" not in main.s3.head_object(Bucket=bucket, Key="key")
    equal(main.s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"], "STANDARD")


def test_create_unknown_storage_class():
    """A storage class that there is not: 400 InvalidStorageClass."""
    refused(400, "InvalidStorageClass", main.s3.create_multipart_upload, Bucket=new_bucket(), Key="key", StorageClass="COZY")


def test_create_website_redirect():
    """The redirect that the upload began with is the object's."""
    bucket = new_bucket()
    of_parts(bucket, b"body", WebsiteRedirectLocation="/elsewhere")
    equal(main.s3.head_object(Bucket=bucket, Key="key")["WebsiteRedirectLocation"], "/elsewhere")


def test_create_checksum_is_told():
    """CreateMultipartUpload says which checksum the upload has, and of which type."""
    answer = main.s3.create_multipart_upload(Bucket=new_bucket(), Key="key", ChecksumAlgorithm="SHA256")
    equal((answer["ChecksumAlgorithm"], answer["ChecksumType"]), ("SHA256", "COMPOSITE"))
    answer = main.s3.create_multipart_upload(Bucket=new_bucket(), Key="key", ChecksumAlgorithm="CRC64NVME")
    equal((answer["ChecksumAlgorithm"], answer["ChecksumType"]), ("CRC64NVME", "FULL_OBJECT"))


def test_create_impossible_checksum_type():
    """There is no SHA-256 of the whole object, and no CRC-64/NVME of checksums: 400 InvalidRequest."""
    bucket = new_bucket()
    for algorithm, kind in (("SHA256", "FULL_OBJECT"), ("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")):
        call = {"Bucket": bucket, "Key": "key", "ChecksumAlgorithm": algorithm, "ChecksumType": kind}
        refused(400, "InvalidRequest", main.s3.create_multipart_upload, **call)


def test_create_others_may_not():
    """Neither another account nor anybody may begin an upload, and none is begun."""
    bucket = new_bucket()
    denied(alt.s3.create_multipart_upload, Bucket=bucket, Key="key")
    denied(anonymous.create_multipart_upload, Bucket=bucket, Key="key")
    equal(uploads(bucket), [])


def test_create_expected_owner():
    """An upload begins only where the bucket's owner is the one expected: else 403 AccessDenied."""
    bucket = new_bucket()
    denied(main.s3.create_multipart_upload, Bucket=bucket, Key="key", ExpectedBucketOwner=alt.id)
    begin(bucket, ExpectedBucketOwner=main.id)


# --- UploadPart


def test_part_etag():
    """A part's ETag is the MD5 of its bytes, in quotes."""
    bucket = new_bucket()
    equal(part(bucket, begin(bucket), 1, b"some bytes")["ETag"], f'"{md5(b"some bytes")}"')


def test_part_first_and_last_number():
    """Parts are numbered from 1 to 10,000."""
    bucket = new_bucket()
    upload = begin(bucket)
    part(bucket, upload, 1, b"one")
    part(bucket, upload, 10000, b"last")
    equal(parts_of(bucket, upload), [(1, 3), (10000, 4)])


def test_part_number_out_of_range():
    """A part of number 0, -1 or 10,001: 400 InvalidArgument, and there is no such part."""
    bucket = new_bucket()
    upload = begin(bucket)
    for number in (0, -1, 10001):
        named = {"Bucket": bucket, "Key": "key", "UploadId": upload, "PartNumber": number}
        error = refused(400, "InvalidArgument", main.s3.upload_part, Body=b"body", **named)
        equal(error["Error"]["ArgumentName"], "partNumber")
    equal(parts_of(bucket, upload), [])


def test_part_number_is_no_number():
    """A part's number that is no number: 400 InvalidArgument."""
    bucket = new_bucket()
    upload = quote(begin(bucket), safe="")
    for number in ("x", "1.5", "99999999999999999999"):
        answer = signed("PUT", f"/{bucket}/key?partNumber={number}&uploadId={upload}", b"body")
        equal((answer.status, code(answer)), (400, "InvalidArgument"), number)


def test_part_replaced():
    """A part that is sent again replaces the one of that number; the object has the last."""
    bucket = new_bucket()
    upload = begin(bucket)
    part(bucket, upload, 1, b"the first, longer")
    second = part(bucket, upload, 1, b"the second")
    equal(parts_of(bucket, upload), [(1, 10)])
    complete(bucket, upload, [second])
    equal(read(main, bucket, "key"), b"the second")


def test_part_replaced_is_gone():
    """The ETag of a part that was replaced is no longer a part's: 400 InvalidPart."""
    bucket = new_bucket()
    upload = begin(bucket)
    first = part(bucket, upload, 1, b"the first")
    part(bucket, upload, 1, b"the second")
    incomplete(400, "InvalidPart", bucket, upload, [first])


def test_part_refused_replaces_nothing():
    """A part that is refused for its digest leaves the one before as it was."""
    bucket = new_bucket()
    upload = begin(bucket)
    good = part(bucket, upload, 1, b"good")
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    refused(400, "BadDigest", main.s3.upload_part, Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"bad", ContentMD5=wrong)
    complete(bucket, upload, [good])
    equal(read(main, bucket, "key"), b"good")


def test_part_content_md5():
    """Content-MD5 of a part: the right one is good, another 400 BadDigest, what is none 400 InvalidDigest."""
    bucket = new_bucket()
    upload = quote(begin(bucket), safe="")
    path = f"/{bucket}/key?partNumber=1&uploadId={upload}"
    right = base64.b64encode(hashlib.md5(b"body").digest()).decode()
    equal(signed("PUT", path, b"body", Content_MD5=right).status, 200)
    answer = signed("PUT", path, b"other", Content_MD5=right)
    equal((answer.status, code(answer)), (400, "BadDigest"))
    answer = signed("PUT", path, b"body", Content_MD5="bm90IGEgZGlnZXN0")
    equal((answer.status, code(answer)), (400, "InvalidDigest"))


def test_part_wrong_checksum():
    """A part whose bytes are not of the checksum sent: 400 BadDigest, and there is no such part."""
    bucket = new_bucket()
    upload = begin(bucket, ChecksumAlgorithm="SHA256")
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload, "PartNumber": 1}
    refused(400, "BadDigest", main.s3.upload_part, Body=b"body", ChecksumSHA256=wrong, **named)
    equal(parts_of(bucket, upload), [])


def test_part_of_another_checksum():
    """A part with a checksum of another algorithm than the upload's: 400 InvalidRequest."""
    bucket = new_bucket()
    upload = begin(bucket, ChecksumAlgorithm="SHA256")
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload, "PartNumber": 1}
    refused(400, "InvalidRequest", main.s3.upload_part, Body=b"body", ChecksumAlgorithm="CRC32C", **named)


def test_part_in_any_order():
    """Parts may come in any order; their numbers tell theirs."""
    bucket = new_bucket()
    upload = begin(bucket)
    last = part(bucket, upload, 2, b"the end")
    first = part(bucket, upload, 1, PART)
    complete(bucket, upload, [first, last])
    equal(read(main, bucket, "key") == PART + b"the end", True)


def test_part_side_by_side():
    """Parts that are sent at the same time are all there."""
    bucket = new_bucket()
    upload = begin(bucket)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: part(bucket, upload, number, b"x" * number), range(1, 13)))
    equal(parts_of(bucket, upload), [(number, number) for number in range(1, 13)])


def test_part_no_such_bucket():
    """A part for a bucket that is not there: 404 NoSuchBucket."""
    named = {"Bucket": new_name(), "Key": "key", "UploadId": NO_UPLOAD, "PartNumber": 1}
    refused(404, "NoSuchBucket", main.s3.upload_part, Body=b"body", **named)


def test_part_copied_no_such_bucket():
    """A copied part for a bucket that is not there: 404 NoSuchBucket."""
    bucket, key = source()
    not_copied(404, "NoSuchBucket", new_name(), NO_UPLOAD, (bucket, key))


def test_part_others_may_not():
    """Neither another account nor anybody may add a part, list the parts, complete or abort."""
    bucket = new_bucket()
    upload = begin(bucket)
    mine = part(bucket, upload)
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload}
    for s3 in (alt.s3, anonymous):
        denied(s3.upload_part, PartNumber=2, Body=b"body", **named)
        denied(s3.list_parts, **named)
        denied(s3.complete_multipart_upload, MultipartUpload={"Parts": [mine]}, **named)
        denied(s3.abort_multipart_upload, **named)
        denied(s3.list_multipart_uploads, Bucket=bucket)
    equal(parts_of(bucket, upload), [(1, 4)])


def test_part_of_another_account():
    """Whom the policy allows s3:PutObject begins an upload, adds parts and completes it; the object is the bucket owner's."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    upload = begin(bucket, who=alt)
    complete(bucket, upload, [part(bucket, upload, who=alt)], who=alt)
    equal(read(main, bucket, "key"), b"body")
    denied(alt.s3.get_object, Bucket=bucket, Key="key")


def test_part_expected_owner():
    """Every operation on an upload minds the expected owner: 403 AccessDenied where it is another."""
    bucket = new_bucket()
    upload = begin(bucket)
    good = part(bucket, upload, ExpectedBucketOwner=main.id)
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload, "ExpectedBucketOwner": alt.id}
    denied(main.s3.upload_part, PartNumber=1, Body=b"other", **named)
    denied(main.s3.list_parts, **named)
    denied(main.s3.complete_multipart_upload, MultipartUpload={"Parts": [good]}, **named)
    denied(main.s3.abort_multipart_upload, **named)
    complete(bucket, upload, [good], ExpectedBucketOwner=main.id)


# --- CompleteMultipartUpload


def test_complete_answer():
    """CompleteMultipartUpload answers 200 with Location, Bucket, Key and ETag, as an XML document."""
    bucket = new_bucket()
    answer = of_parts(bucket, b"body", key="a/key with space")
    equal((status(answer), answer["Bucket"], answer["Key"], answer["ETag"]), (200, bucket, "a/key with space", etag(b"body")))
    assert re.match(r"https?://[^/]+/", answer["Location"]), answer
    assert bucket in answer["Location"] and unquote(answer["Location"]).endswith("/a/key with space"), answer
    equal(answer["ResponseMetadata"]["HTTPHeaders"]["content-type"], "application/xml")
    assert "VersionId" not in answer, answer


def test_complete_etag():
    """The ETag is the MD5 of the parts' MD5s and their number, and is the same wherever it is told."""
    bucket = new_bucket()
    wanted = etag(PART, b"the end")
    equal(of_parts(bucket, PART, b"the end")["ETag"], wanted)
    equal(main.s3.head_object(Bucket=bucket, Key="key")["ETag"], wanted)
    equal(main.s3.list_objects_v2(Bucket=bucket)["Contents"][0]["ETag"], wanted)
    equal(main.s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["ETag"])["ETag"], wanted.strip('"'))


def test_complete_one_part():
    """An object of one part has the ETag of one part, not the MD5 of its bytes."""
    bucket = new_bucket()
    equal(of_parts(bucket, b"body")["ETag"], f'"{md5(hashlib.md5(b"body").digest())}-1"')


def test_complete_reads_back():
    """The object is its parts, one after the other, and says how long it is."""
    bucket = new_bucket()
    of_parts(bucket, PART, b"the end")
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    equal(answer["ContentLength"], len(PART) + 7)
    equal(answer["Body"].read() == PART + b"the end", True)
    equal(main.s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Size"], len(PART) + 7)


def test_complete_ends_the_upload():
    """What is complete is no longer an upload: not listed, and 404 NoSuchUpload for parts."""
    bucket = new_bucket()
    upload = begin(bucket)
    complete(bucket, upload, [part(bucket, upload)])
    equal(uploads(bucket), [])
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload}
    refused(404, "NoSuchUpload", main.s3.upload_part, PartNumber=1, Body=b"body", **named)
    refused(404, "NoSuchUpload", main.s3.list_parts, **named)


def test_complete_again():
    """The same CompleteMultipartUpload again answers the same."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    first, second = complete(bucket, upload, parts), complete(bucket, upload, parts)
    for name in ("Location", "Bucket", "Key", "ETag"):
        equal(second[name], first[name], name)
    equal(status(second), 200)


def test_complete_again_does_nothing():
    """The same CompleteMultipartUpload again does not undo what was put after the first."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    complete(bucket, upload, parts)
    put(bucket, "key", b"later")
    complete(bucket, upload, parts)
    equal(read(main, bucket, "key"), b"later")


def test_complete_side_by_side():
    """Many CompleteMultipartUpload of one upload at the same time make one object."""
    bucket = versioned()
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: complete(bucket, upload, parts), range(4)))
    equal(len({answer["ETag"] for answer in answers}), 1)
    equal(len(main.s3.list_object_versions(Bucket=bucket)["Versions"]), 1)


def test_complete_gaps():
    """Numbers need not follow each other, and the ETag counts the parts."""
    bucket = new_bucket()
    equal(of_parts(bucket, PART, b"the end", numbers=(3, 9999))["ETag"], etag(PART, b"the end"))
    equal(read(main, bucket, "key", Range="bytes=-7"), b"the end")


def test_complete_subset():
    """Parts that the list leaves out are not in the object, and are gone with the upload."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload, number, body) for number, body in ((1, b"one"), (2, b"two"), (3, b"three"))]
    equal(complete(bucket, upload, parts[1:2])["ETag"], etag(b"two"))
    equal(read(main, bucket, "key"), b"two")
    refused(404, "NoSuchUpload", main.s3.list_parts, Bucket=bucket, Key="key", UploadId=upload)


def test_complete_wrong_order():
    """A list whose numbers do not ascend: 400 InvalidPartOrder, and the upload goes on."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload, number) for number in (1, 2)]
    incomplete(400, "InvalidPartOrder", bucket, upload, parts[::-1])
    equal(parts_of(bucket, upload), [(1, 4), (2, 4)])


def test_complete_twice_in_the_list():
    """A part twice in the list: 400 InvalidPartOrder."""
    bucket = new_bucket()
    upload = begin(bucket)
    one = part(bucket, upload)
    incomplete(400, "InvalidPartOrder", bucket, upload, [one, one])


def test_complete_unknown_part():
    """A part that was never sent: 400 InvalidPart, and the upload goes on."""
    bucket = new_bucket()
    upload = begin(bucket)
    one = part(bucket, upload)
    incomplete(400, "InvalidPart", bucket, upload, [{**one, "PartNumber": 2}])
    complete(bucket, upload, [one])


def test_complete_wrong_etag():
    """A part with another ETag than it has: 400 InvalidPart."""
    bucket = new_bucket()
    upload = begin(bucket)
    one = part(bucket, upload)
    incomplete(400, "InvalidPart", bucket, upload, [{**one, "ETag": f'"{md5(b"other")}"'}])
    incomplete(400, "InvalidPart", bucket, upload, [{**one, "ETag": '"no digest"'}])


def test_complete_etag_without_quotes():
    """An ETag in the list may be without its quotes."""
    bucket = new_bucket()
    upload = begin(bucket)
    one = part(bucket, upload)
    complete(bucket, upload, [{**one, "ETag": one["ETag"].strip('"')}])


def test_complete_too_small():
    """A part but the last of less than 5 MiB: 400 EntityTooSmall, which tells the part and both sizes."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload, number, b"small") for number in (4, 7)]
    error = incomplete(400, "EntityTooSmall", bucket, upload, parts)["Error"]
    wanted = {"ProposedSize": "5", "MinSizeAllowed": "5242880", "PartNumber": "4", "ETag": md5(b"small")}
    equal({name: error.get(name) for name in wanted}, wanted)
    equal(parts_of(bucket, upload), [(4, 5), (7, 5)])


def test_complete_too_small_by_a_byte():
    """A part but the last of 5 MiB less one byte is too small."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload, 1, PART[1:]), part(bucket, upload, 2)]
    incomplete(400, "EntityTooSmall", bucket, upload, parts)


def test_complete_small_and_left_out():
    """A small part that the list leaves out does no harm."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload, number, body) for number, body in ((1, b"small"), (2, b"last"))]
    complete(bucket, upload, parts[1:])
    equal(read(main, bucket, "key"), b"last")


def test_complete_empty_last_part():
    """The last part may be empty, and counts."""
    bucket = new_bucket()
    equal(of_parts(bucket, PART, b"")["ETag"], etag(PART, b""))
    equal(main.s3.head_object(Bucket=bucket, Key="key")["ContentLength"], len(PART))


def test_complete_empty_only_part():
    """One empty part makes an empty object."""
    bucket = new_bucket()
    equal(of_parts(bucket, b"")["ETag"], etag(b""))
    equal(read(main, bucket, "key"), b"")


def test_complete_empty_list():
    """A list without a part: 400 MalformedXML, and the upload goes on."""
    bucket = new_bucket()
    upload = begin(bucket)
    good = part(bucket, upload)
    incomplete(400, "MalformedXML", bucket, upload, [])
    complete(bucket, upload, [good])


def test_complete_no_such_bucket():
    """Completing in a bucket that is not there: 404 NoSuchBucket."""
    incomplete(404, "NoSuchBucket", new_name(), NO_UPLOAD, [{"PartNumber": 1, "ETag": etag(b"body")}])


def test_complete_number_is_no_number():
    """A part's number in the list that is no number: 400 MalformedXML, as the schema wants one."""
    bucket = new_bucket()
    path = f"/{bucket}/key?uploadId={quote(begin(bucket), safe='')}"
    text = "<CompleteMultipartUpload><Part><PartNumber>one</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"
    answer = signed("POST", path, text.encode())
    equal((answer.status, code(answer)), (400, "MalformedXML"))


def test_complete_malformed():
    """A body that is no list of parts: 400 MalformedXML."""
    bucket = new_bucket()
    upload = begin(bucket)
    part(bucket, upload)
    path = f"/{bucket}/key?uploadId={quote(upload, safe='')}"
    texts = ("<CompleteMultipartUpload>", "{}", "<Other/>", "<CompleteMultipartUpload><Part/></CompleteMultipartUpload>")
    for text in texts:
        answer = signed("POST", path, text.encode())
        equal((answer.status, code(answer)), (400, "MalformedXML"), text)


def test_complete_without_a_namespace():
    """The list is understood with and without the namespace of S3, and with an XML declaration."""
    bucket = new_bucket()
    with_namespace = '<?xml version="1.0"?><CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    for opening in ("<CompleteMultipartUpload>", with_namespace):
        answer = signed("POST", f"/{bucket}/key?uploads")
        upload = quote(answer.data.decode().partition("<UploadId>")[2].partition("</UploadId>")[0], safe="")
        tag = signed("PUT", f"/{bucket}/key?partNumber=1&uploadId={upload}", b"body").headers["etag"].replace('"', "&quot;")
        text = f"{opening}<Part><ETag>{tag}</ETag><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>"
        equal(signed("POST", f"/{bucket}/key?uploadId={upload}", text.encode()).status, 200, opening)


def test_complete_if_none_match():
    """If-None-Match: * completes where there is no object, else 412 PreconditionFailed, and the object stays."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    complete(bucket, upload, parts, IfNoneMatch="*")
    upload = begin(bucket)
    parts = [part(bucket, upload, 1, b"other")]
    incomplete(412, "PreconditionFailed", bucket, upload, parts, IfNoneMatch="*")
    equal(read(main, bucket, "key"), b"body")


def test_complete_refused_goes_on():
    """An upload whose completion a condition forbade goes on, and may be completed without it."""
    bucket = new_bucket()
    put(bucket, "key", b"old")
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    incomplete(412, "PreconditionFailed", bucket, upload, parts, IfNoneMatch="*")
    equal(uploads(bucket), [("key", upload)])
    complete(bucket, upload, parts)
    equal(read(main, bucket, "key"), b"body")


def test_complete_if_none_match_after_delete():
    """If-None-Match: * completes where the newest version is a delete marker."""
    bucket = versioned()
    put(bucket, "key", b"old")
    main.s3.delete_object(Bucket=bucket, Key="key")
    upload = begin(bucket)
    complete(bucket, upload, [part(bucket, upload)], IfNoneMatch="*")
    equal(read(main, bucket, "key"), b"body")


def test_complete_if_match():
    """If-Match completes where the object has that ETag, else 412 PreconditionFailed."""
    bucket = new_bucket()
    tag = put(bucket, "key", b"old")["ETag"]
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    incomplete(412, "PreconditionFailed", bucket, upload, parts, IfMatch=f'"{md5(b"other")}"')
    equal(read(main, bucket, "key"), b"old")
    complete(bucket, upload, parts, IfMatch=tag)
    equal(read(main, bucket, "key"), b"body")


def test_complete_if_match_none():
    """If-Match where there is no object: 404 NoSuchKey."""
    bucket = new_bucket()
    upload = begin(bucket)
    incomplete(404, "NoSuchKey", bucket, upload, [part(bucket, upload)], IfMatch=f'"{md5(b"body")}"')


def test_complete_one_of_many():
    """Of many uploads of one key that complete with If-None-Match: * at the same time, one does."""
    bucket = new_bucket()
    begun = [begin(bucket) for _ in range(4)]
    parts = {upload: [part(bucket, upload, 1, upload.encode())] for upload in begun}

    def attempt(upload):
        try:
            complete(bucket, upload, parts[upload], IfNoneMatch="*")
            return upload
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), error
            return None

    with ThreadPoolExecutor(4) as pool:
        won = [upload for upload in pool.map(attempt, begun) if upload]
    equal(len(won), 1)
    equal(read(main, bucket, "key"), won[0].encode())


def test_complete_object_size():
    """x-amz-mp-object-size that is not the parts' sum: 400 InvalidRequest; the right one completes."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    incomplete(400, "InvalidRequest", bucket, upload, parts, MpuObjectSize=5)
    complete(bucket, upload, parts, MpuObjectSize=4)


def test_complete_composite_checksum():
    """The checksum of an upload by SHA-256 is that of the parts' checksums, with their number."""
    bucket = new_bucket()
    answer = of_parts(bucket, PART, b"the end", ChecksumAlgorithm="SHA256")
    digest = hashlib.sha256(hashlib.sha256(PART).digest() + hashlib.sha256(b"the end").digest()).digest()
    wanted = base64.b64encode(digest).decode() + "-2"
    equal((answer["ChecksumSHA256"], answer["ChecksumType"]), (wanted, "COMPOSITE"))
    answer = main.s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    equal((answer["ChecksumSHA256"], answer["ChecksumType"]), (wanted, "COMPOSITE"))


def test_complete_full_checksum():
    """A FULL_OBJECT checksum of an upload is that of the same bytes put at once."""
    bucket = new_bucket()
    wanted = put(bucket, "whole", PART + b"the end", ChecksumAlgorithm="CRC32")["ChecksumCRC32"]
    answer = of_parts(bucket, PART, b"the end", ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    equal((answer["ChecksumCRC32"], answer["ChecksumType"]), (wanted, "FULL_OBJECT"))


def test_complete_wrong_full_checksum():
    """A FULL_OBJECT checksum that is not the object's: 400 BadDigest."""
    bucket = new_bucket()
    wrong = put(bucket, "other", b"other", ChecksumAlgorithm="CRC32")["ChecksumCRC32"]
    upload = begin(bucket, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    incomplete(400, "BadDigest", bucket, upload, [part(bucket, upload)], ChecksumCRC32=wrong, ChecksumType="FULL_OBJECT")


def test_complete_wrong_checksum_of_a_part():
    """A part with another checksum than it has: 400 InvalidPart."""
    bucket = new_bucket()
    upload = begin(bucket, ChecksumAlgorithm="SHA256")
    one = part(bucket, upload, ChecksumAlgorithm="SHA256")
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    incomplete(400, "InvalidPart", bucket, upload, [{**one, "ChecksumSHA256": wrong}])


def test_complete_without_checksums():
    """A COMPOSITE upload wants the checksum of each part in the list: else 400 InvalidRequest."""
    bucket = new_bucket()
    upload = begin(bucket, ChecksumAlgorithm="SHA256")
    one = part(bucket, upload, ChecksumAlgorithm="SHA256")
    del one["ChecksumSHA256"]
    incomplete(400, "InvalidRequest", bucket, upload, [one])


def test_complete_last_modified():
    """An object of parts has a time of now."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    told = main.s3.head_object(Bucket=bucket, Key="key")["LastModified"]
    assert abs(told - datetime.now(timezone.utc)) < timedelta(minutes=1), told


# --- AbortMultipartUpload


def test_abort():
    """AbortMultipartUpload answers 204, and of the upload nothing is left."""
    bucket = new_bucket()
    upload = begin(bucket)
    part(bucket, upload)
    equal(status(main.s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)), 204)
    equal(uploads(bucket), [])
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_abort_then_everything():
    """After AbortMultipartUpload everything, and aborting again, is 404 NoSuchUpload."""
    bucket = new_bucket()
    upload = begin(bucket)
    main.s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)
    no_such_upload(bucket, upload)


def test_abort_leaves_the_object():
    """An object that was there before stays as it was."""
    bucket = new_bucket()
    put(bucket, "key", b"old")
    upload = begin(bucket)
    part(bucket, upload)
    main.s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)
    equal(read(main, bucket, "key"), b"old")


def test_abort_what_is_complete():
    """Aborting an upload that is complete does not take the object away."""
    bucket = new_bucket()
    upload = begin(bucket)
    complete(bucket, upload, [part(bucket, upload)])
    refused(404, "NoSuchUpload", main.s3.abort_multipart_upload, Bucket=bucket, Key="key", UploadId=upload)
    equal(read(main, bucket, "key"), b"body")


def test_abort_one_of_two():
    """Aborting one of two uploads of a key leaves the other."""
    bucket = new_bucket()
    one, other = begin(bucket), begin(bucket)
    good = part(bucket, other)
    main.s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=one)
    complete(bucket, other, [good])
    equal(read(main, bucket, "key"), b"body")


def test_abort_no_such_bucket():
    """Aborting in a bucket that is not there: 404 NoSuchBucket."""
    refused(404, "NoSuchBucket", main.s3.abort_multipart_upload, Bucket=new_name(), Key="key", UploadId=NO_UPLOAD)


def test_abort_by_policy():
    """Whom the policy allows s3:AbortMultipartUpload may abort, and no more."""
    bucket = new_bucket()
    upload = begin(bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:AbortMultipartUpload", arn(bucket, "*")))
    denied(alt.s3.list_parts, Bucket=bucket, Key="key", UploadId=upload)
    equal(status(alt.s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)), 204)


def test_abort_what_another_account_began():
    """The bucket's owner may list and abort what another account began."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    upload = begin(bucket, who=alt)
    part(bucket, upload, who=alt)
    equal(parts_of(bucket, upload), [(1, 4)])
    equal(status(main.s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)), 204)


# --- upload ids


def test_id_of_nonsense():
    """An upload id that never was: 404 NoSuchUpload of everything."""
    no_such_upload(new_bucket(), NO_UPLOAD)


def test_id_of_odd_characters():
    """An upload id of odd characters is one that never was, too."""
    bucket = new_bucket()
    for upload in ("../..", "0", "a b/c?d", "\u00fcber", "x" * 500):
        refused(404, "NoSuchUpload", main.s3.list_parts, Bucket=bucket, Key="key", UploadId=upload)


def test_id_of_another_key():
    """An upload's id with another key: 404 NoSuchUpload of everything, and the upload goes on."""
    bucket = new_bucket()
    upload = begin(bucket)
    good = part(bucket, upload)
    no_such_upload(bucket, upload, "other")
    complete(bucket, upload, [good])


def test_id_of_another_bucket():
    """An upload's id with another bucket: 404 NoSuchUpload of everything, and the upload goes on."""
    bucket = new_bucket()
    upload = begin(bucket)
    good = part(bucket, upload)
    no_such_upload(new_bucket(), upload)
    complete(bucket, upload, [good])


def test_id_of_another_account():
    """An upload's id is no key to it: with one's own bucket it is 404 NoSuchUpload."""
    bucket, own = new_bucket(), new_bucket(alt)
    upload = begin(bucket)
    good = part(bucket, upload)
    named = {"Bucket": own, "Key": "key", "UploadId": upload}
    refused(404, "NoSuchUpload", alt.s3.list_parts, **named)
    refused(404, "NoSuchUpload", alt.s3.abort_multipart_upload, **named)
    complete(bucket, upload, [good])


# --- uploads and objects side by side


def test_same_key_side_by_side():
    """Uploads of one key have ids and parts of their own; what completes last is the object."""
    bucket = new_bucket()
    one, other = begin(bucket, Metadata={"of": "one"}), begin(bucket, Metadata={"of": "other"})
    assert one != other
    first, second = part(bucket, one, 1, b"one"), part(bucket, other, 1, b"other")
    equal(parts_of(bucket, one), [(1, 3)])
    complete(bucket, one, [first])
    equal(read(main, bucket, "key"), b"one")
    complete(bucket, other, [second])
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    equal((answer["Body"].read(), answer["Metadata"]), (b"other", {"of": "other"}))


def test_object_until_complete():
    """An object stays what it was while an upload of its key runs, and is the new one when that is complete."""
    bucket = new_bucket()
    put(bucket, "key", b"old", Metadata={"old": "yes"})
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    equal(read(main, bucket, "key"), b"old")
    complete(bucket, upload, parts)
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    equal((answer["Body"].read(), answer["Metadata"]), (b"body", {}))


def test_put_meanwhile():
    """An object that is put while an upload of its key runs is there at once; after completion it is one of both, whole."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    put(bucket, "key", b"meanwhile")
    equal(read(main, bucket, "key"), b"meanwhile")
    complete(bucket, upload, parts)
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    assert (answer["ETag"], answer["Body"].read()) in [(etag(b"body"), b"body"), (f'"{md5(b"meanwhile")}"', b"meanwhile")], answer


def test_delete_meanwhile():
    """Deleting an object does not end an upload of its key."""
    bucket = new_bucket()
    put(bucket, "key")
    upload = begin(bucket)
    part(bucket, upload)
    main.s3.delete_object(Bucket=bucket, Key="key")
    equal(parts_of(bucket, upload), [(1, 4)])


def test_put_over_an_object_of_parts():
    """An object that is put over one of parts has nothing of parts any more."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    put(bucket, "key", b"new")
    answer = main.s3.get_object(Bucket=bucket, Key="key", PartNumber=1)
    equal((answer["Body"].read(), answer["ETag"]), (b"new", f'"{md5(b"new")}"'))
    assert "PartsCount" not in answer, answer


def test_delete_bucket_with_uploads():
    """A bucket that has uploads but no objects can be deleted; a new one of that name has none of them."""
    bucket = new_bucket()
    upload = begin(bucket)
    part(bucket, upload)
    equal(status(main.s3.delete_bucket(Bucket=bucket)), 204)
    refused(404, "NoSuchBucket", main.s3.list_parts, Bucket=bucket, Key="key", UploadId=upload)
    main.s3.create_bucket(Bucket=bucket)
    equal(uploads(bucket), [])
    refused(404, "NoSuchUpload", main.s3.list_parts, Bucket=bucket, Key="key", UploadId=upload)


# --- ListParts


def test_list_parts():
    """ListParts tells of each part its number, size, ETag and time, and of the upload who began it."""
    bucket = new_bucket()
    upload = begin(bucket)
    part(bucket, upload, 2, b"two")
    answer = main.s3.list_parts(Bucket=bucket, Key="key", UploadId=upload)
    equal((answer["Bucket"], answer["Key"], answer["UploadId"], answer["IsTruncated"]), (bucket, "key", upload, False))
    equal((answer["MaxParts"], answer["StorageClass"]), (1000, "STANDARD"))
    assert answer["Owner"]["ID"] and answer["Initiator"]["ID"], answer
    one, = answer["Parts"]
    equal((one["PartNumber"], one["Size"], one["ETag"]), (2, 3, f'"{md5(b"two")}"'))
    assert abs(one["LastModified"] - datetime.now(timezone.utc)) < timedelta(minutes=1), one


def test_list_parts_pages():
    """ListParts by pages: max-parts, part-number-marker, and where the next page begins."""
    bucket = new_bucket()
    upload = begin(bucket)
    for number in (1, 3, 5, 7, 9):
        part(bucket, upload, number)
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload, "MaxParts": 2}
    seen, marker = [], 0
    while True:
        answer = main.s3.list_parts(PartNumberMarker=marker, **named)
        seen.append([one["PartNumber"] for one in answer["Parts"]])
        equal((answer["PartNumberMarker"], answer["MaxParts"]), (marker, 2))
        if not answer["IsTruncated"]:
            break
        marker = answer["NextPartNumberMarker"]
    equal(seen, [[1, 3], [5, 7], [9]])


# --- reading by part


def test_get_part():
    """GetObject with partNumber gives that part: 206, its length and range, and how many parts there are."""
    bucket = new_bucket()
    of_parts(bucket, PART, b"the end")
    size = len(PART) + 7
    answer = main.s3.get_object(Bucket=bucket, Key="key", PartNumber=1)
    equal((status(answer), answer["ContentLength"], answer["PartsCount"]), (206, len(PART), 2))
    equal(answer["ContentRange"], f"bytes 0-{len(PART) - 1}/{size}")
    equal(answer["Body"].read() == PART, True)
    answer = main.s3.get_object(Bucket=bucket, Key="key", PartNumber=2)
    equal((status(answer), answer["Body"].read(), answer["PartsCount"]), (206, b"the end", 2))
    equal((answer["ContentRange"], answer["ETag"]), (f"bytes {len(PART)}-{size - 1}/{size}", etag(PART, b"the end")))


def test_head_part():
    """HeadObject with partNumber tells of that part: 206, its length and range, and how many parts there are."""
    bucket = new_bucket()
    of_parts(bucket, PART, b"the end", Metadata={"colour": "blue"})
    answer = main.s3.head_object(Bucket=bucket, Key="key", PartNumber=2)
    equal((status(answer), answer["ContentLength"], answer["PartsCount"]), (206, 7, 2))
    equal(answer["ResponseMetadata"]["HTTPHeaders"]["content-range"], f"bytes {len(PART)}-{len(PART) + 6}/{len(PART) + 7}")
    equal((answer["Metadata"], answer["ETag"]), ({"colour": "blue"}, etag(PART, b"the end")))


def test_get_part_beyond():
    """A part beyond the last: 416 InvalidPartNumber, of GET and HEAD."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    refused(416, "InvalidPartNumber", main.s3.get_object, Bucket=bucket, Key="key", PartNumber=2)
    refused(416, "InvalidPartNumber", main.s3.head_object, Bucket=bucket, Key="key", PartNumber=2)


def test_get_part_out_of_range():
    """A part's number of 0 or 10,001, or that is none: 400 InvalidArgument."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    for number in (0, 10001, "x"):
        answer = signed("GET", f"/{bucket}/key?partNumber={number}")
        equal((answer.status, code(answer)), (400, "InvalidArgument"), number)


def test_get_part_of_what_has_none():
    """An object that was put at once is its own part 1, says nothing of a number of parts, and has no part 2."""
    bucket = new_bucket()
    put(bucket, "key")
    answer = main.s3.get_object(Bucket=bucket, Key="key", PartNumber=1)
    equal((status(answer), answer["Body"].read(), answer["ContentRange"]), (206, b"body", "bytes 0-3/4"))
    assert "PartsCount" not in answer, answer
    refused(416, "InvalidPartNumber", main.s3.get_object, Bucket=bucket, Key="key", PartNumber=2)


def test_get_part_after_gaps():
    """Parts of an object are read by their place: numbers that were left out are not counted."""
    bucket = new_bucket()
    of_parts(bucket, PART, b"the end", numbers=(2, 5))
    answer = main.s3.get_object(Bucket=bucket, Key="key", PartNumber=2)
    equal((answer["Body"].read(), answer["PartsCount"]), (b"the end", 2))
    refused(416, "InvalidPartNumber", main.s3.get_object, Bucket=bucket, Key="key", PartNumber=5)


def test_get_part_and_range():
    """partNumber and Range together: 400 InvalidRequest."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    refused(400, "InvalidRequest", main.s3.get_object, Bucket=bucket, Key="key", PartNumber=1, Range="bytes=0-1")


def test_get_part_with_conditions():
    """Conditions are of the object's ETag, not the part's: 412 PreconditionFailed, 304."""
    bucket = new_bucket()
    tag = of_parts(bucket, b"body")["ETag"]
    named = {"Bucket": bucket, "Key": "key", "PartNumber": 1}
    equal(main.s3.get_object(IfMatch=tag, **named)["Body"].read(), b"body")
    refused(412, "PreconditionFailed", main.s3.get_object, IfMatch=f'"{md5(b"body")}"', **named)
    refused(304, "304", main.s3.get_object, IfNoneMatch=tag, **named)


def test_get_without_part_tells_no_count():
    """Without partNumber there is no word of how many parts there are."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    assert "PartsCount" not in main.s3.get_object(Bucket=bucket, Key="key")
    assert "PartsCount" not in main.s3.head_object(Bucket=bucket, Key="key")


def test_ranges_across_parts():
    """Ranges across, before, behind and at the border of two parts, and from the end."""
    bucket = new_bucket()
    of_parts(bucket, PART, b"the end")
    whole, border = PART + b"the end", len(PART)
    ranges = ((0, 0), (border - 3, border - 1), (border - 1, border), (border, border), (border, border + 6), (border - 9, border + 3))
    for first, last in ranges:
        answer = main.s3.get_object(Bucket=bucket, Key="key", Range=f"bytes={first}-{last}")
        equal((status(answer), answer["ContentRange"]), (206, f"bytes {first}-{last}/{len(whole)}"))
        equal(answer["Body"].read(), whole[first:last + 1])
    equal(read(main, bucket, "key", Range="bytes=-10"), whole[-10:])
    equal(read(main, bucket, "key", Range=f"bytes={border - 2}-"), whole[border - 2:])
    equal(read(main, bucket, "key", Range=f"bytes={border + 5}-{border + 99}"), b"nd")
    refused(416, "InvalidRange", main.s3.get_object, Bucket=bucket, Key="key", Range=f"bytes={len(whole)}-")


# --- GetObjectAttributes


def attributes(bucket, *wanted, **arguments):
    return main.s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=list(wanted), **arguments)


def test_attributes_of_parts():
    """GetObjectAttributes tells of an object of parts how many there are, and their numbers, sizes and checksums."""
    bucket = new_bucket()
    of_parts(bucket, PART, b"the end", ChecksumAlgorithm="SHA256")
    answer = attributes(bucket, "ObjectParts", "ObjectSize", "StorageClass", "ETag", "Checksum")
    equal((answer["ObjectSize"], answer["StorageClass"]), (len(PART) + 7, "STANDARD"))
    equal(answer["ETag"], etag(PART, b"the end").strip('"'))
    parts = answer["ObjectParts"]
    equal((parts["TotalPartsCount"], parts["IsTruncated"]), (2, False))
    sums = [base64.b64encode(hashlib.sha256(body).digest()).decode() for body in (PART, b"the end")]
    equal([(one["PartNumber"], one["Size"], one["ChecksumSHA256"]) for one in parts["Parts"]], [(1, len(PART), sums[0]), (2, 7, sums[1])])
    equal(answer["Checksum"]["ChecksumType"], "COMPOSITE")


def test_attributes_pages():
    """ObjectParts by pages: MaxParts, PartNumberMarker, and where the next page begins."""
    bucket = new_bucket()
    of_parts(bucket, PART, b"the end", ChecksumAlgorithm="CRC32")
    first = attributes(bucket, "ObjectParts", MaxParts=1)["ObjectParts"]
    equal((first["IsTruncated"], first["MaxParts"], first["PartNumberMarker"], first["NextPartNumberMarker"]), (True, 1, 0, 1))
    equal([one["PartNumber"] for one in first["Parts"]], [1])
    second = attributes(bucket, "ObjectParts", MaxParts=1, PartNumberMarker=1)["ObjectParts"]
    equal((second["IsTruncated"], second["TotalPartsCount"], second["PartNumberMarker"]), (False, 2, 1))
    equal([one["PartNumber"] for one in second["Parts"]], [2])


def test_attributes_asked_for_only():
    """GetObjectAttributes tells what it was asked for and no more."""
    bucket = new_bucket()
    of_parts(bucket, b"body")
    answer = attributes(bucket, "ObjectSize")
    equal(answer["ObjectSize"], 4)
    for name in ("ObjectParts", "ETag", "StorageClass", "Checksum"):
        assert name not in answer, answer


def test_attributes_of_what_has_none():
    """An object that was put at once has no ObjectParts."""
    bucket = new_bucket()
    put(bucket, "key")
    assert "ObjectParts" not in attributes(bucket, "ObjectParts", "ObjectSize")


# --- UploadPartCopy


def source(body=b"0123456789", **arguments):
    """A bucket with an object to copy from: the bucket, the key."""
    bucket = new_bucket()
    put(bucket, "source", body, **arguments)
    return bucket, "source"


def not_copied(status, code, bucket, upload, source, number=1, who=main, **arguments):
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload, "PartNumber": number}
    if isinstance(source, tuple):
        source = dict(zip(("Bucket", "Key", "VersionId"), source))
    return refused(status, code, who.s3.upload_part_copy, CopySource=source, **named, **arguments)


def test_copy_part_whole():
    """UploadPartCopy without a range copies all of the source, and answers with ETag and LastModified."""
    bucket, key = source()
    upload = begin(bucket)
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload, "PartNumber": 1}
    answer = main.s3.upload_part_copy(CopySource={"Bucket": bucket, "Key": key}, **named)
    result = answer["CopyPartResult"]
    equal((status(answer), result["ETag"]), (200, f'"{md5(b"0123456789")}"'))
    assert abs(result["LastModified"] - datetime.now(timezone.utc)) < timedelta(minutes=1), result
    assert "CopySourceVersionId" not in answer, answer
    complete(bucket, upload, [in_list(1, result)])
    equal(read(main, bucket, "key"), b"0123456789")


def test_copy_part_from_another_bucket():
    """The source may be in another bucket."""
    other, bucket = source(), new_bucket()
    upload = begin(bucket)
    complete(bucket, upload, [copied(bucket, upload, 1, other)])
    equal(read(main, bucket, "key"), b"0123456789")


def test_copy_part_range():
    """A range is copied from its first to its last byte, and the ETag is of those."""
    bucket, key = source()
    upload = begin(bucket)
    one = copied(bucket, upload, 1, (bucket, key), CopySourceRange="bytes=2-5")
    equal(one["ETag"], f'"{md5(b"2345")}"')
    complete(bucket, upload, [one])
    equal(read(main, bucket, "key"), b"2345")


def test_copy_part_range_to_the_end():
    """A range that ends at the last byte, and one of that byte alone."""
    bucket, key = source()
    upload = begin(bucket)
    equal(copied(bucket, upload, 1, (bucket, key), CopySourceRange="bytes=0-9")["ETag"], f'"{md5(b"0123456789")}"')
    equal(copied(bucket, upload, 2, (bucket, key), CopySourceRange="bytes=9-9")["ETag"], f'"{md5(b"9")}"')


def test_copy_part_range_ends_beyond():
    """A range that ends beyond the source's end: 400 InvalidArgument, with its name, and there is no such part."""
    bucket, key = source()
    upload = begin(bucket)
    for text in ("bytes=0-10", "bytes=5-99"):
        error = not_copied(400, "InvalidArgument", bucket, upload, (bucket, key), CopySourceRange=text)
        equal((error["Error"].get("ArgumentName"), error["Error"].get("ArgumentValue")), ("x-amz-copy-source-range", text))
    equal(parts_of(bucket, upload), [])


def test_copy_part_range_begins_beyond():
    """A range that begins beyond the source's end: 400 InvalidRequest, and there is no such part."""
    bucket, key = source()
    upload = begin(bucket)
    not_copied(400, "InvalidRequest", bucket, upload, (bucket, key), CopySourceRange="bytes=20-30")
    equal(parts_of(bucket, upload), [])


def test_copy_part_range_malformed():
    """A range of another form than bytes=first-last: 400 InvalidArgument."""
    bucket, key = source()
    upload = begin(bucket)
    for text in ("0-5", "bytes=0", "bytes=0-", "bytes=-5", "bytes=a-b", "bytes=5-2", "bytes=0-1,3-4", "lines=0-5", "bytes=hello"):
        not_copied(400, "InvalidArgument", bucket, upload, (bucket, key), CopySourceRange=text)


def test_copy_part_of_an_empty_object():
    """An empty object may be copied as a part."""
    bucket, key = source(b"")
    upload = begin(bucket)
    complete(bucket, upload, [copied(bucket, upload, 1, (bucket, key))])
    equal(read(main, bucket, "key"), b"")


def test_copy_part_of_an_object_of_parts():
    """A range across the border of the source's parts; the ETag of the new part is of its bytes."""
    bucket = new_bucket()
    of_parts(bucket, PART, b"the end", key="source")
    upload = begin(bucket)
    text = f"bytes={len(PART) - 2}-{len(PART) + 2}"
    one = copied(bucket, upload, 1, (bucket, "source"), CopySourceRange=text)
    equal(one["ETag"], f'"{md5(PART[-2:] + b"the")}"')
    complete(bucket, upload, [one])
    equal(read(main, bucket, "key"), PART[-2:] + b"the")


def test_copy_part_and_sent_parts():
    """An object may be of copied parts and of sent ones."""
    bucket, key = source(PART)
    upload = begin(bucket)
    parts = [copied(bucket, upload, 1, (bucket, key)), part(bucket, upload, 2, b"the end")]
    equal(complete(bucket, upload, parts)["ETag"], etag(PART, b"the end"))
    equal(read(main, bucket, "key") == PART + b"the end", True)


def test_copy_part_of_itself():
    """An object may be made longer: its bytes are the first part of what replaces it."""
    bucket = new_bucket()
    put(bucket, "key", PART)
    upload = begin(bucket)
    complete(bucket, upload, [copied(bucket, upload, 1, (bucket, "key")), part(bucket, upload, 2, b" and more")])
    equal(main.s3.head_object(Bucket=bucket, Key="key")["ContentLength"], len(PART) + 9)
    equal(read(main, bucket, "key", Range="bytes=-10"), PART[-1:] + b" and more")


def test_copy_part_outlives_its_source():
    """A copied part is whole when its source is deleted or overwritten before the upload is complete."""
    bucket, key = source()
    upload = begin(bucket)
    one = copied(bucket, upload, 1, (bucket, key))
    put(bucket, key, b"other bytes")
    main.s3.delete_object(Bucket=bucket, Key=key)
    complete(bucket, upload, [one])
    equal(read(main, bucket, "key"), b"0123456789")


def test_copy_part_keeps_no_metadata():
    """The object's metadata are the upload's, not those of a source."""
    bucket, key = source(Metadata={"of": "the source"}, ContentType="text/x-source")
    upload = begin(bucket, Metadata={"of": "the upload"})
    complete(bucket, upload, [copied(bucket, upload, 1, (bucket, key))])
    answer = main.s3.head_object(Bucket=bucket, Key="key")
    equal((answer["Metadata"], answer["ContentType"]), ({"of": "the upload"}, "binary/octet-stream"))


def test_copy_part_no_such_source():
    """A source that is not there: 404 NoSuchKey; in a bucket that is not: 404 NoSuchBucket."""
    bucket = new_bucket()
    upload = begin(bucket)
    not_copied(404, "NoSuchKey", bucket, upload, (bucket, "none"))
    not_copied(404, "NoSuchBucket", bucket, upload, (new_name(), "key"))


def test_copy_part_malformed_source():
    """A source without a key: 400 InvalidArgument."""
    bucket = new_bucket()
    upload = begin(bucket)
    not_copied(400, "InvalidArgument", bucket, upload, bucket)
    not_copied(400, "InvalidArgument", bucket, upload, f"/{bucket}/")


def test_copy_part_number_out_of_range():
    """A copied part of number 0 or 10,001: 400 InvalidArgument."""
    bucket, key = source()
    upload = begin(bucket)
    for number in (0, 10001):
        not_copied(400, "InvalidArgument", bucket, upload, (bucket, key), number)


def test_copy_part_of_an_encoded_key():
    """The source's key is sent in percent-encoding."""
    bucket, key = new_bucket(), "d\u00e4r/a b+c&d?e=f"
    put(bucket, key, b"odd")
    upload = begin(bucket)
    equal(copied(bucket, upload, 1, (bucket, key))["ETag"], f'"{md5(b"odd")}"')


def test_copy_part_if_match():
    """x-amz-copy-source-if-match: copied if the source has that ETag, else 412 PreconditionFailed."""
    bucket, key = source()
    upload = begin(bucket)
    tag = main.s3.head_object(Bucket=bucket, Key=key)["ETag"]
    copied(bucket, upload, 1, (bucket, key), CopySourceIfMatch=tag)
    not_copied(412, "PreconditionFailed", bucket, upload, (bucket, key), CopySourceIfMatch=f'"{md5(b"other")}"')


def test_copy_part_if_none_match():
    """x-amz-copy-source-if-none-match: copied if the source has another ETag, else 412 PreconditionFailed."""
    bucket, key = source()
    upload = begin(bucket)
    tag = main.s3.head_object(Bucket=bucket, Key=key)["ETag"]
    copied(bucket, upload, 1, (bucket, key), CopySourceIfNoneMatch=f'"{md5(b"other")}"')
    not_copied(412, "PreconditionFailed", bucket, upload, (bucket, key), CopySourceIfNoneMatch=tag)


def test_copy_part_if_modified():
    """x-amz-copy-source-if-modified-since and -if-unmodified-since: 412 PreconditionFailed where they do not hold."""
    bucket, key = source()
    upload = begin(bucket)
    modified = main.s3.head_object(Bucket=bucket, Key=key)["LastModified"]
    before, after = modified - timedelta(hours=1), modified + timedelta(seconds=1)
    copied(bucket, upload, 1, (bucket, key), CopySourceIfModifiedSince=before)
    not_copied(412, "PreconditionFailed", bucket, upload, (bucket, key), CopySourceIfUnmodifiedSince=before)
    copied(bucket, upload, 1, (bucket, key), CopySourceIfUnmodifiedSince=after)
    time.sleep(max(0, 1.1 - (datetime.now(timezone.utc) - modified).total_seconds()))
    not_copied(412, "PreconditionFailed", bucket, upload, (bucket, key), CopySourceIfModifiedSince=modified)


def test_copy_part_conditions_together():
    """If-match that holds goes before if-unmodified-since; if-none-match that does not, before if-modified-since."""
    bucket, key = source()
    upload = begin(bucket)
    head = main.s3.head_object(Bucket=bucket, Key=key)
    before = head["LastModified"] - timedelta(hours=1)
    copied(bucket, upload, 1, (bucket, key), CopySourceIfMatch=head["ETag"], CopySourceIfUnmodifiedSince=before)
    both = {"CopySourceIfNoneMatch": head["ETag"], "CopySourceIfModifiedSince": before}
    not_copied(412, "PreconditionFailed", bucket, upload, (bucket, key), **both)


def test_copy_part_expected_owners():
    """The expected owners of the bucket and of the source's bucket are minded: 403 AccessDenied."""
    bucket, key = source()
    upload = begin(bucket)
    not_copied(403, "AccessDenied", bucket, upload, (bucket, key), ExpectedBucketOwner=alt.id)
    not_copied(403, "AccessDenied", bucket, upload, (bucket, key), ExpectedSourceBucketOwner=alt.id)
    copied(bucket, upload, 1, (bucket, key), ExpectedBucketOwner=main.id, ExpectedSourceBucketOwner=main.id)


def test_copy_part_others_may_not():
    """To copy another account's object as a part one must be allowed to read it."""
    bucket, key = source()
    own = new_bucket(alt)
    upload = begin(own, who=alt)
    not_copied(403, "AccessDenied", own, upload, (bucket, key), who=alt)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    complete(own, upload, [copied(own, upload, 1, (bucket, key), who=alt)], who=alt)
    equal(read(alt, own, "key"), b"0123456789")


def test_copy_part_to_others_may_not():
    """To copy into an upload of another account's bucket one must be allowed to write there."""
    bucket = new_bucket()
    upload = begin(bucket)
    own = new_bucket(alt)
    put(own, "source", who=alt)
    not_copied(403, "AccessDenied", bucket, upload, (own, "source"), who=alt)
    equal(parts_of(bucket, upload), [])


def test_copy_part_of_a_version():
    """A version of the source is copied by its id, which the answer tells."""
    bucket = versioned()
    old = put(bucket, "source", b"old")["VersionId"]
    new = put(bucket, "source", b"new")["VersionId"]
    upload = begin(bucket)
    named = {"Bucket": bucket, "Key": "key", "UploadId": upload, "PartNumber": 1}
    answer = main.s3.upload_part_copy(CopySource={"Bucket": bucket, "Key": "source", "VersionId": old}, **named)
    equal((answer["CopySourceVersionId"], answer["CopyPartResult"]["ETag"]), (old, f'"{md5(b"old")}"'))
    answer = main.s3.upload_part_copy(CopySource={"Bucket": bucket, "Key": "source"}, **named)
    equal((answer["CopySourceVersionId"], answer["CopyPartResult"]["ETag"]), (new, f'"{md5(b"new")}"'))


def test_copy_part_of_a_delete_marker():
    """A source whose newest version is a delete marker: 404 NoSuchKey; the marker by its id: 400 InvalidRequest."""
    bucket = versioned()
    put(bucket, "source")
    marker = main.s3.delete_object(Bucket=bucket, Key="source")["VersionId"]
    upload = begin(bucket)
    not_copied(404, "NoSuchKey", bucket, upload, (bucket, "source"))
    not_copied(400, "InvalidRequest", bucket, upload, (bucket, "source", marker))


# --- versions


def test_version_of_an_upload():
    """In a versioned bucket the completion makes a version, and tells its id; again, the same."""
    bucket = versioned()
    old = put(bucket, "key", b"old")["VersionId"]
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    version = complete(bucket, upload, parts)["VersionId"]
    assert version != old
    equal(complete(bucket, upload, parts)["VersionId"], version)
    equal(read(main, bucket, "key", VersionId=old), b"old")
    equal(read(main, bucket, "key", VersionId=version), b"body")
    equal(len(main.s3.list_object_versions(Bucket=bucket)["Versions"]), 2)


def test_version_of_each_upload():
    """Two uploads of one key make two versions."""
    bucket = versioned()
    one = of_parts(bucket, b"one")["VersionId"]
    two = of_parts(bucket, b"two")["VersionId"]
    equal(read(main, bucket, "key", VersionId=one), b"one")
    equal(read(main, bucket, "key"), b"two")
    newest = [(each["VersionId"], each["IsLatest"], each["ETag"]) for each in main.s3.list_object_versions(Bucket=bucket)["Versions"]]
    equal(newest, [(two, True, etag(b"two")), (one, False, etag(b"one"))])


def test_version_by_part():
    """partNumber and versionId together read the part of that version."""
    bucket = versioned()
    old = of_parts(bucket, PART, b"the end")["VersionId"]
    of_parts(bucket, b"new")
    answer = main.s3.get_object(Bucket=bucket, Key="key", VersionId=old, PartNumber=2)
    equal((answer["Body"].read(), answer["PartsCount"], answer["VersionId"]), (b"the end", 2, old))
    refused(416, "InvalidPartNumber", main.s3.get_object, Bucket=bucket, Key="key", PartNumber=2)


def test_version_none_until_complete():
    """An upload under way is no version, nor is one that was aborted."""
    bucket = versioned()
    upload = begin(bucket)
    part(bucket, upload)
    assert "Versions" not in main.s3.list_object_versions(Bucket=bucket)
    main.s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)
    assert "Versions" not in main.s3.list_object_versions(Bucket=bucket)


def test_version_null():
    """Where versioning is suspended the completion replaces the null version."""
    bucket = versioned()
    kept = put(bucket, "key", b"kept")["VersionId"]
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    put(bucket, "key", b"null")
    of_parts(bucket, b"body")
    versions = [(each["VersionId"], each["IsLatest"]) for each in main.s3.list_object_versions(Bucket=bucket)["Versions"]]
    equal(versions, [("null", True), (kept, False)])
    equal(read(main, bucket, "key", VersionId="null"), b"body")


def test_version_begun_before_versioning():
    """An upload that began before versioning was enabled makes a version with an id."""
    bucket = new_bucket()
    upload = begin(bucket)
    parts = [part(bucket, upload)]
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = complete(bucket, upload, parts)["VersionId"]
    assert version != "null"
    equal(read(main, bucket, "key", VersionId=version), b"body")
