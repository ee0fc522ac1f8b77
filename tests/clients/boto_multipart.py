"""boto3: multipart uploads, their checksums, parts, copies, listings and refusals."""

import base64
import hashlib
import io
import zlib

from boto3.s3.transfer import TransferConfig

from common import *

BUCKET = new_bucket()
MIB = 1 << 20


def create(key, **arguments):
    return dict(Bucket=BUCKET, Key=key, UploadId=s3.create_multipart_upload(Bucket=BUCKET, Key=key, **arguments)["UploadId"])


def part(upload, number, data, **arguments):
    """Uploads a part; what Complete wants to know of it."""
    answer = s3.upload_part(PartNumber=number, Body=data, **upload, **arguments)
    checksums = {name: value for name, value in answer.items() if name.startswith("Checksum") and name != "ChecksumType"}
    return {"PartNumber": number, "ETag": answer["ETag"], **checksums}


def complete(upload, parts, **arguments):
    return s3.complete_multipart_upload(MultipartUpload={"Parts": parts}, **upload, **arguments)


def read(key, **arguments):
    return s3.get_object(Bucket=BUCKET, Key=key, **arguments)["Body"].read()


def etag_of(bodies):
    digests = b"".join(hashlib.md5(data).digest() for data in bodies)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(bodies)}"'


def test_upload_in_any_order_with_gaps():
    bodies = {3: body(3, 5 * MIB), 7: body(7, 6 * MIB + 1), 10000: body(1, 100)}
    upload = create("gaps", ContentType="text/parts", Metadata={"m": "parts"}, Tagging="t=1", CacheControl="no-store")
    parts = {number: part(upload, number, bodies[number]) for number in (10000, 3, 7)}
    refused(404, "NoSuchKey", s3.get_object, Bucket=BUCKET, Key="gaps")
    done = complete(upload, [parts[number] for number in sorted(parts)])
    whole = b"".join(bodies[number] for number in sorted(bodies))
    equal(done["ETag"], etag_of([bodies[number] for number in sorted(bodies)]))
    got = s3.get_object(Bucket=BUCKET, Key="gaps")
    assert got["Body"].read() == whole
    equal((got["ContentType"], got["Metadata"], got["CacheControl"]), ("text/parts", {"m": "parts"}, "no-store"))
    equal(s3.get_object_tagging(Bucket=BUCKET, Key="gaps")["TagSet"], [{"Key": "t", "Value": "1"}])
    for start, stop in [(0, 10), (5 * MIB - 3, 5 * MIB + 3), (11 * MIB - 5, 11 * MIB + 50), (len(whole) - 1, len(whole))]:
        assert read("gaps", Range=f"bytes={start}-{stop - 1}") == whole[start:stop], (start, stop)
    # Parts are numbered anew from 1 when read.
    for number, data in enumerate([bodies[3], bodies[7], bodies[10000]], 1):
        got = s3.get_object(Bucket=BUCKET, Key="gaps", PartNumber=number)
        equal(got["PartsCount"], 3)
        assert got["Body"].read() == data, number
    refused(416, "InvalidPartNumber", s3.get_object, Bucket=BUCKET, Key="gaps", PartNumber=4)


def test_complete_is_retry_safe():
    upload = create("retried")
    parts = [part(upload, 1, b"only")]
    first = complete(upload, parts)
    second = complete(upload, parts)
    equal(first["ETag"], second["ETag"])
    equal(read("retried"), b"only")


def test_a_part_can_be_replaced():
    upload = create("replaced")
    part(upload, 1, body(1, 5 * MIB))
    parts = [part(upload, 1, body(2, 5 * MIB)), part(upload, 2, b"end")]
    complete(upload, parts)
    assert read("replaced") == body(2, 5 * MIB) + b"end"


def test_parts_left_out_are_dropped():
    upload = create("left-out")
    kept = part(upload, 2, b"kept")
    part(upload, 1, b"dropped")
    complete(upload, [kept])
    equal(read("left-out"), b"kept")


def test_refusals():
    upload = create("refusals")
    small, large = part(upload, 1, b"small"), part(upload, 2, body(1, 5 * MIB))
    refused(400, "EntityTooSmall", complete, upload=upload, parts=[small, large])
    refused(400, "InvalidPartOrder", complete, upload=upload, parts=[large, small])
    refused(400, "InvalidPart", complete, upload=upload, parts=[{"PartNumber": 2, "ETag": '"00000000000000000000000000000000"'}])
    refused(400, "InvalidPart", complete, upload=upload, parts=[{"PartNumber": 9, "ETag": small["ETag"]}])
    refused(400, "MalformedXML", complete, upload=upload, parts=[])
    refused(404, "NoSuchUpload", complete, upload={**upload, "Key": "another-key"}, parts=[small])
    refused(404, "NoSuchUpload", complete, upload={**upload, "UploadId": "nonsense"}, parts=[small])
    refused(404, "NoSuchUpload", s3.upload_part, Body=b"", PartNumber=1, **{**upload, "UploadId": "nonsense"})
    for number in (0, 10001, -1):
        refused(400, "InvalidArgument", s3.upload_part, Body=b"", PartNumber=number, **upload)
    complete(upload, [large])
    refused(404, "NoSuchBucket", s3.create_multipart_upload, Bucket="no-such-bucket-here", Key="k")


def test_abort():
    upload = create("aborted")
    part(upload, 1, body(1, 6 * MIB))
    s3.abort_multipart_upload(**upload)
    refused(404, "NoSuchUpload", s3.abort_multipart_upload, **upload)
    refused(404, "NoSuchUpload", s3.list_parts, **upload)
    refused(404, "NoSuchUpload", s3.upload_part, Body=b"", PartNumber=1, **upload)
    refused(404, "NoSuchKey", s3.get_object, Bucket=BUCKET, Key="aborted")


def test_list_parts_by_page():
    upload = create("many-parts")
    numbers = [1, 2, 3, 10, 99, 1000, 10000]
    parts = {number: part(upload, number, b"%d" % number) for number in numbers}
    for page_size in (1, 2, 3, 7, 1000):
        listed = [row for page in s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": page_size}) for row in page["Parts"]]
        equal([(row["PartNumber"], row["ETag"], row["Size"]) for row in listed], [(n, parts[n]["ETag"], len(str(n))) for n in numbers], page_size)
    s3.abort_multipart_upload(**upload)


def test_list_uploads_by_page():
    bucket = new_bucket()
    keys = ["a", "a", "a", "b/1", "b/2", "c d", "ä"]
    made = [(key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]) for key in keys]
    wanted = sorted(made, key=lambda row: row[0].encode())
    for page_size in (1, 2, 3, 1000):
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": page_size})
        listed = [(row["Key"], row["UploadId"]) for page in pages for row in page.get("Uploads", [])]
        equal([key for key, _ in listed], [key for key, _ in wanted], page_size)
        equal(sorted(listed), sorted(wanted), page_size)
    page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    equal([row["Prefix"] for row in page["CommonPrefixes"]], ["b/"])
    equal([row["Key"] for row in s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")["Uploads"]], ["b/1", "b/2"])
    for key, upload in made:
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    s3.delete_bucket(Bucket=bucket)


def test_part_copies():
    data = body(42, 12 * MIB)
    s3.put_object(Bucket=BUCKET, Key="part-source", Body=data)
    source = {"Bucket": BUCKET, "Key": "part-source"}
    upload = create("part-copied")

    def copy_part(number, **arguments):
        answer = s3.upload_part_copy(PartNumber=number, CopySource=source, **upload, **arguments)["CopyPartResult"]
        return {"PartNumber": number, "ETag": answer["ETag"]}

    parts = [copy_part(1), copy_part(2, CopySourceRange=f"bytes=3-{5 * MIB + 10}"), part(upload, 3, b"tail")]
    equal(parts[0]["ETag"], '"' + hashlib.md5(data).hexdigest() + '"')
    refused((400, 416), ("InvalidRange", "InvalidArgument", "InvalidRequest"), s3.upload_part_copy, PartNumber=4, CopySource=source, CopySourceRange=f"bytes=0-{13 * MIB}", **upload)
    refused(404, "NoSuchKey", s3.upload_part_copy, PartNumber=4, CopySource={"Bucket": BUCKET, "Key": "missing"}, **upload)
    refused(412, "PreconditionFailed", s3.upload_part_copy, PartNumber=4, CopySource=source, CopySourceIfMatch='"x"', **upload)
    complete(upload, parts)
    s3.delete_object(**source)
    assert read("part-copied") == data + data[3 : 5 * MIB + 11] + b"tail"


def test_copy_of_a_multipart_object():
    bodies = [body(1, 5 * MIB), b"end"]
    upload = create("copied-whole")
    complete(upload, [part(upload, number, data) for number, data in enumerate(bodies, 1)])
    s3.copy_object(Bucket=BUCKET, Key="copied-whole-2", CopySource={"Bucket": BUCKET, "Key": "copied-whole"})
    s3.delete_object(Bucket=BUCKET, Key="copied-whole")
    assert read("copied-whole-2") == b"".join(bodies)


def crc32(data):
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def composite(algorithm, bodies):
    digests = b"".join(algorithm(data) for data in bodies)
    return base64.b64encode(algorithm(digests)).decode() + f"-{len(bodies)}"


def test_composite_checksums():
    bodies = [body(1, 5 * MIB), body(2, 5 * MIB + 9), b"end"]
    functions = {
        "SHA256": lambda data: hashlib.sha256(data).digest(),
        "SHA1": lambda data: hashlib.sha1(data).digest(),
        "CRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    }
    for algorithm, function in functions.items():
        upload = create("composite", ChecksumAlgorithm=algorithm, ChecksumType="COMPOSITE")
        parts = [part(upload, number, data, ChecksumAlgorithm=algorithm) for number, data in enumerate(bodies, 1)]
        done = complete(upload, parts)
        wanted, name = composite(function, bodies), "Checksum" + algorithm
        equal((done[name], done["ChecksumType"]), (wanted, "COMPOSITE"), algorithm)
        got = s3.head_object(Bucket=BUCKET, Key="composite", ChecksumMode="ENABLED")
        equal((got[name], got["ChecksumType"]), (wanted, "COMPOSITE"), algorithm)
        assert read("composite", ChecksumMode="ENABLED") == b"".join(bodies)
        attributes = s3.get_object_attributes(Bucket=BUCKET, Key="composite", ObjectAttributes=["Checksum", "ObjectParts", "ObjectSize"])
        equal(attributes["ObjectParts"]["TotalPartsCount"], 3)
        equal([row[name] for row in attributes["ObjectParts"]["Parts"]], [row[name] for row in parts], algorithm)
        equal(attributes["ObjectSize"], sum(map(len, bodies)))


def test_full_object_checksums():
    from awscrt import checksums as crt

    bodies = [body(1, 5 * MIB), body(2, 5 * MIB + 9), b"end"]
    whole = b"".join(bodies)
    wanted = {
        "CRC32": crc32(whole),
        "CRC32C": base64.b64encode(crt.crc32c(whole).to_bytes(4, "big")).decode(),
        "CRC64NVME": base64.b64encode(crt.crc64nvme(whole).to_bytes(8, "big")).decode(),
    }
    for algorithm, checksum in wanted.items():
        name = "Checksum" + algorithm
        upload = create("full", ChecksumAlgorithm=algorithm, ChecksumType="FULL_OBJECT")
        parts = [part(upload, number, data, ChecksumAlgorithm=algorithm) for number, data in enumerate(bodies, 1)]
        refused(400, "BadDigest", complete, upload=upload, parts=parts, **{name: wanted_of(b"x", algorithm, crt)}, ChecksumType="FULL_OBJECT")
        done = complete(upload, parts, **{name: checksum}, ChecksumType="FULL_OBJECT")
        equal((done[name], done["ChecksumType"]), (checksum, "FULL_OBJECT"), algorithm)
        got = s3.get_object(Bucket=BUCKET, Key="full", ChecksumMode="ENABLED")
        equal(got[name], checksum)
        assert got["Body"].read() == whole
    refused(400, "InvalidRequest", s3.create_multipart_upload, Bucket=BUCKET, Key="x", ChecksumAlgorithm="SHA1", ChecksumType="FULL_OBJECT")


def wanted_of(data, algorithm, crt):
    number = {"CRC32": zlib.crc32, "CRC32C": crt.crc32c, "CRC64NVME": crt.crc64nvme}[algorithm](data)
    return base64.b64encode(number.to_bytes(8 if algorithm == "CRC64NVME" else 4, "big")).decode()


def test_part_checksum_mismatch():
    upload = create("part-sums", ChecksumAlgorithm="CRC32")
    refused(400, "BadDigest", s3.upload_part, PartNumber=1, Body=b"data", ChecksumCRC32=crc32(b"other"), **upload)
    good = part(upload, 1, b"data", ChecksumCRC32=crc32(b"data"))
    refused(400, ("InvalidPart", "BadDigest"), complete, upload=upload, parts=[{**good, "ChecksumCRC32": crc32(b"other")}])
    complete(upload, [good])


def test_conditional_complete():
    key = "conditional-complete"
    upload = create(key)
    etag = complete(upload, [part(upload, 1, b"first")], IfNoneMatch="*")["ETag"]
    upload = create(key)
    parts = [part(upload, 1, b"second")]
    refused(412, "PreconditionFailed", complete, upload=upload, parts=parts, IfNoneMatch="*")
    refused(412, "PreconditionFailed", complete, upload=upload, parts=parts, IfMatch='"00000000000000000000000000000000"')
    complete(upload, parts, IfMatch=etag)
    equal(read(key), b"second")


def test_transfer_manager():
    """Threads, parts of 8 MiB, default checksums: how most programs upload."""
    data = body(77, 40 * MIB + 12345)
    config = TransferConfig(multipart_threshold=8 * MIB, multipart_chunksize=8 * MIB, max_concurrency=8)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, "transferred", Config=config)
    sink = io.BytesIO()
    s3.download_fileobj(BUCKET, "transferred", sink, Config=config)
    assert sink.getvalue() == data
    s3.copy({"Bucket": BUCKET, "Key": "transferred"}, BUCKET, "transferred-copy", Config=config)
    assert read("transferred-copy") == data


run(globals())
