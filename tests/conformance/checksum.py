"""Checksums: of bodies in headers and in trailers, Content-MD5, x-amz-content-sha256, those of multipart uploads, and who tells them."""

import base64
import hashlib
import hmac
import zlib

from support import *

BODY = b"The quick brown fox jumps over the lazy dog"
MIB = 1 << 20


# --- how they are computed


def table(polynomial):
    """The 256 steps of a CRC whose bits are reflected."""
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ polynomial if value & 1 else value >> 1
        rows.append(value)
    return rows


CRC32C_ROWS, CRC64_ROWS = table(0x82F63B78), table(0x9A6C9329AC4BC9B5)


def crc(rows, width, data):
    ones = (1 << width) - 1
    value = ones
    for byte in data:
        value = rows[(value ^ byte) & 255] ^ (value >> 8)
    return (value ^ ones).to_bytes(width // 8, "big")


DIGESTS = {
    "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "CRC32C": lambda data: crc(CRC32C_ROWS, 32, data),
    "CRC64NVME": lambda data: crc(CRC64_ROWS, 64, data),
    "SHA1": lambda data: hashlib.sha1(data).digest(),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


def b64(digest):
    return base64.b64encode(digest).decode()


def checksum(algorithm, data=BODY):
    return b64(DIGESTS[algorithm](data))


def composite(algorithm, *parts):
    """The checksum of the parts' checksums, and how many they are."""
    return f"{checksum(algorithm, b''.join(DIGESTS[algorithm](part) for part in parts))}-{len(parts)}"


def field(algorithm):
    return "Checksum" + algorithm


def header(algorithm):
    return "x-amz-checksum-" + algorithm.lower()


def told(answer):
    """The checksums that an answer of boto3's tells."""
    return {name: answer[name] for name in map(field, DIGESTS) if name in answer}


def test_known_values():
    """The suite's own CRCs give the published check values of the digits 1 to 9."""
    equal(DIGESTS["CRC32C"](b"123456789").hex(), "e3069283")
    equal(DIGESTS["CRC64NVME"](b"123456789").hex(), "ae8b14860a799888")


# --- in a request's header


def plain(bucket, key="key", body=BODY, method="PUT", query="", **headers):
    return signed(method, f"/{bucket}/{key}{query}", body, **headers)


def with_header(algorithm, value, bucket=None):
    return plain(bucket or new_bucket(), **{header(algorithm).replace("-", "_"): value})


def right(algorithm):
    bucket = new_bucket()
    answer = with_header(algorithm, checksum(algorithm), bucket)
    equal(answer.status, 200, answer.data)
    equal(answer.headers.get(header(algorithm)), checksum(algorithm))
    equal(answer.headers.get("x-amz-checksum-type"), "FULL_OBJECT")
    head = main.s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    equal(told(head), {field(algorithm): checksum(algorithm)})
    equal(head["ChecksumType"], "FULL_OBJECT")


def wrong(algorithm):
    bucket = new_bucket()
    answer = with_header(algorithm, checksum(algorithm, b"something else"), bucket)
    equal((answer.status, code(answer)), (400, "BadDigest"))
    assert algorithm in answer.data.decode(), answer.data
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def malformed(algorithm):
    digest = DIGESTS[algorithm](BODY)
    bucket = new_bucket()
    for value in ("not base64!", b64(digest)[:-1], b64(digest + b"x"), b64(digest[:-1]), digest.hex(), ""):
        answer = with_header(algorithm, value, bucket)
        equal((answer.status, code(answer)), (400, "InvalidRequest"), value)
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_right_crc32():
    """A right CRC32 is taken, answered and kept."""
    right("CRC32")


def test_right_crc32c():
    """A right CRC32C is taken, answered and kept."""
    right("CRC32C")


def test_right_crc64nvme():
    """A right CRC64NVME is taken, answered and kept."""
    right("CRC64NVME")


def test_right_sha1():
    """A right SHA1 is taken, answered and kept."""
    right("SHA1")


def test_right_sha256():
    """A right SHA256 is taken, answered and kept."""
    right("SHA256")


def test_wrong_crc32():
    """A wrong CRC32 is 400 BadDigest, and nothing is written."""
    wrong("CRC32")


def test_wrong_crc32c():
    """A wrong CRC32C is 400 BadDigest, and nothing is written."""
    wrong("CRC32C")


def test_wrong_crc64nvme():
    """A wrong CRC64NVME is 400 BadDigest, and nothing is written."""
    wrong("CRC64NVME")


def test_wrong_sha1():
    """A wrong SHA1 is 400 BadDigest, and nothing is written."""
    wrong("SHA1")


def test_wrong_sha256():
    """A wrong SHA256 is 400 BadDigest, and nothing is written."""
    wrong("SHA256")


def test_malformed_crc32():
    """What is no CRC32 in base64 is 400 InvalidRequest."""
    malformed("CRC32")


def test_malformed_crc32c():
    """What is no CRC32C in base64 is 400 InvalidRequest."""
    malformed("CRC32C")


def test_malformed_crc64nvme():
    """What is no CRC64NVME in base64 is 400 InvalidRequest."""
    malformed("CRC64NVME")


def test_malformed_sha1():
    """What is no SHA1 in base64 is 400 InvalidRequest."""
    malformed("SHA1")


def test_malformed_sha256():
    """What is no SHA256 in base64 is 400 InvalidRequest."""
    malformed("SHA256")


def test_two_at_once():
    """Two checksums in one request are 400 InvalidRequest, though both are right."""
    bucket = new_bucket()
    answer = plain(bucket, x_amz_checksum_crc32=checksum("CRC32"), x_amz_checksum_sha256=checksum("SHA256"))
    equal((answer.status, code(answer)), (400, "InvalidRequest"))
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")


def test_wrong_keeps_what_was():
    """A PUT with a wrong checksum leaves the object that was."""
    bucket = new_bucket()
    put(bucket, "key", b"before")
    equal(with_header("CRC32", checksum("CRC32", b"other"), bucket).status, 400)
    equal(read(main, bucket, "key"), b"before")


def test_empty_body():
    """An empty object has checksums too."""
    bucket = new_bucket()
    for algorithm in DIGESTS:
        answer = put(bucket, algorithm, b"", **{field(algorithm): checksum(algorithm, b"")})
        equal(told(answer), {field(algorithm): checksum(algorithm, b"")})


def test_large_body():
    """A checksum covers all of a body of several mebibytes."""
    bucket = new_bucket()
    body = os.urandom(5 * MIB + 7)
    put(bucket, "key", body, ChecksumSHA256=checksum("SHA256", body))
    answer = signed("PUT", f"/{bucket}/key", body[:-1] + b"x", x_amz_checksum_sha256=checksum("SHA256", body[:-1] + b"y"))
    equal((answer.status, code(answer)), (400, "BadDigest"))
    equal(read(main, bucket, "key"), body)


def test_none_said():
    """An object that is put without a checksum gets a CRC64NVME of the whole of it."""
    bucket = new_bucket()
    answer = plain(bucket)
    equal(answer.headers.get("x-amz-checksum-crc64nvme"), checksum("CRC64NVME"))
    head = main.s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    equal((told(head), head["ChecksumType"]), ({"ChecksumCRC64NVME": checksum("CRC64NVME")}, "FULL_OBJECT"))


def test_sdk_algorithm_without_checksum():
    """x-amz-sdk-checksum-algorithm without the checksum it announces is 400 InvalidRequest."""
    answer = plain(new_bucket(), x_amz_sdk_checksum_algorithm="SHA256")
    equal((answer.status, code(answer)), (400, "InvalidRequest"))


def test_sdk_algorithm_of_another_checksum():
    """x-amz-sdk-checksum-algorithm that is not that of the checksum is 400."""
    answer = plain(new_bucket(), x_amz_sdk_checksum_algorithm="SHA256", x_amz_checksum_crc32=checksum("CRC32"))
    equal(answer.status, 400)


def test_sdk_algorithm_unknown():
    """An algorithm that S3 does not know is 400 InvalidRequest."""
    answer = plain(new_bucket(), x_amz_sdk_checksum_algorithm="MD4", x_amz_checksum_crc32=checksum("CRC32"))
    equal((answer.status, code(answer)), (400, "InvalidRequest"))


def test_sdk_algorithm():
    """x-amz-sdk-checksum-algorithm with the checksum it announces is taken, in either case."""
    bucket = new_bucket()
    for name in ("CRC32", "crc32"):
        equal(plain(bucket, x_amz_sdk_checksum_algorithm=name, x_amz_checksum_crc32=checksum("CRC32")).status, 200, name)


def test_boto3_computes_each():
    """The checksums that boto3 itself computes are taken: CRC32, SHA1, SHA256."""
    bucket = new_bucket()
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        equal(told(put(bucket, algorithm, BODY, ChecksumAlgorithm=algorithm)), {field(algorithm): checksum(algorithm)})


# --- Content-MD5


def test_md5_right():
    """A right Content-MD5 is taken."""
    bucket = new_bucket()
    answer = plain(bucket, Content_MD5=b64(hashlib.md5(BODY).digest()))
    equal((answer.status, answer.headers["etag"]), (200, f'"{hashlib.md5(BODY).hexdigest()}"'))


def test_md5_wrong():
    """A wrong Content-MD5 is 400 BadDigest, and nothing is written."""
    bucket = new_bucket()
    answer = plain(bucket, Content_MD5=b64(hashlib.md5(b"other").digest()))
    equal((answer.status, code(answer)), (400, "BadDigest"))
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_md5_malformed():
    """What is no MD5 in base64 is 400 InvalidDigest: hexadecimal digits, too short, too long, no base64, nothing."""
    bucket = new_bucket()
    digest = hashlib.md5(BODY).digest()
    for value in (digest.hex(), b64(digest[:15]), b64(digest + b"x"), "*" * 24, ""):
        answer = plain(bucket, Content_MD5=value)
        equal((answer.status, code(answer)), (400, "InvalidDigest"), value)


def test_md5_with_checksum():
    """Content-MD5 and one checksum may come together; each is checked."""
    bucket = new_bucket()
    md5, other = b64(hashlib.md5(BODY).digest()), b64(hashlib.md5(b"x").digest())
    equal(plain(bucket, Content_MD5=md5, x_amz_checksum_crc32=checksum("CRC32")).status, 200)
    equal(code(plain(bucket, Content_MD5=other, x_amz_checksum_crc32=checksum("CRC32"))), "BadDigest")
    equal(code(plain(bucket, Content_MD5=md5, x_amz_checksum_crc32=checksum("CRC32", b"x"))), "BadDigest")


def test_md5_of_a_part():
    """A part's Content-MD5 is checked likewise."""
    bucket = new_bucket()
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    query = f"?partNumber=1&uploadId={upload}"
    equal(code(plain(bucket, query=query, Content_MD5=b64(hashlib.md5(b"x").digest()))), "BadDigest")
    equal(code(plain(bucket, query=query, Content_MD5="x")), "InvalidDigest")
    equal(plain(bucket, query=query, Content_MD5=b64(hashlib.md5(BODY).digest())).status, 200)


def test_md5_of_tags():
    """The Content-MD5 of an XML body is checked likewise."""
    bucket = new_bucket()
    body = b"<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>"
    equal(code(signed("PUT", f"/{bucket}?tagging", body, Content_MD5=b64(hashlib.md5(b"x").digest()))), "BadDigest")
    equal(code(signed("PUT", f"/{bucket}?tagging", body, Content_MD5="x")), "InvalidDigest")
    refused(404, "NoSuchTagSet", main.s3.get_bucket_tagging, Bucket=bucket)


DELETE = b"<Delete><Object><Key>key</Key></Object></Delete>"


def test_delete_objects_without():
    """DeleteObjects without Content-MD5 or a checksum is 400 InvalidRequest, and deletes nothing."""
    bucket = new_bucket()
    put(bucket, "key")
    answer = signed("POST", f"/{bucket}?delete", DELETE)
    equal((answer.status, code(answer)), (400, "InvalidRequest"))
    equal(read(main, bucket, "key"), b"body")


def test_delete_objects_wrong():
    """DeleteObjects with a wrong digest is 400 BadDigest, and deletes nothing."""
    bucket = new_bucket()
    put(bucket, "key")
    equal(code(signed("POST", f"/{bucket}?delete", DELETE, Content_MD5=b64(hashlib.md5(b"x").digest()))), "BadDigest")
    equal(code(signed("POST", f"/{bucket}?delete", DELETE, x_amz_checksum_crc32=checksum("CRC32", b"x"))), "BadDigest")
    equal(read(main, bucket, "key"), b"body")


def test_delete_objects_right():
    """DeleteObjects takes Content-MD5 as well as any checksum."""
    bucket = new_bucket()
    digests = {header(algorithm).replace("-", "_"): checksum(algorithm, DELETE) for algorithm in DIGESTS}
    for name, value in {"Content_MD5": b64(hashlib.md5(DELETE).digest()), **digests}.items():
        put(bucket, "key")
        equal(signed("POST", f"/{bucket}?delete", DELETE, **{name: value}).status, 200, name)
        refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")


# --- who tells them


def kept(algorithm="SHA256", body=BODY):
    bucket = new_bucket()
    put(bucket, "key", body, **{field(algorithm): checksum(algorithm, body)})
    return bucket


def test_get_without_mode():
    """GET and HEAD tell no checksum unless they are asked to."""
    bucket = kept()
    for method in ("GET", "HEAD"):
        answer = signed(method, f"/{bucket}/key")
        equal([name for name in answer.headers if "checksum" in name.lower()], [], method)


def test_get_with_mode():
    """GET with x-amz-checksum-mode: ENABLED tells the checksum and its type, for each algorithm."""
    for algorithm in DIGESTS:
        answer = signed("GET", f"/{kept(algorithm)}/key", x_amz_checksum_mode="ENABLED")
        equal(answer.headers.get(header(algorithm)), checksum(algorithm))
        equal(answer.headers.get("x-amz-checksum-type"), "FULL_OBJECT")


def test_head_with_mode():
    """HEAD with x-amz-checksum-mode: ENABLED tells the checksum and its type, for each algorithm."""
    for algorithm in DIGESTS:
        answer = signed("HEAD", f"/{kept(algorithm)}/key", x_amz_checksum_mode="ENABLED")
        equal(answer.headers.get(header(algorithm)), checksum(algorithm))
        equal(answer.headers.get("x-amz-checksum-type"), "FULL_OBJECT")


def test_range_with_mode():
    """A range has no checksum: it would be that of other bytes."""
    answer = signed("GET", f"/{kept()}/key", x_amz_checksum_mode="ENABLED", Range="bytes=4-8")
    equal((answer.status, answer.data), (206, b"quick"))
    equal(answer.headers.get("x-amz-checksum-sha256"), None)


def test_anonymous_with_mode():
    """Who may read an object is told its checksum."""
    bucket = kept()
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    equal(told(anonymous.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")), {"ChecksumSHA256": checksum("SHA256")})


def test_others_are_told_nothing():
    """Who may not read an object is told nothing of its checksum."""
    bucket = kept()
    for who in (alt.s3, anonymous):
        denied(who.head_object, Bucket=bucket, Key="key", ChecksumMode="ENABLED")
        denied(who.get_object_attributes, Bucket=bucket, Key="key", ObjectAttributes=["Checksum"])


def test_attributes():
    """GetObjectAttributes tells the checksum and its type, for each algorithm, and nothing that was not asked for."""
    for algorithm in DIGESTS:
        answer = main.s3.get_object_attributes(Bucket=kept(algorithm), Key="key", ObjectAttributes=["Checksum"])
        equal(answer["Checksum"], {field(algorithm): checksum(algorithm), "ChecksumType": "FULL_OBJECT"})
        equal([name for name in ("ETag", "ObjectSize", "StorageClass", "ObjectParts") if name in answer], [])


def test_attributes_not_asked():
    """GetObjectAttributes without Checksum tells none."""
    answer = main.s3.get_object_attributes(Bucket=kept(), Key="key", ObjectAttributes=["ETag", "ObjectSize"])
    equal("Checksum" in answer, False)


def test_versions():
    """Each version has the checksum it was put with."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one = put(bucket, "key", b"one", ChecksumSHA1=checksum("SHA1", b"one"))["VersionId"]
    two = put(bucket, "key", b"two", ChecksumSHA256=checksum("SHA256", b"two"))["VersionId"]
    for version, wanted in ((one, {"ChecksumSHA1": checksum("SHA1", b"one")}), (two, {"ChecksumSHA256": checksum("SHA256", b"two")})):
        equal(told(main.s3.head_object(Bucket=bucket, Key="key", VersionId=version, ChecksumMode="ENABLED")), wanted)


def test_overwritten():
    """An object that is put again has the new checksum alone."""
    bucket = kept("SHA1")
    put(bucket, "key", b"new", ChecksumCRC32C=checksum("CRC32C", b"new"))
    head = main.s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    equal(told(head), {"ChecksumCRC32C": checksum("CRC32C", b"new")})


def test_copy_keeps():
    """A copy has its source's checksum, of the same algorithm, and the answer tells it."""
    bucket = kept("SHA1")
    answer = main.s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key")
    equal(answer["CopyObjectResult"].get("ChecksumSHA1"), checksum("SHA1"))
    equal(told(main.s3.head_object(Bucket=bucket, Key="copy", ChecksumMode="ENABLED")), {"ChecksumSHA1": checksum("SHA1")})


def test_copy_with_another():
    """A copy may ask for a checksum of another algorithm, which is then computed."""
    bucket = kept("SHA1")
    for algorithm in DIGESTS:
        answer = main.s3.copy_object(Bucket=bucket, Key=algorithm, CopySource=f"{bucket}/key", ChecksumAlgorithm=algorithm)
        equal(answer["CopyObjectResult"].get(field(algorithm)), checksum(algorithm), algorithm)
        equal(told(main.s3.head_object(Bucket=bucket, Key=algorithm, ChecksumMode="ENABLED")), {field(algorithm): checksum(algorithm)})


def test_copy_with_unknown():
    """A copy that asks for an unknown algorithm is 400 InvalidRequest."""
    bucket = kept()
    answer = signed("PUT", f"/{bucket}/copy", x_amz_copy_source=f"/{bucket}/key", x_amz_checksum_algorithm="MD4")
    equal((answer.status, code(answer)), (400, "InvalidRequest"))


# --- of multipart uploads

PARTS = [os.urandom(5 * MIB), b"the end"]


def begin(algorithm=None, kind=None):
    bucket = new_bucket()
    said = {"ChecksumAlgorithm": algorithm, "ChecksumType": kind}
    answer = main.s3.create_multipart_upload(Bucket=bucket, Key="key", **{name: value for name, value in said.items() if value})
    return answer, {"Bucket": bucket, "Key": "key", "UploadId": answer["UploadId"]}


def part(upload, number, body, **said):
    return main.s3.upload_part(**upload, PartNumber=number, Body=body, **said)


def upload_all(upload, algorithm, parts=None, tell=True):
    """Uploads the parts; gives what CompleteMultipartUpload says of them."""
    done = []
    for number, body in enumerate(parts or PARTS, 1):
        said = {field(algorithm): checksum(algorithm, body)}
        answer = part(upload, number, body, **said)
        equal(told(answer), said)
        done.append({"PartNumber": number, "ETag": answer["ETag"], **(said if tell else {})})
    return done


def complete(upload, parts, **said):
    return main.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **said)


def of_parts(algorithm, parts):
    created, upload = begin(algorithm, "COMPOSITE")
    equal((created["ChecksumAlgorithm"], created["ChecksumType"]), (algorithm, "COMPOSITE"))
    answer = complete(upload, upload_all(upload, algorithm, parts))
    wanted = composite(algorithm, *parts)
    equal((told(answer), answer["ChecksumType"]), ({field(algorithm): wanted}, "COMPOSITE"))
    del upload["UploadId"]
    head = main.s3.head_object(**upload, ChecksumMode="ENABLED")
    equal((told(head), head["ChecksumType"]), ({field(algorithm): wanted}, "COMPOSITE"))


def of_whole(algorithm, parts):
    created, upload = begin(algorithm, "FULL_OBJECT")
    equal((created["ChecksumAlgorithm"], created["ChecksumType"]), (algorithm, "FULL_OBJECT"))
    wanted = checksum(algorithm, b"".join(parts))
    answer = complete(upload, upload_all(upload, algorithm, parts, tell=False), **{field(algorithm): wanted})
    equal((told(answer), answer["ChecksumType"]), ({field(algorithm): wanted}, "FULL_OBJECT"))
    del upload["UploadId"]
    head = main.s3.head_object(**upload, ChecksumMode="ENABLED")
    equal((told(head), head["ChecksumType"]), ({field(algorithm): wanted}, "FULL_OBJECT"))


def test_composite_crc32():
    """COMPOSITE of CRC32: the checksum of the parts' checksums, with their number."""
    of_parts("CRC32", PARTS)


def test_composite_crc32c():
    """COMPOSITE of CRC32C, of one small part: the table is slow."""
    of_parts("CRC32C", [b"one part"])


def test_composite_sha1():
    """COMPOSITE of SHA1: the checksum of the parts' checksums, with their number."""
    of_parts("SHA1", PARTS)


def test_composite_sha256():
    """COMPOSITE of SHA256: the checksum of the parts' checksums, with their number."""
    of_parts("SHA256", PARTS)


def test_whole_crc32():
    """FULL_OBJECT of CRC32: that of all bytes, without a number."""
    of_whole("CRC32", PARTS)


def test_whole_crc32c():
    """FULL_OBJECT of CRC32C, of one small part."""
    of_whole("CRC32C", [b"one part"])


def test_whole_crc64nvme():
    """FULL_OBJECT of CRC64NVME, of one small part."""
    of_whole("CRC64NVME", [b"one part"])


def test_default_types():
    """Without a type CRC64NVME is FULL_OBJECT and all others are COMPOSITE."""
    for algorithm in DIGESTS:
        created, _ = begin(algorithm)
        equal(created["ChecksumType"], "FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE", algorithm)


def test_impossible_types():
    """SHA1 and SHA256 have no FULL_OBJECT and CRC64NVME no COMPOSITE: 400 InvalidRequest."""
    for algorithm, kind in (("SHA1", "FULL_OBJECT"), ("SHA256", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")):
        refused(400, "InvalidRequest", begin, algorithm=algorithm, kind=kind)


def test_unknown_algorithm_of_upload():
    """An upload with an algorithm or a type that is none: 400 InvalidRequest."""
    bucket = new_bucket()
    for said in ({"x_amz_checksum_algorithm": "MD4"}, {"x_amz_checksum_algorithm": "CRC32", "x_amz_checksum_type": "HALF"}):
        answer = signed("POST", f"/{bucket}/key?uploads", **said)
        equal((answer.status, code(answer)), (400, "InvalidRequest"), said)


def test_type_without_algorithm():
    """A type without an algorithm is 400 InvalidRequest."""
    answer = signed("POST", f"/{new_bucket()}/key?uploads", x_amz_checksum_type="COMPOSITE")
    equal((answer.status, code(answer)), (400, "InvalidRequest"))


def test_upload_without_algorithm():
    """An upload that says no algorithm gets a CRC64NVME of the whole object."""
    _, upload = begin()
    answer = signed("PUT", f"/{upload['Bucket']}/key?partNumber=1&uploadId={upload['UploadId']}", BODY)
    done = complete(upload, [{"PartNumber": 1, "ETag": answer.headers["etag"]}])
    equal((told(done), done["ChecksumType"]), ({"ChecksumCRC64NVME": checksum("CRC64NVME")}, "FULL_OBJECT"))


def test_wrong_part():
    """A part with a wrong checksum is 400 BadDigest and does not become a part."""
    _, upload = begin("SHA256")
    refused(400, "BadDigest", part, upload=upload, number=1, body=BODY, ChecksumSHA256=checksum("SHA256", b"x"))
    equal(main.s3.list_parts(**upload).get("Parts", []), [])


def test_malformed_part():
    """A part with a malformed checksum is 400 InvalidRequest."""
    _, upload = begin("SHA256")
    refused(400, "InvalidRequest", part, upload=upload, number=1, body=BODY, ChecksumSHA256="x")


def test_part_of_another_algorithm():
    """A part whose checksum is of another algorithm than the upload's is 400 InvalidRequest."""
    _, upload = begin("SHA256")
    refused(400, "InvalidRequest", part, upload=upload, number=1, body=BODY, ChecksumSHA1=checksum("SHA1"))


def test_composite_wants_each_part():
    """A COMPOSITE upload is completed with the checksum of each part only: else 400 InvalidRequest."""
    _, upload = begin("SHA256")
    parts = upload_all(upload, "SHA256", [BODY], tell=False)
    refused(400, "InvalidRequest", complete, upload=upload, parts=parts)


def test_complete_with_wrong_part():
    """A part's checksum that is not the one uploaded is 400 InvalidPart."""
    _, upload = begin("SHA256")
    parts = upload_all(upload, "SHA256", [BODY])
    parts[0]["ChecksumSHA256"] = checksum("SHA256", b"x")
    refused(400, "InvalidPart", complete, upload=upload, parts=parts)


def test_complete_with_wrong_whole():
    """A wrong checksum of the whole is 400 BadDigest; the upload stays and may be completed with the right one."""
    _, upload = begin("CRC32", "FULL_OBJECT")
    parts = upload_all(upload, "CRC32", [BODY])
    refused(400, "BadDigest", complete, upload=upload, parts=parts, ChecksumCRC32=checksum("CRC32", b"x"), ChecksumType="FULL_OBJECT")
    complete(upload, parts, ChecksumCRC32=checksum("CRC32"), ChecksumType="FULL_OBJECT")


def with_composite(**said):
    """Completes with a wrong composite checksum and then with the right one, both without the number of parts."""
    _, upload = begin("SHA256")
    parts = upload_all(upload, "SHA256", [BODY])
    wrong_one, right_one = (checksum("SHA256", DIGESTS["SHA256"](body)) for body in (b"x", BODY))
    refused(400, "BadDigest", complete, upload=upload, parts=parts, ChecksumSHA256=wrong_one, **said)
    equal(complete(upload, parts, ChecksumSHA256=right_one, **said)["ChecksumSHA256"], right_one + "-1")


def test_complete_with_composite():
    """The composite checksum may be said together with its type, and a wrong one is 400 BadDigest."""
    with_composite(ChecksumType="COMPOSITE")


def test_complete_with_composite_alone():
    """The composite checksum needs no type beside it: that of the upload is known."""
    with_composite()


def test_complete_with_another_type():
    """A type that is not the upload's is 400 BadDigest, as the API Reference says."""
    _, upload = begin("CRC32", "FULL_OBJECT")
    parts = upload_all(upload, "CRC32", [BODY])
    refused(400, "BadDigest", complete, upload=upload, parts=parts, ChecksumType="COMPOSITE")


def test_complete_with_the_type():
    """The upload's own type may be said at completion, without a checksum of the whole."""
    for algorithm, kind in (("CRC32", "FULL_OBJECT"), ("CRC32", "COMPOSITE"), ("SHA256", "COMPOSITE")):
        _, upload = begin(algorithm, kind)
        parts = upload_all(upload, algorithm, [BODY])
        equal(complete(upload, parts, ChecksumType=kind)["ChecksumType"], kind)


def test_object_size():
    """x-amz-mp-object-size is checked: another size is 400 InvalidRequest."""
    _, upload = begin("CRC32", "FULL_OBJECT")
    parts = upload_all(upload, "CRC32", [BODY])
    refused(400, "InvalidRequest", complete, upload=upload, parts=parts, MpuObjectSize=len(BODY) + 1)
    complete(upload, parts, MpuObjectSize=len(BODY))


def test_list_parts():
    """ListParts tells the upload's algorithm and type and each part's checksum."""
    _, upload = begin("SHA1")
    upload_all(upload, "SHA1", [b"one", b"two"])
    answer = main.s3.list_parts(**upload)
    equal((answer["ChecksumAlgorithm"], answer["ChecksumType"]), ("SHA1", "COMPOSITE"))
    equal([one["ChecksumSHA1"] for one in answer["Parts"]], [checksum("SHA1", b"one"), checksum("SHA1", b"two")])


def test_list_uploads():
    """ListMultipartUploads tells each upload's algorithm and type."""
    _, upload = begin("CRC32C", "FULL_OBJECT")
    one, = main.s3.list_multipart_uploads(Bucket=upload["Bucket"])["Uploads"]
    equal((one["ChecksumAlgorithm"], one["ChecksumType"]), ("CRC32C", "FULL_OBJECT"))


def test_attributes_of_parts():
    """GetObjectAttributes of a COMPOSITE object tells it without the number of parts, and each part's checksum."""
    _, upload = begin("SHA256")
    complete(upload, upload_all(upload, "SHA256"))
    answer = main.s3.get_object_attributes(Bucket=upload["Bucket"], Key="key", ObjectAttributes=["Checksum", "ObjectParts"])
    equal(answer["Checksum"]["ChecksumType"], "COMPOSITE")
    equal(answer["Checksum"]["ChecksumSHA256"].partition("-")[0], composite("SHA256", *PARTS).partition("-")[0])
    equal([one["ChecksumSHA256"] for one in answer["ObjectParts"]["Parts"]], [checksum("SHA256", body) for body in PARTS])


def test_copied_part():
    """UploadPartCopy computes the checksum of the upload's algorithm and tells it."""
    _, upload = begin("SHA256")
    put(upload["Bucket"], "source", BODY)
    result = main.s3.upload_part_copy(**upload, PartNumber=1, CopySource=f"{upload['Bucket']}/source")["CopyPartResult"]
    equal(result.get("ChecksumSHA256"), checksum("SHA256"))
    answer = complete(upload, [{"PartNumber": 1, "ETag": result["ETag"], "ChecksumSHA256": checksum("SHA256")}])
    equal(answer["ChecksumSHA256"], composite("SHA256", BODY))


# --- x-amz-content-sha256


def declared(method, path, body, content, **headers):
    """A request that is signed with `content` for the x-amz-content-sha256. Gives the headers."""
    request = AWSRequest(method, ENDPOINT + path, data=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    auth = S3SigV4Auth(Credentials(main.key, main.secret), "s3", main.s3.meta.region_name)
    auth.payload = lambda _: content
    auth.add_auth(request)
    return dict(request.headers)


def send(path, body, headers):
    return fetch("PUT", ENDPOINT + path, body=body, headers=headers)


def test_content_sha256():
    """A body that is not what x-amz-content-sha256 says: 400 XAmzContentSHA256Mismatch, with both digests; nothing is written."""
    bucket = new_bucket()
    other = hashlib.sha256(b"x").hexdigest()
    answer = send(f"/{bucket}/key", BODY, declared("PUT", f"/{bucket}/key", BODY, other))
    equal((answer.status, code(answer)), (400, "XAmzContentSHA256Mismatch"))
    text = answer.data.decode()
    assert f"<ClientComputedContentSHA256>{other}</ClientComputedContentSHA256>" in text, text
    assert f"<S3ComputedContentSHA256>{hashlib.sha256(BODY).hexdigest()}</S3ComputedContentSHA256>" in text, text
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_content_sha256_of_xml():
    """The same for a body of XML."""
    bucket = new_bucket()
    body = b"<Tagging><TagSet/></Tagging>"
    answer = send(f"/{bucket}?tagging", body, declared("PUT", f"/{bucket}?tagging", body, hashlib.sha256(b"x").hexdigest()))
    equal((answer.status, code(answer)), (400, "XAmzContentSHA256Mismatch"))


def test_content_sha256_malformed():
    """An x-amz-content-sha256 that is neither a digest nor a known word is 400 InvalidArgument."""
    bucket = new_bucket()
    for content in ("x", "UNSIGNED", hashlib.sha256(BODY).hexdigest()[:-1], b64(hashlib.sha256(BODY).digest())):
        answer = send(f"/{bucket}/key", BODY, declared("PUT", f"/{bucket}/key", BODY, content))
        equal((answer.status, code(answer)), (400, "InvalidArgument"), content)


def test_unsigned_payload():
    """UNSIGNED-PAYLOAD takes any body."""
    bucket = new_bucket()
    equal(send(f"/{bucket}/key", BODY, declared("PUT", f"/{bucket}/key", BODY, "UNSIGNED-PAYLOAD")).status, 200)
    equal(read(main, bucket, "key"), BODY)


def test_unsigned_payload_with_checksum():
    """The checksum of an unsigned body is checked all the same."""
    bucket = new_bucket()
    for body, wanted in ((b"x", 400), (BODY, 200)):
        headers = declared("PUT", f"/{bucket}/key", BODY, "UNSIGNED-PAYLOAD", x_amz_checksum_crc32=checksum("CRC32"))
        equal(send(f"/{bucket}/key", body, headers).status, wanted)


def test_signed_payload_changed():
    """A body that was changed after it was signed is refused."""
    bucket = new_bucket()
    headers = declared("PUT", f"/{bucket}/key", BODY, hashlib.sha256(BODY).hexdigest())
    equal(code(send(f"/{bucket}/key", BODY[:-1] + b"x", headers)), "XAmzContentSHA256Mismatch")


# --- aws-chunked

UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"


def encoding(body, **headers):
    return {"Content_Encoding": "aws-chunked", "x_amz_decoded_content_length": str(len(body)), **headers}


def unsigned_chunks(chunks, trailer=""):
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return framed + b"0\r\n" + trailer.encode() + b"\r\n"


def unsigned(bucket, chunks, trailer, query="", **headers):
    """A PUT whose chunks and trailer are not signed."""
    path = f"/{bucket}/key{query}"
    body = unsigned_chunks(chunks, trailer)
    return send(path, body, declared("PUT", path, body, UNSIGNED_TRAILER, **encoding(b"".join(chunks), **headers)))


def signing_key(date, region):
    key = ("AWS4" + main.secret).encode()
    for word in (date, region, "s3", "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    return key


def sha(data):
    return hashlib.sha256(data).hexdigest()


def signed_chunks(headers, chunks, trailer=None, spoil=None):
    """Chunks that are each signed, with the signature before; `spoil`: the chunk (or "trailer") whose signature is wrong."""
    authorization, when = headers["Authorization"], headers["X-Amz-Date"]
    last = authorization.rpartition("Signature=")[2]
    scope = authorization.partition("Credential=")[2].partition(",")[0].partition("/")[2]
    key = signing_key(when[:8], scope.split("/")[1])

    def sign(kind, *lines):
        text = "\n".join([kind, when, scope, last, *lines])
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    body = b""
    for number, chunk in enumerate([*chunks, b""]):
        last = sign("AWS4-HMAC-SHA256-PAYLOAD", sha(b""), sha(chunk))
        said = last if number != spoil else "0" * 64
        body += b"%x;chunk-signature=%s\r\n" % (len(chunk), said.encode()) + (chunk + b"\r\n" if chunk else b"")
    if trailer:
        last = sign("AWS4-HMAC-SHA256-TRAILER", sha(trailer.encode() + b"\n"))
        said = last if spoil != "trailer" else "0" * 64
        body += f"{trailer}\r\nx-amz-trailer-signature:{said}\r\n".encode()
    return body + b"\r\n"


def in_chunks(bucket, chunks, trailer=None, spoil=None, **headers):
    """A PUT whose chunks are signed."""
    path = f"/{bucket}/key"
    content = SIGNED + ("-TRAILER" if trailer else "")
    said = declared("PUT", path, b"", content, **encoding(b"".join(chunks), **headers))
    return send(path, signed_chunks(said, chunks, trailer, spoil), said)


CHUNKS = [b"a" * 8192, b"b" * 8192, b"the end"]
WHOLE = b"".join(CHUNKS)


def test_unsigned_trailer():
    """A checksum in the trailer of unsigned chunks is taken, kept and told, for each algorithm."""
    bucket = new_bucket()
    for algorithm in DIGESTS:
        answer = unsigned(bucket, CHUNKS, f"{header(algorithm)}:{checksum(algorithm, WHOLE)}\r\n", x_amz_trailer=header(algorithm))
        equal(answer.status, 200, answer.data)
        equal(answer.headers.get(header(algorithm)), checksum(algorithm, WHOLE))
        equal(read(main, bucket, "key"), WHOLE)
        head = main.s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
        equal(told(head), {field(algorithm): checksum(algorithm, WHOLE)})


def test_unsigned_trailer_wrong():
    """A wrong checksum in a trailer is 400 BadDigest, for each algorithm, and nothing is written."""
    bucket = new_bucket()
    for algorithm in DIGESTS:
        answer = unsigned(bucket, CHUNKS, f"{header(algorithm)}:{checksum(algorithm, b'x')}\r\n", x_amz_trailer=header(algorithm))
        equal((answer.status, code(answer)), (400, "BadDigest"), algorithm)
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_unsigned_trailer_malformed():
    """A malformed checksum in a trailer is 400 InvalidRequest."""
    answer = unsigned(new_bucket(), CHUNKS, "x-amz-checksum-crc32:x\r\n", x_amz_trailer="x-amz-checksum-crc32")
    equal((answer.status, code(answer)), (400, "InvalidRequest"))


def test_unsigned_trailer_missing():
    """A trailer that was announced and does not come is 400 MalformedTrailerError."""
    answer = unsigned(new_bucket(), CHUNKS, "", x_amz_trailer="x-amz-checksum-crc32")
    equal((answer.status, code(answer)), (400, "MalformedTrailerError"))


def test_unsigned_trailer_not_announced():
    """A trailer that is not the one announced is 400 MalformedTrailerError."""
    trailer = f"x-amz-checksum-sha1:{checksum('SHA1', WHOLE)}\r\n"
    answer = unsigned(new_bucket(), CHUNKS, trailer, x_amz_trailer="x-amz-checksum-crc32")
    equal((answer.status, code(answer)), (400, "MalformedTrailerError"))


def test_trailer_and_header():
    """A checksum in a header and another in the trailer are 400 InvalidRequest."""
    trailer = f"x-amz-checksum-sha1:{checksum('SHA1', WHOLE)}\r\n"
    answer = unsigned(new_bucket(), CHUNKS, trailer, x_amz_trailer="x-amz-checksum-sha1", x_amz_checksum_crc32=checksum("CRC32", WHOLE))
    equal((answer.status, code(answer)), (400, "InvalidRequest"))


def test_unsigned_trailer_of_a_part():
    """A part's checksum may be in the trailer too."""
    _, upload = begin("CRC32")
    query = f"?partNumber=1&uploadId={upload['UploadId']}"
    trailer = f"x-amz-checksum-crc32:{checksum('CRC32', WHOLE)}\r\n"
    answer = unsigned(upload["Bucket"], CHUNKS, trailer, query, x_amz_trailer="x-amz-checksum-crc32")
    equal((answer.status, answer.headers.get("x-amz-checksum-crc32")), (200, checksum("CRC32", WHOLE)))


def test_encoding_is_not_kept():
    """aws-chunked is not kept as the object's encoding; what else was said is."""
    bucket = new_bucket()
    trailer = f"x-amz-checksum-crc32:{checksum('CRC32', WHOLE)}\r\n"
    unsigned(bucket, CHUNKS, trailer, x_amz_trailer="x-amz-checksum-crc32")
    assert main.s3.head_object(Bucket=bucket, Key="key").get("ContentEncoding", "") == ""
    equal(unsigned(bucket, CHUNKS, trailer, x_amz_trailer="x-amz-checksum-crc32", Content_Encoding="aws-chunked,gzip").status, 200)
    equal(main.s3.head_object(Bucket=bucket, Key="key")["ContentEncoding"], "gzip")


def test_chunks_cut_short():
    """A body that ends within its chunks is refused with 400, and nothing is written."""
    bucket = new_bucket()
    path = f"/{bucket}/key"
    body = unsigned_chunks(CHUNKS)[:9000]
    headers = declared("PUT", path, body, UNSIGNED_TRAILER, **encoding(WHOLE, x_amz_trailer="x-amz-checksum-crc32"))
    equal(send(path, body, headers).status, 400)
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_decoded_length_wrong():
    """A decoded length that is not that of the chunks is 400 IncompleteBody when it is too long, 400 when it is too short."""
    bucket = new_bucket()
    trailer = f"x-amz-checksum-crc32:{checksum('CRC32', WHOLE)}\r\n"
    said = {"x_amz_trailer": "x-amz-checksum-crc32"}
    answer = unsigned(bucket, CHUNKS, trailer, **said, x_amz_decoded_content_length=str(len(WHOLE) + 1))
    equal((answer.status, code(answer)), (400, "IncompleteBody"))
    equal(unsigned(bucket, CHUNKS, trailer, **said, x_amz_decoded_content_length=str(len(WHOLE) - 1)).status, 400)
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_decoded_length_missing():
    """Chunks without x-amz-decoded-content-length are 411 MissingContentLength."""
    path = f"/{new_bucket()}/key"
    body = unsigned_chunks(CHUNKS, f"x-amz-checksum-crc32:{checksum('CRC32', WHOLE)}\r\n")
    headers = declared("PUT", path, body, UNSIGNED_TRAILER, Content_Encoding="aws-chunked", x_amz_trailer="x-amz-checksum-crc32")
    answer = send(path, body, headers)
    equal((answer.status, code(answer)), (411, "MissingContentLength"))


def test_signed_chunks():
    """Chunks that are signed are taken."""
    bucket = new_bucket()
    answer = in_chunks(bucket, CHUNKS)
    equal(answer.status, 200, answer.data)
    equal(read(main, bucket, "key"), WHOLE)


def test_signed_chunks_empty():
    """An empty body in signed chunks is taken."""
    bucket = new_bucket()
    answer = in_chunks(bucket, [])
    equal(answer.status, 200, answer.data)
    equal(read(main, bucket, "key"), b"")


def test_signed_chunks_with_header():
    """Signed chunks may have a checksum in the header; it is that of the decoded body."""
    bucket = new_bucket()
    equal(in_chunks(bucket, CHUNKS, x_amz_checksum_crc32=checksum("CRC32", WHOLE)).status, 200)
    equal(code(in_chunks(bucket, CHUNKS, x_amz_checksum_crc32=checksum("CRC32", b"x"))), "BadDigest")


def test_signed_chunks_with_md5():
    """Content-MD5 of signed chunks is that of the decoded body."""
    bucket = new_bucket()
    equal(in_chunks(bucket, CHUNKS, Content_MD5=b64(hashlib.md5(WHOLE).digest())).status, 200)
    equal(code(in_chunks(bucket, CHUNKS, Content_MD5=b64(hashlib.md5(b"x").digest()))), "BadDigest")


def test_signed_chunk_wrong():
    """A wrong signature of any chunk, also of the last, empty one, is 403 SignatureDoesNotMatch; nothing is written."""
    bucket = new_bucket()
    for spoil in range(len(CHUNKS) + 1):
        answer = in_chunks(bucket, CHUNKS, spoil=spoil)
        equal((answer.status, code(answer)), (403, "SignatureDoesNotMatch"), spoil)
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_signed_trailer():
    """A signed trailer with a checksum is taken, for each algorithm."""
    bucket = new_bucket()
    for algorithm in DIGESTS:
        answer = in_chunks(bucket, CHUNKS, f"{header(algorithm)}:{checksum(algorithm, WHOLE)}", x_amz_trailer=header(algorithm))
        equal(answer.status, 200, answer.data)
        equal(answer.headers.get(header(algorithm)), checksum(algorithm, WHOLE))


def test_signed_trailer_wrong():
    """A wrong checksum in a signed trailer is 400 BadDigest."""
    answer = in_chunks(new_bucket(), CHUNKS, f"x-amz-checksum-crc32:{checksum('CRC32', b'x')}", x_amz_trailer="x-amz-checksum-crc32")
    equal((answer.status, code(answer)), (400, "BadDigest"))


def test_signed_trailer_signature_wrong():
    """A wrong signature of the trailer is 403 SignatureDoesNotMatch."""
    trailer = f"x-amz-checksum-crc32:{checksum('CRC32', WHOLE)}"
    answer = in_chunks(new_bucket(), CHUNKS, trailer, spoil="trailer", x_amz_trailer="x-amz-checksum-crc32")
    equal((answer.status, code(answer)), (403, "SignatureDoesNotMatch"))


def test_signed_chunk_changed():
    """A chunk whose bytes were changed after it was signed is 403 SignatureDoesNotMatch."""
    path = f"/{new_bucket()}/key"
    said = declared("PUT", path, b"", SIGNED, **encoding(WHOLE))
    answer = send(path, signed_chunks(said, CHUNKS).replace(b"the end", b"the emd"), said)
    equal((answer.status, code(answer)), (403, "SignatureDoesNotMatch"))
