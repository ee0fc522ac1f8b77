"""Objects: PutObject, GetObject, HeadObject, DeleteObject, DeleteObjects, GetObjectAttributes, GetObjectAcl and PutObjectAcl."""

import base64
import gzip
import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.header import decode_header, make_header
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from support import *


def shared(key="key", body=b"body", **arguments):
    """A bucket of main's with one object."""
    bucket = new_bucket()
    put(bucket, key, body, **arguments)
    return bucket


def head(bucket, key="key", who=main, **arguments):
    return who.s3.head_object(Bucket=bucket, Key=key, **arguments)


def headers(answer):
    return answer["ResponseMetadata"]["HTTPHeaders"]


def keys(bucket, **arguments):
    return [row["Key"] for row in main.s3.list_objects_v2(Bucket=bucket, **arguments).get("Contents", [])]


def equal_code(answer, status, wanted):
    equal((answer.status, code(answer)), (status, wanted))


def etag(body):
    return f'"{hashlib.md5(body).hexdigest()}"'


def md5(body):
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def pattern(size):
    """Bytes that differ from place to place."""
    block = b"".join(n.to_bytes(4, "big") for n in range(4096))
    return (block * (size // len(block) + 1))[:size]


def versioned():
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


# --- bodies


def kept(*sizes):
    """A body of each size is kept: its bytes, its length, its MD5 for ETag, in PUT, GET, HEAD and the listing."""
    bucket = new_bucket()
    for size in sizes:
        body = pattern(size)
        equal(put(bucket, "key", body)["ETag"], etag(body))
        answer = main.s3.get_object(Bucket=bucket, Key="key")
        assert answer["Body"].read() == body, size
        for told in (answer, head(bucket)):
            equal((told["ContentLength"], told["ETag"]), (size, etag(body)))
        row = main.s3.list_objects_v2(Bucket=bucket)["Contents"][0]
        equal((row["Size"], row["ETag"]), (size, etag(body)))


def test_empty_body():
    """An object may be empty."""
    kept(0)


def test_body_of_one_byte():
    """An object of one byte."""
    kept(1)


def test_bodies_around_8_kib():
    """Bodies of 8191, 8192 and 8193 bytes."""
    kept(8191, 8192, 8193)


def test_bodies_around_64_kib():
    """Bodies of 65535, 65536 and 65537 bytes."""
    kept(65535, 65536, 65537)


def test_bodies_around_1_mib():
    """Bodies of a MiB, and of a byte less and more."""
    kept((1 << 20) - 1, 1 << 20, (1 << 20) + 1)


def test_body_of_some_mib():
    """A body of five MiB and three bytes."""
    kept((5 << 20) + 3)


def test_body_of_zeros():
    """A body of nothing but zeros is as good as any."""
    body = bytes(300_000)
    bucket = shared(body=body)
    assert read(main, bucket, "key") == body


def test_body_that_is_compressed():
    """Nothing is unpacked: what was put with Content-Encoding is got as it was put."""
    body = gzip.compress(pattern(10000))
    bucket = shared(body=body, ContentEncoding="gzip")
    answer = fetch("GET", main.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"}), decode_content=False)
    equal((answer.data, answer.headers["content-encoding"], answer.headers["content-length"]), (body, "gzip", str(len(body))))


def test_body_without_a_length():
    """A PUT that says not how long its body is: 411 MissingContentLength."""
    bucket = new_bucket()
    url = main.s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "key"})
    equal_code(fetch("PUT", url, body=iter([b"bo", b"dy"])), 411, "MissingContentLength")
    equal(keys(bucket), [])


def test_content_md5():
    """A Content-MD5 that is the body's is taken."""
    shared(ContentMD5=md5(b"body"))


def test_content_md5_of_another_body():
    """A Content-MD5 that is not the body's: 400 BadDigest, and there is no object."""
    bucket = new_bucket()
    refused(400, "BadDigest", main.s3.put_object, Bucket=bucket, Key="key", Body=b"body", ContentMD5=md5(b"other"))
    equal(keys(bucket), [])


def test_content_md5_that_is_none():
    """A Content-MD5 that is none: 400 InvalidDigest."""
    bucket = new_bucket()
    for digest in ("none", "", base64.b64encode(b"too short").decode()):
        equal_code(signed("PUT", f"/{bucket}/key", b"body", Content_MD5=digest), 400, "InvalidDigest")
    equal(keys(bucket), [])


def test_a_bad_digest_keeps_the_former():
    """What is refused leaves what was there."""
    bucket = shared()
    refused(400, "BadDigest", main.s3.put_object, Bucket=bucket, Key="key", Body=b"new", ContentMD5=md5(b"other"))
    equal(read(main, bucket, "key"), b"body")


def test_body_of_another_hash():
    """A body that is not the one that was signed: 400 XAmzContentSHA256Mismatch, and what was there stays."""
    bucket = shared()
    request = AWSRequest("PUT", f"{ENDPOINT}/{bucket}/key", data=b"signed")
    S3SigV4Auth(Credentials(main.key, main.secret), "s3", main.s3.meta.region_name).add_auth(request)
    equal_code(fetch("PUT", request.url, body=b"forged", headers=dict(request.headers)), 400, "XAmzContentSHA256Mismatch")
    equal(read(main, bucket, "key"), b"body")


def test_checksum():
    """A checksum that comes along is kept, and told to who asks for it."""
    bucket = shared(ChecksumCRC32=base64.b64encode(zlib.crc32(b"body").to_bytes(4, "big")).decode())
    answer = head(bucket, ChecksumMode="ENABLED")
    equal(base64.b64decode(answer["ChecksumCRC32"]), zlib.crc32(b"body").to_bytes(4, "big"))
    assert "ChecksumCRC32" not in head(bucket)


def test_checksum_of_another_body():
    """A checksum that is not the body's: 400 BadDigest, and there is no object."""
    bucket = new_bucket()
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    refused(400, "BadDigest", main.s3.put_object, Bucket=bucket, Key="key", Body=b"body", ChecksumSHA256=other)
    equal(keys(bucket), [])


# --- keys


def round_trip(*names):
    """An object by each of these keys is put, got, listed and deleted, and is no other's."""
    bucket = new_bucket()
    for name in names:
        put(bucket, name, name.encode())
    for name in names:
        equal(read(main, bucket, name), name.encode(), name)
    equal(keys(bucket), sorted(names, key=str.encode))
    for name in names:
        main.s3.delete_object(Bucket=bucket, Key=name)
        refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key=name)
    equal(keys(bucket), [])


def test_keys_of_other_alphabets():
    """Keys are any Unicode, and are listed in the order of their UTF-8 bytes."""
    round_trip("ключ", "鍵", "مفتاح", "größe", "😀", "\uffee", "z", "é")


def test_keys_are_not_normalized():
    """A letter composed and decomposed is two keys."""
    round_trip("\u00e9", "e\u0301")


def test_keys_with_spaces():
    """Spaces, anywhere, and many."""
    round_trip("a b", " a", "a ", "a  b", " ", "a+b")


def test_keys_with_slashes():
    """Slashes at either end, and several of them, are parts of a key."""
    round_trip("a//b", "a/b", "a///b", "/a", "//a", "a/", "a//", "/")


def test_keys_with_dots():
    """Dots are parts of a key and lead nowhere."""
    round_trip(".", "..", "a/../b", "a/./b", "b", "../b", "a/..", "...", ".hidden")


def test_keys_with_plus_and_percent():
    """Plus, percent and what looks encoded."""
    round_trip("a+b", "a%2Fb", "a/b", "100%", "%", "%20", " ", "a%zz", "a%2525")


def test_keys_with_safe_and_special_characters():
    """The characters that the User Guide calls safe, to be handled with care and to be avoided."""
    round_trip(*(f"k{character}k" for character in "!-_.*'()&$@=;:+ ,?\\{^}%`]\">[~<#|"))


def test_keys_like_sub_resources():
    """A key may look like a query or a sub-resource."""
    round_trip("a?acl", "?tagging", "a?versionId=null", "a&b=c", "a#b")


def test_keys_with_control_characters():
    """Control characters are parts of a key too; a listing with encoding-type=url tells them."""
    round_trip("a\x01b", "a\tb", "a\nb", "a\rb", "a\x7fb", "a\x1fb")


def test_keys_differ_in_case():
    """Keys are case-sensitive."""
    round_trip("key", "Key", "KEY")


def test_keys_with_a_trailing_slash():
    """A key that ends in a slash has a body as any; it and the key without it are two, and what is under it is a third."""
    round_trip("a", "a/", "a/b")


def test_key_of_1024_bytes():
    """A key has up to 1024 bytes of UTF-8."""
    round_trip("k" * 1024, "ä" * 512, "/".join(["d" * 31] * 32))


def too_long(key):
    bucket = new_bucket()
    error = refused(400, "KeyTooLongError", main.s3.put_object, Bucket=bucket, Key=key, Body=b"x")["Error"]
    equal((error["Size"], error["MaxSizeAllowed"]), (str(len(key.encode())), "1024"))
    equal(keys(bucket), [])


def test_key_of_1025_bytes():
    """A longer one is 400 KeyTooLongError, with its size and the limit."""
    too_long("k" * 1025)


def test_key_of_too_many_bytes():
    """Bytes are counted, not characters."""
    too_long("ä" * 512 + "a")


def test_key_that_is_not_utf_8():
    """A key that is no UTF-8: 400, and there is no object."""
    bucket = new_bucket()
    equal(signed("PUT", f"/{bucket}/%ff%fe", b"x").status, 400)
    equal(keys(bucket), [])


def test_listing_encoded():
    """encoding-type=url encodes keys and prefixes as the API Reference's example does, and says so."""
    names = ["test_file(3).png", "a b", "a\x01b", "ä", "a+b", "d/a&b"]
    bucket = new_bucket()
    for name in names:
        put(bucket, name)
    answer = signed("GET", f"/{bucket}?encoding-type=url&list-type=2")
    text = answer.data.decode()
    assert "<EncodingType>url</EncodingType>" in text, text
    assert "<Key>test_file%283%29.png</Key>" in text, text
    assert "<Key>a%01b</Key>" in text and "<Key>d/a%26b</Key>" in text, text
    got = [unquote_plus(part.partition("</Key>")[0]) for part in text.split("<Key>")[1:]]
    equal(sorted(got), sorted(names))


def test_listing_without_encoding():
    """Without it, keys are escaped as XML wants it."""
    bucket = shared("a&b<c>\"d'")
    text = signed("GET", f"/{bucket}?list-type=2").data.decode()
    assert "<EncodingType>" not in text and "<Key>a&amp;b&lt;c" in text, text


def test_path_in_lower_case_encoding():
    """A path may be encoded in lower case, and more than it need be."""
    bucket = shared("ä/b")
    url = main.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "ä/b"})
    equal(fetch("GET", url).data, b"body")
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    for path in ("%c3%a4/b", "%C3%A4/b", "%c3%a4%2fb", "%c3%a4/%62"):
        equal(raw("GET", f"/{bucket}/{path}").data, b"body", path)


# --- user metadata


def signed_bytes(method, path, body=b"", **more):
    """As `signed`, with headers in UTF-8 as they stand: urllib3 would send Latin-1."""
    request = AWSRequest(method, ENDPOINT + path, data=body, headers={name.replace("_", "-"): value for name, value in more.items()})
    S3SigV4Auth(Credentials(main.key, main.secret), "s3", main.s3.meta.region_name).add_auth(request)
    return fetch(method, ENDPOINT + path, body=body, headers={name: value.encode() for name, value in request.headers.items()})


def test_metadata():
    """What is put as x-amz-meta-… comes with GET and HEAD."""
    bucket = shared(Metadata={"one": "1", "two": "second value"})
    equal(head(bucket)["Metadata"], {"one": "1", "two": "second value"})
    equal(main.s3.get_object(Bucket=bucket, Key="key")["Metadata"], {"one": "1", "two": "second value"})


def test_metadata_none():
    """An object without any has none."""
    equal(head(shared())["Metadata"], {})


def test_metadata_names_are_lower_case():
    """Names are stored in lower case; values as they are."""
    bucket = shared(Metadata={"MixedCase": "MixedValue"})
    names = {name: value for name, value in signed("HEAD", f"/{bucket}/key").headers.items() if "mixed" in name.lower()}
    equal(names, {"x-amz-meta-mixedcase": "MixedValue"})


def test_metadata_is_replaced():
    """Another PUT leaves none of the former object's metadata."""
    bucket = shared(Metadata={"one": "1", "two": "2"})
    put(bucket, "key", Metadata={"three": "3"})
    equal(head(bucket)["Metadata"], {"three": "3"})
    put(bucket, "key")
    equal(head(bucket)["Metadata"], {})


def test_metadata_of_visible_characters():
    """Every visible character of ASCII, and spaces within, are kept."""
    value = "".join(chr(n) for n in range(33, 127)) + " a b"
    equal(head(shared(Metadata={"value": value}))["Metadata"], {"value": value})


def test_metadata_that_is_empty():
    """A value may be empty."""
    equal(head(shared(Metadata={"empty": "", "full": "x"}))["Metadata"], {"empty": "", "full": "x"})


def test_metadata_in_utf_8():
    """A value in UTF-8 is told as RFC 2047 says, since it is not printable ASCII."""
    bucket = new_bucket()
    equal(signed_bytes("PUT", f"/{bucket}/key", b"x", x_amz_meta_name="größe 鍵").status, 200)
    told = signed("HEAD", f"/{bucket}/key").headers["x-amz-meta-name"]
    assert told.isascii() and told.startswith("=?") and told.endswith("?="), told
    # The User Guide's example takes the bytes of UTF-8 for those of Latin-1.
    assert str(make_header(decode_header(told))) in ("größe 鍵", "größe 鍵".encode().decode("latin-1")), told


def test_metadata_in_rfc_2047():
    """A value that a client encoded so means the same when it comes back."""
    encoded = "=?UTF-8?B?" + base64.b64encode("größe 鍵".encode()).decode() + "?="
    told = head(shared(Metadata={"name": encoded}))["Metadata"]["name"]
    equal(str(make_header(decode_header(told))), "größe 鍵")


def test_metadata_of_2_kib():
    """Names and values may have 2 KB together."""
    value = "v" * (2048 - len("one") - len("two") - 3)
    equal(head(shared(Metadata={"one": "abc", "two": value}))["Metadata"], {"one": "abc", "two": value})


def test_metadata_too_large():
    """A byte more is 400 MetadataTooLarge, with the size and the limit, and there is no object."""
    bucket = new_bucket()
    metadata = {"one": "abc", "two": "v" * (2049 - len("one") - len("two") - 3)}
    error = refused(400, "MetadataTooLarge", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", Metadata=metadata)["Error"]
    equal((error["Size"], error["MaxSizeAllowed"]), ("2049", "2048"))
    equal(keys(bucket), [])


def test_metadata_names_count():
    """Names count as values do."""
    bucket = new_bucket()
    metadata = {f"name-of-a-value-{n:04}": "" for n in range(110)}
    refused(400, "MetadataTooLarge", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", Metadata=metadata)


def test_metadata_of_many_names():
    """There may be many of them, as long as they are small."""
    metadata = {f"n{n:03}": str(n) for n in range(80)}  # Python takes 100 headers.
    equal(head(shared(Metadata=metadata))["Metadata"], metadata)


def test_tag_count():
    """GET and HEAD tell how many tags an object has, if it has any."""
    bucket = shared(Tagging="a=1&b=2")
    equal((main.s3.get_object(Bucket=bucket, Key="key")["TagCount"], headers(head(bucket))["x-amz-tagging-count"]), (2, "2"))
    put(bucket, "key")
    assert "TagCount" not in main.s3.get_object(Bucket=bucket, Key="key")


# --- headers that are kept


def test_default_content_type():
    """An object that came without a Content-Type is binary/octet-stream."""
    bucket = shared()
    equal((head(bucket)["ContentType"], main.s3.get_object(Bucket=bucket, Key="key")["ContentType"]), ("binary/octet-stream",) * 2)


def test_kept_headers():
    """Content-Type, Cache-Control, Content-Disposition, Content-Encoding, Content-Language and Expires come back as they were put."""
    given = {"content-type": "text/plain; charset=utf-8", "cache-control": "max-age=60, private", "content-language": "de-AT, en",
             "content-disposition": 'attachment; filename="a b.txt"', "content-encoding": "x-own", "expires": "Thu, 01 Dec 2033 16:00:00 GMT"}
    bucket = new_bucket()
    equal(signed("PUT", f"/{bucket}/key", b"body", **given).status, 200)
    for method in ("GET", "HEAD"):
        told = signed(method, f"/{bucket}/key").headers
        equal({name: told.get(name) for name in given}, given, method)


def test_kept_headers_are_replaced():
    """Another PUT leaves none of the former object's headers."""
    bucket = shared(ContentType="text/plain", CacheControl="no-cache", ContentLanguage="de", ContentDisposition="inline")
    put(bucket, "key")
    answer = head(bucket)
    equal(answer["ContentType"], "binary/octet-stream")
    for name in ("CacheControl", "ContentLanguage", "ContentDisposition", "ContentEncoding", "ExpiresString"):
        assert name not in answer, (name, answer)


def test_expires_that_is_no_date():
    """Expires is kept as it stands, a date or not."""
    bucket = new_bucket()
    equal(signed("PUT", f"/{bucket}/key", b"x", expires="never").status, 200)
    equal(signed("HEAD", f"/{bucket}/key").headers["expires"], "never")


def test_content_encoding_of_the_transfer():
    """aws-chunked is how a body travels, and no part of the object's Content-Encoding."""
    # boto3 sends its checksum in a trailer, for which it encodes the body.
    bucket = shared(ContentEncoding="gzip")
    equal(head(bucket)["ContentEncoding"], "gzip")
    put(bucket, "plain", ChecksumAlgorithm="CRC32")
    assert "ContentEncoding" not in head(bucket, "plain"), head(bucket, "plain")


def test_website_redirect():
    """The redirect of a website is kept and told."""
    for location in ("/elsewhere.html", "http://example.com/a", "https://example.com/b?c=d"):
        bucket = shared(WebsiteRedirectLocation=location)
        equal(head(bucket)["WebsiteRedirectLocation"], location)
        equal(main.s3.get_object(Bucket=bucket, Key="key")["WebsiteRedirectLocation"], location)
    assert "WebsiteRedirectLocation" not in head(shared())


def test_website_redirect_too_long():
    """A redirect has up to 2 KB: a longer one is 400, and there is no object."""
    bucket = new_bucket()
    answer = signed("PUT", f"/{bucket}/key", b"x", x_amz_website_redirect_location="/" + "a" * 2048)
    equal((answer.status, keys(bucket)), (400, []), code(answer))


def test_website_redirect_elsewhere():
    """A redirect begins with /, http:// or https://: anything else is 400 InvalidRedirectLocation."""
    bucket = new_bucket()
    for location in ("elsewhere.html", "ftp://example.com/"):
        refused(400, "InvalidRedirectLocation", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", WebsiteRedirectLocation=location)
    equal(keys(bucket), [])


# --- response-…


OVERRIDES = {"ResponseContentType": "text/x-other", "ResponseContentLanguage": "fr", "ResponseExpires": "Thu, 01 Dec 2033 16:00:00 GMT",
             "ResponseCacheControl": "no-store", "ResponseContentDisposition": 'attachment; filename="ä.txt"', "ResponseContentEncoding": "x-other"}
OVERRIDDEN = {"content-type": "text/x-other", "content-language": "fr", "expires": "Thu, 01 Dec 2033 16:00:00 GMT",
              "cache-control": "no-store", "content-encoding": "x-other"}


def test_response_headers():
    """response-… of a GET replaces what the object has, for that answer."""
    bucket = shared(ContentType="text/plain", CacheControl="no-cache")
    told = headers(main.s3.get_object(Bucket=bucket, Key="key", **OVERRIDES))
    equal({name: told.get(name) for name in OVERRIDDEN}, OVERRIDDEN)
    assert told["content-disposition"].startswith("attachment"), told
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    equal((answer["ContentType"], answer["CacheControl"]), ("text/plain", "no-cache"))


def test_response_headers_of_head():
    """HEAD takes them too."""
    answer = head(shared(), ResponseContentType="text/x-other", ResponseContentLanguage="fr")
    equal((answer["ContentType"], answer["ContentLanguage"]), ("text/x-other", "fr"))


def test_response_headers_of_a_range():
    """They go with a range."""
    answer = main.s3.get_object(Bucket=shared(), Key="key", Range="bytes=0-1", ResponseContentType="text/x-other")
    equal((status(answer), answer["ContentType"], answer["Body"].read()), (206, "text/x-other", b"bo"))


def test_response_headers_presigned():
    """They are part of what a presigned URL signs: who changes one is refused."""
    bucket = shared()
    url = main.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key", "ResponseContentType": "text/good"})
    equal(fetch("GET", url).headers["content-type"], "text/good")
    equal_code(fetch("GET", url.replace("text%2Fgood", "text%2Fevil")), 403, "SignatureDoesNotMatch")


def test_response_headers_anonymously():
    """Who has no key may not use them, though the object is public: 400 InvalidRequest."""
    bucket = shared()
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    equal(raw("GET", f"/{bucket}/key").status, 200)
    for name in ("content-type", "content-language", "expires", "cache-control", "content-disposition", "content-encoding"):
        equal_code(raw("GET", f"/{bucket}/key?response-{name}=x"), 400, "InvalidRequest")


def test_response_headers_of_an_error():
    """An error is XML whatever they say."""
    answer = signed("GET", f"/{new_bucket()}/missing?response-content-type=text%2Fhtml")
    equal((answer.status, answer.headers["content-type"]), (404, "application/xml"))


# --- ranges


def ranged(text, size=10, **arguments):
    """The answer to a range of an object, and its body."""
    answer = main.s3.get_object(Bucket=shared(body=pattern(size)), Key="key", Range=text, **arguments)
    return answer, answer["Body"].read()


def is_range(text, first, last, size=10):
    answer, body = ranged(text, size)
    wanted = (206, f"bytes {first}-{last}/{size}", last - first + 1)
    equal((status(answer), answer["ContentRange"], answer["ContentLength"]), wanted, text)
    assert body == pattern(size)[first:last + 1], text


def is_whole(text, size=10):
    answer, body = ranged(text, size)
    equal((status(answer), body, answer.get("ContentRange")), (200, pattern(size), None), text)


def test_range_at_the_beginning():
    """The first bytes: 206 with Content-Range and Content-Length."""
    is_range("bytes=0-0", 0, 0)
    is_range("bytes=0-4", 0, 4)


def test_range_in_the_middle():
    """Some bytes in the middle."""
    is_range("bytes=3-6", 3, 6)


def test_range_to_the_end():
    """From a byte to the end, and the last byte."""
    is_range("bytes=4-", 4, 9)
    is_range("bytes=9-9", 9, 9)
    is_range("bytes=9-", 9, 9)


def test_range_of_everything():
    """A range of all bytes is a range: 206."""
    is_range("bytes=0-", 0, 9)
    is_range("bytes=0-9", 0, 9)


def test_range_past_the_end():
    """A range that goes past the end ends with the object."""
    is_range("bytes=5-100", 5, 9)
    is_range("bytes=9-18446744073709551615", 9, 9)


def test_range_of_the_last_bytes():
    """A suffix: the last bytes, or all if there are fewer."""
    is_range("bytes=-1", 9, 9)
    is_range("bytes=-4", 6, 9)
    is_range("bytes=-100", 0, 9)


def test_range_of_a_large_object():
    """Ranges across what is a block to a disk."""
    size = (3 << 20) + 5
    bucket = shared(body=pattern(size))
    for first, last in ((8190, 8193), (65535, 65536), (1048575, 2097153), (size - 2, size - 1), (1, size - 1)):
        answer = main.s3.get_object(Bucket=bucket, Key="key", Range=f"bytes={first}-{last}")
        equal(answer["ContentRange"], f"bytes {first}-{last}/{size}")
        assert answer["Body"].read() == pattern(size)[first:last + 1], (first, last)


def no_range(body, text):
    bucket = shared(body=body)
    error = refused(416, "InvalidRange", main.s3.get_object, Bucket=bucket, Key="key", Range=text)
    equal((error["Error"]["ActualObjectSize"], error["Error"]["RangeRequested"]), (str(len(body)), text))
    equal(headers(error)["content-range"], f"bytes */{len(body)}")
    refused(416, "InvalidRange", main.s3.head_object, Bucket=bucket, Key="key", Range=text)


def test_range_beyond_the_end():
    """A range that begins past the end: 416 InvalidRange, with the size, what was asked, and Content-Range."""
    no_range(b"body", "bytes=4-")
    no_range(b"body", "bytes=100-200")


def test_range_of_no_bytes():
    """The last 0 bytes are none: 416 InvalidRange."""
    no_range(b"body", "bytes=-0")


def test_range_of_an_empty_object():
    """An empty object has no first byte: 416 InvalidRange."""
    no_range(b"", "bytes=0-")
    no_range(b"", "bytes=0-0")


def test_range_malformed():
    """A range that is none is ignored: 200 with everything."""
    for text in ("bytes=a-b", "bytes=", "bytes", "bytes=-", "0-4", "items=0-4", "bytes=0", "bytes=4-2"):
        is_whole(text)


def test_range_of_several():
    """S3 gives no more than one range of a GET: several are ignored."""
    is_whole("bytes=0-1,4-5")


def test_range_of_head():
    """HEAD of a range: 206, Content-Range, the range's length, and no body."""
    answer = signed("HEAD", f"/{shared()}/key", range="bytes=1-2")
    told = answer.headers
    equal((answer.status, told["content-range"], told["content-length"], answer.data), (206, "bytes 1-2/4", "2", b""))


def test_range_tells_the_whole_objects_etag():
    """ETag, Last-Modified and metadata of a range are the object's."""
    answer, _ = ranged("bytes=1-2")
    equal(answer["ETag"], etag(pattern(10)))
    assert answer["LastModified"] and answer["AcceptRanges"] == "bytes", answer


def test_part_number():
    """An object that was put at once has one part: partNumber=1 is all of it, with 206; another one is 416."""
    bucket = shared()
    answer = main.s3.get_object(Bucket=bucket, Key="key", PartNumber=1)
    equal((status(answer), answer["Body"].read()), (206, b"body"))
    refused(416, "InvalidPartNumber", main.s3.get_object, Bucket=bucket, Key="key", PartNumber=2)


def test_part_number_and_range():
    """Both at once: 400 InvalidRequest."""
    refused(400, "InvalidRequest", main.s3.get_object, Bucket=shared(), Key="key", PartNumber=1, Range="bytes=0-1")


def test_part_number_out_of_range():
    """A part's number is 1 to 10000: 400 InvalidArgument."""
    bucket = shared()
    for number in (0, -1, 10001):
        refused(400, "InvalidArgument", main.s3.get_object, Bucket=bucket, Key="key", PartNumber=number)


# --- what GET and HEAD tell


def test_head():
    """HEAD tells what GET does and has no body."""
    bucket = shared(ContentType="text/plain", Metadata={"a": "b"})
    got, told = (signed(method, f"/{bucket}/key") for method in ("GET", "HEAD"))
    equal((told.status, told.data, got.data), (200, b"", b"body"))
    passing = {"date", "x-amz-request-id", "x-amz-id-2", "connection", "keep-alive"}
    of = [{name.lower(): value for name, value in answer.headers.items() if name.lower() not in passing} for answer in (got, told)]
    equal(of[0], of[1])


def test_accept_ranges():
    """GET and HEAD say that ranges are taken."""
    bucket = shared()
    equal((head(bucket)["AcceptRanges"], main.s3.get_object(Bucket=bucket, Key="key")["AcceptRanges"]), ("bytes", "bytes"))


def test_last_modified():
    """Last-Modified is the time of the PUT, in whole seconds of GMT; listings tell the same time."""
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    bucket = shared()
    after = datetime.now(timezone.utc) + timedelta(seconds=5)
    answer = head(bucket)
    assert before <= answer["LastModified"] <= after, answer
    datetime.strptime(headers(answer)["last-modified"], "%a, %d %b %Y %H:%M:%S GMT")
    row = main.s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    equal(row["LastModified"].replace(microsecond=0), answer["LastModified"])


def test_unversioned_tells_no_version():
    """Where there is no versioning, no answer names a version."""
    bucket = new_bucket()
    for answer in (put(bucket, "key"), head(bucket), main.s3.get_object(Bucket=bucket, Key="key"),
                   main.s3.delete_object(Bucket=bucket, Key="key")):
        assert "VersionId" not in answer and "DeleteMarker" not in answer, answer


def test_no_such_key():
    """An object that is not there: 404 NoSuchKey with its key; HEAD has no body."""
    bucket = new_bucket()
    error = refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="missing key")
    equal(error["Error"]["Key"], "missing key")
    answer = signed("HEAD", f"/{bucket}/missing")
    equal((answer.status, answer.data), (404, b""))


def test_no_such_bucket():
    """A bucket that is not there: 404 NoSuchBucket with its name."""
    name = new_name()
    calls = [
        (main.s3.get_object, {}),
        (main.s3.put_object, {"Body": b"x"}),
        (main.s3.delete_object, {}),
        (main.s3.get_object_attributes, {"ObjectAttributes": ["ETag"]}),
        (main.s3.get_object_acl, {}),
        (main.s3.put_object_acl, {"ACL": "private"}),
    ]
    for call, arguments in calls:
        equal(refused(404, "NoSuchBucket", call, Bucket=name, Key="key", **arguments)["Error"]["BucketName"], name)
    error = refused(404, "NoSuchBucket", main.s3.delete_objects, Bucket=name, Delete={"Objects": [{"Key": "key"}]})
    equal(error["Error"]["BucketName"], name)
    refused(404, "NoSuchBucket", main.s3.head_object, Bucket=name, Key="key")


def test_part_of_a_key_is_none():
    """What is a prefix of a key, or longer than one, is not there."""
    bucket = shared("a/b/c")
    for key in ("a", "a/", "a/b", "a/b/", "a/b/c/", "a/b/c/d"):
        refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key=key)


def test_a_version_where_there_are_none():
    """A version id that is none: 400 InvalidArgument; `null` is the object of a bucket without versioning."""
    bucket = shared()
    equal(read(main, bucket, "key", VersionId="null"), b"body")
    equal_code(signed("GET", f"/{bucket}/key?versionId="), 400, "InvalidArgument")
    refused(400, "InvalidArgument", main.s3.get_object, Bucket=bucket, Key="key", VersionId="no such version")


def test_null_version_of_nothing():
    """versionId=null of what is not there: 404 NoSuchVersion, with the key and the version."""
    bucket = new_bucket()
    error = refused(404, "NoSuchVersion", main.s3.get_object, Bucket=bucket, Key="key", VersionId="null")
    equal((error["Error"]["Key"], error["Error"]["VersionId"]), ("key", "null"))


# --- storage classes


def test_storage_class_standard():
    """STANDARD is told by listings, and by HEAD and GET as nothing."""
    for bucket in (shared(), shared(StorageClass="STANDARD")):
        assert "StorageClass" not in head(bucket) and "StorageClass" not in main.s3.get_object(Bucket=bucket, Key="key")
        equal(main.s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"], "STANDARD")


def test_storage_classes():
    """Classes of which one can read at once are taken, and told by HEAD, GET, attributes and listings."""
    bucket = new_bucket()
    for name in ("STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "REDUCED_REDUNDANCY", "GLACIER_IR"):
        put(bucket, "key", StorageClass=name)
        equal(head(bucket)["StorageClass"], name)
        equal(main.s3.get_object(Bucket=bucket, Key="key")["StorageClass"], name)
        equal(main.s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["StorageClass"])["StorageClass"], name)
        for rows in (main.s3.list_objects_v2(Bucket=bucket)["Contents"], main.s3.list_objects(Bucket=bucket)["Contents"],
                     main.s3.list_object_versions(Bucket=bucket)["Versions"]):
            equal([row["StorageClass"] for row in rows], [name])


def test_storage_class_is_replaced():
    """Another PUT without a class is STANDARD."""
    bucket = shared(StorageClass="STANDARD_IA")
    put(bucket, "key")
    assert "StorageClass" not in head(bucket)


def test_storage_class_unknown():
    """A class that there is not: 400 InvalidStorageClass, and there is no object."""
    bucket = new_bucket()
    for name in ("COLD", "standard", "STANDARD_"):
        refused(400, "InvalidStorageClass", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", StorageClass=name)
    equal(keys(bucket), [])


# --- overwriting and deleting


def test_overwrite():
    """A PUT replaces what was there: a shorter one, a longer one, an empty one."""
    bucket = shared(body=b"first")
    for body in (b"2", b"the third one", b"", b"last"):
        put(bucket, "key", body)
        equal((read(main, bucket, "key"), head(bucket)["ETag"]), (body, etag(body)))
    equal(keys(bucket), ["key"])


def test_put_again():
    """The same body again is the same ETag."""
    bucket = shared()
    equal(put(bucket, "key")["ETag"], etag(b"body"))


def test_overwrite_while_reading():
    """Who has begun to read goes on to read what was there then."""
    first, second = pattern(8 << 20), bytes(8 << 20)
    bucket = shared(body=first)
    body = main.s3.get_object(Bucket=bucket, Key="key")["Body"]
    begun = body.read(1000)
    put(bucket, "key", second)
    assert begun + body.read() == first
    assert read(main, bucket, "key") == second


def test_delete_while_reading():
    """Nor does a DELETE take it away."""
    first = pattern(8 << 20)
    bucket = shared(body=first)
    body = main.s3.get_object(Bucket=bucket, Key="key")["Body"]
    begun = body.read(1000)
    main.s3.delete_object(Bucket=bucket, Key="key")
    assert begun + body.read() == first
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_puts_side_by_side():
    """Of several PUTs at once one is the last: the object is one of the bodies, whole, with its own ETag and metadata."""
    bucket = new_bucket()
    bodies = [bytes([n]) * 100_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: put(bucket, "key", bodies[n], Metadata={"n": str(n)}), range(8)))
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    body = answer["Body"].read()
    assert body in bodies, body[:100]
    equal((answer["ETag"], answer["Metadata"]), (etag(body), {"n": str(bodies.index(body))}))


def test_puts_side_by_side_of_what_is_not_there():
    """Of several PUTs at once with If-None-Match: * one makes the object; the others are 412 or 409."""
    bucket = new_bucket()

    def attempt(n):
        try:
            put(bucket, "key", str(n).encode(), IfNoneMatch="*")
            return n
        except ClientError as error:
            assert error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"), error.response

    with ThreadPoolExecutor(8) as pool:
        made = [n for n in pool.map(attempt, range(8)) if n is not None]
    equal([read(main, bucket, "key")], [str(n).encode() for n in made])


def test_delete_null_version():
    """versionId=null removes the object of a bucket without versioning."""
    bucket = shared()
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key", VersionId="null")), 204)
    equal(keys(bucket), [])


def test_delete():
    """DeleteObject is 204 without a body, and the object is gone."""
    bucket = shared()
    answer = signed("DELETE", f"/{bucket}/key")
    equal((answer.status, answer.data), (204, b""))
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")
    equal(keys(bucket), [])


def test_delete_what_is_not_there():
    """Deleting what is not there, or no more, is 204."""
    bucket = shared()
    for key in ("missing", "key", "key"):
        equal(status(main.s3.delete_object(Bucket=bucket, Key=key)), 204)


def test_delete_one_of_several():
    """Keys that begin alike stay."""
    bucket = new_bucket()
    for key in ("a", "a/", "a/b", "ab"):
        put(bucket, key)
    main.s3.delete_object(Bucket=bucket, Key="a/")
    equal(keys(bucket), ["a", "a/b", "ab"])


def test_put_after_delete():
    """A key is free again, and has nothing of the former object."""
    bucket = shared(Metadata={"a": "b"}, ContentType="text/plain")
    main.s3.delete_object(Bucket=bucket, Key="key")
    put(bucket, "key", b"new")
    equal((read(main, bucket, "key"), head(bucket)["Metadata"], head(bucket)["ContentType"]), (b"new", {}, "binary/octet-stream"))


def test_delete_with_versioning():
    """Where there are versions, DeleteObject puts a delete marker, and says so; the version stays."""
    bucket = versioned()
    version = put(bucket, "key")["VersionId"]
    answer = main.s3.delete_object(Bucket=bucket, Key="key")
    equal(answer["DeleteMarker"], True)
    error = refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")
    equal((headers(error)["x-amz-delete-marker"], headers(error)["x-amz-version-id"]), ("true", answer["VersionId"]))
    equal(read(main, bucket, "key", VersionId=version), b"body")


def test_get_a_delete_marker():
    """A delete marker itself is no object: 405 MethodNotAllowed, Allow: DELETE, and since when it is there."""
    bucket = versioned()
    marker = main.s3.delete_object(Bucket=bucket, Key="key")["VersionId"]
    for call in (main.s3.get_object, main.s3.head_object):
        told = headers(refused(405, "MethodNotAllowed", call, Bucket=bucket, Key="key", VersionId=marker))
        equal((told["x-amz-delete-marker"], told["allow"]), ("true", "DELETE"))
        assert "last-modified" in told, told


# --- DeleteObjects


def delete_many(bucket, names, who=main, **arguments):
    rows = [{"Key": name} if isinstance(name, str) else {"Key": name[0], "VersionId": name[1]} for name in names]
    return who.s3.delete_objects(Bucket=bucket, Delete={"Objects": rows, **arguments})


def many(names):
    rows = "".join(f"<Object><Key>{escape(name)}</Key></Object>" for name in names)
    return f"<Delete>{rows}</Delete>".encode()


def test_delete_many():
    """Each key that was deleted is told, in order; others stay."""
    bucket = new_bucket()
    for key in ("a", "b", "c/d", "e"):
        put(bucket, key)
    answer = delete_many(bucket, ["c/d", "a", "b"])
    equal((status(answer), [row["Key"] for row in answer["Deleted"]]), (200, ["c/d", "a", "b"]))
    assert "Errors" not in answer, answer
    equal(keys(bucket), ["e"])


def test_delete_many_that_are_not_there():
    """Keys that are not there are told as deleted."""
    bucket = shared()
    answer = delete_many(bucket, ["missing", "key"])
    equal([row["Key"] for row in answer["Deleted"]], ["missing", "key"])


def test_delete_many_quietly():
    """Quiet tells errors only."""
    bucket = shared()
    answer = delete_many(bucket, ["missing", "key"], Quiet=True)
    assert "Deleted" not in answer and "Errors" not in answer, answer
    equal(keys(bucket), [])


def test_delete_many_special_keys():
    """Keys that XML and URLs would take otherwise."""
    names = ["a&b", "<a>", "a b", " a ", "ä", "a//b", "..", "%20", "a+b", "\"'"]
    bucket = new_bucket()
    for name in names:
        put(bucket, name)
    equal([row["Key"] for row in delete_many(bucket, names)["Deleted"]], names)
    equal(keys(bucket), [])


def test_delete_1000():
    """A request has up to 1000 keys."""
    bucket = shared("key 7")
    equal(len(delete_many(bucket, [f"key {n}" for n in range(1000)])["Deleted"]), 1000)
    equal(keys(bucket), [])


def test_delete_1001():
    """1001 are 400 MalformedXML, and nothing is deleted."""
    bucket = shared("key 7")
    refused(400, "MalformedXML", delete_many, bucket=bucket, names=[f"key {n}" for n in range(1001)])
    equal(keys(bucket), ["key 7"])


def test_delete_many_without_a_digest():
    """A body without Content-MD5 or a checksum: 400 InvalidRequest, and nothing is deleted."""
    bucket = shared()
    equal_code(signed("POST", f"/{bucket}?delete", many(["key"])), 400, "InvalidRequest")
    equal(keys(bucket), ["key"])


def test_delete_many_with_an_md5():
    """Content-MD5 will do."""
    bucket = shared()
    body = many(["key"])
    answer = signed("POST", f"/{bucket}?delete", body, Content_MD5=md5(body))
    assert answer.status == 200 and b"<Deleted><Key>key</Key></Deleted>" in answer.data, answer.data
    equal(keys(bucket), [])


def test_delete_many_with_a_checksum():
    """So will a checksum."""
    bucket = shared()
    body = many(["key"])
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    equal(signed("POST", f"/{bucket}?delete", body, x_amz_checksum_sha256=digest).status, 200)
    equal(keys(bucket), [])


def test_delete_many_with_a_false_digest():
    """A digest of another body: 400 BadDigest; none at all: 400 InvalidDigest; nothing is deleted."""
    bucket = shared()
    body = many(["key"])
    equal_code(signed("POST", f"/{bucket}?delete", body, Content_MD5=md5(b"other")), 400, "BadDigest")
    equal_code(signed("POST", f"/{bucket}?delete", body, Content_MD5="none"), 400, "InvalidDigest")
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    equal_code(signed("POST", f"/{bucket}?delete", body, x_amz_checksum_sha256=other), 400, "BadDigest")
    equal(keys(bucket), ["key"])


def test_delete_many_malformed():
    """What is no list of keys: 400 MalformedXML."""
    bucket = shared()
    for body in (b"no XML", b"<Delete>", b"<Delete/>", b"<Delete></Delete>", b"<Other/>", b"<Delete><Object/></Delete>",
                 b"<Delete><Object><VersionId>null</VersionId></Object></Delete>", b"<Delete><Quiet>true</Quiet></Delete>"):
        answer = signed("POST", f"/{bucket}?delete", body, Content_MD5=md5(body))
        equal((answer.status, code(answer)), (400, "MalformedXML"), body)
    equal(keys(bucket), ["key"])


def test_delete_many_versions():
    """Versions and delete markers go by their ids, and the answer says which was which."""
    bucket = versioned()
    first, second = (put(bucket, "key", body)["VersionId"] for body in (b"1", b"2"))
    marked = delete_many(bucket, ["key"])["Deleted"]
    equal((marked[0]["Key"], marked[0]["DeleteMarker"]), ("key", True))
    marker = marked[0]["DeleteMarkerVersionId"]
    gone = delete_many(bucket, [("key", first), ("key", marker)])["Deleted"]
    equal(gone, [{"Key": "key", "VersionId": first},
                 {"Key": "key", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker}])
    equal(read(main, bucket, "key"), b"2")
    equal([row["VersionId"] for row in main.s3.list_object_versions(Bucket=bucket)["Versions"]], [second])


def test_delete_many_by_etag():
    """A key with an ETag goes if it is the object's; else it is told as an error, with PreconditionFailed."""
    bucket = new_bucket()
    for key in ("a", "b"):
        put(bucket, key, key.encode())
    rows = [{"Key": key, "ETag": etag(b"a")} for key in ("a", "b")]
    answer = main.s3.delete_objects(Bucket=bucket, Delete={"Objects": rows})
    equal([row["Key"] for row in answer["Deleted"]], ["a"])
    equal([(row["Key"], row["Code"]) for row in answer["Errors"]], [("b", "PreconditionFailed")])
    equal(keys(bucket), ["b"])


def test_delete_many_with_a_document_type():
    """XML with a document type: 400 MalformedXML."""
    bucket = shared()
    body = b'<!DOCTYPE x [<!ENTITY e "key">]><Delete><Object><Key>&e;</Key></Object></Delete>'
    equal_code(signed("POST", f"/{bucket}?delete", body, Content_MD5=md5(body)), 400, "MalformedXML")
    equal(keys(bucket), ["key"])


def test_delete_many_in_part():
    """Keys that a policy keeps are told as errors, with AccessDenied; the others are deleted. 200."""
    bucket = new_bucket()
    for key in ("mine/a", "open/a", "open/b"):
        put(bucket, key)
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObject", arn(bucket, "open/*")))
    answer = delete_many(bucket, ["open/a", "mine/a", "open/b"], alt)
    equal(sorted(row["Key"] for row in answer["Deleted"]), ["open/a", "open/b"])
    equal([(row["Key"], row["Code"]) for row in answer["Errors"]], [("mine/a", "AccessDenied")])
    equal(keys(bucket), ["mine/a"])


def test_delete_many_quietly_in_part():
    """Quiet tells them all the same."""
    bucket = shared()
    put(bucket, "kept")
    set_policy(bucket, statement("Deny", "*", "s3:DeleteObject", arn(bucket, "kept")))
    answer = delete_many(bucket, ["kept", "key"], Quiet=True)
    equal([(row["Key"], row["Code"]) for row in answer["Errors"]], [("kept", "AccessDenied")])
    assert "Deleted" not in answer, answer
    equal(keys(bucket), ["kept"])


def test_delete_many_of_anothers():
    """Another account deletes nothing."""
    bucket = shared()
    try:
        answer = delete_many(bucket, ["key"], alt)
    except ClientError as error:
        equal(error.response["Error"]["Code"], "AccessDenied")
    else:
        equal([row["Code"] for row in answer["Errors"]], ["AccessDenied"])
        assert "Deleted" not in answer, answer
    equal(keys(bucket), ["key"])


# --- GetObjectAttributes


def attributes(bucket, *names, who=main, **arguments):
    return who.s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=list(names), **arguments)


def test_attributes():
    """ETag without quotes, size and class are told, with Last-Modified."""
    answer = attributes(shared(), "ETag", "ObjectSize", "StorageClass")
    equal((answer["ETag"], answer["ObjectSize"], answer["StorageClass"]), (etag(b"body").strip('"'), 4, "STANDARD"))
    assert answer["LastModified"], answer


def test_attributes_that_are_asked_for():
    """No others are told."""
    answer = attributes(shared(), "ObjectSize")
    equal({"ETag", "ObjectSize", "StorageClass", "Checksum", "ObjectParts"} & set(answer), {"ObjectSize"})


def test_attributes_of_an_empty_object():
    """An empty object has the size 0."""
    equal(attributes(shared(body=b""), "ObjectSize")["ObjectSize"], 0)


def test_attributes_checksum():
    """The checksum that was put is told, and its type."""
    digest = base64.b64encode(hashlib.sha256(b"body").digest()).decode()
    checksum = attributes(shared(ChecksumSHA256=digest), "Checksum")["Checksum"]
    equal((checksum["ChecksumSHA256"], checksum["ChecksumType"]), (digest, "FULL_OBJECT"))


def test_attributes_parts():
    """An object that was put at once has no parts."""
    assert "ObjectParts" not in attributes(shared(), "ObjectParts", "ObjectSize")


def test_attributes_of_nothing():
    """An object that is not there: 404 NoSuchKey."""
    error = refused(404, "NoSuchKey", attributes_of(main.s3), Bucket=new_bucket())["Error"]
    equal(error["Key"], "key")


def test_attributes_that_there_are_not():
    """No attributes, or unknown ones: 400 InvalidArgument."""
    bucket = shared()
    refused(400, "InvalidArgument", main.s3.get_object_attributes, Bucket=bucket, Key="key", ObjectAttributes=["Colour"])
    equal_code(signed("GET", f"/{bucket}/key?attributes", x_amz_object_attributes="etag"), 400, "InvalidArgument")


def test_attributes_of_a_version():
    """A version is told by its id."""
    bucket = versioned()
    first, _ = (put(bucket, "key", body)["VersionId"] for body in (b"1", b"22"))
    answer = attributes(bucket, "ObjectSize", VersionId=first)
    equal((answer["ObjectSize"], answer["VersionId"]), (1, first))
    equal(attributes(bucket, "ObjectSize")["ObjectSize"], 2)


def test_attributes_by_policy():
    """Others may not; both s3:GetObject and s3:GetObjectAttributes let them."""
    bucket = shared()
    denied(attributes_of(alt.s3), Bucket=bucket)
    denied(attributes_of(anonymous), Bucket=bucket)
    for action in ("s3:GetObject", "s3:GetObjectAttributes"):
        set_policy(bucket, statement("Allow", alt.arn, action, arn(bucket, "*")))
        denied(attributes_of(alt.s3), Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObject", "s3:GetObjectAttributes"], arn(bucket, "*")))
    equal(attributes(bucket, "ObjectSize", who=alt)["ObjectSize"], 4)


def test_attributes_of_a_version_by_policy():
    """Of a version it is s3:GetObjectVersion and s3:GetObjectVersionAttributes."""
    bucket = versioned()
    of = {"Bucket": bucket, "VersionId": put(bucket, "key")["VersionId"]}
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObject", "s3:GetObjectAttributes"], arn(bucket, "*")))
    denied(attributes_of(alt.s3), **of)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectVersionAttributes", arn(bucket, "*")))
    denied(attributes_of(alt.s3), **of)
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObjectVersion", "s3:GetObjectVersionAttributes"], arn(bucket, "*")))
    equal(attributes_of(alt.s3)(**of)["ObjectSize"], 4)


def attributes_of(s3):
    return lambda **arguments: s3.get_object_attributes(Key="key", ObjectAttributes=["ObjectSize"], **arguments)


# --- ACLs


def owner_only(bucket):
    """The owner has full control, and nobody else anything."""
    answer = main.s3.get_object_acl(Bucket=bucket, Key="key")
    owner = main.s3.list_buckets(MaxBuckets=1)["Owner"]["ID"]
    rows = [(row["Grantee"]["Type"], row["Grantee"]["ID"], row["Permission"]) for row in answer["Grants"]]
    equal((answer["Owner"]["ID"], rows), (owner, [("CanonicalUser", owner, "FULL_CONTROL")]))


def test_acl():
    """An object's owner has full control and nobody else anything."""
    owner_only(shared())


def test_acl_of_nothing():
    """An object that is not there: 404 NoSuchKey with its key."""
    bucket = new_bucket()
    error = refused(404, "NoSuchKey", main.s3.get_object_acl, Bucket=bucket, Key="missing")
    equal(error["Error"]["Key"], "missing")
    refused(404, "NoSuchKey", main.s3.put_object_acl, Bucket=bucket, Key="missing", ACL="private")


def test_acl_owner_only():
    """Canned ACLs that say what is so anyway are taken, and so is the document that was got."""
    bucket = shared()
    for acl in ("private", "bucket-owner-full-control"):
        equal(status(main.s3.put_object_acl(Bucket=bucket, Key="key", ACL=acl)), 200)
    answer = main.s3.get_object_acl(Bucket=bucket, Key="key")
    policy = {"Owner": answer["Owner"], "Grants": answer["Grants"]}
    main.s3.put_object_acl(Bucket=bucket, Key="key", AccessControlPolicy=policy)
    owner_only(bucket)


def test_acl_of_others():
    """ACLs that give others something: 400 AccessControlListNotSupported, and nothing changes."""
    bucket = shared()
    other = alt.s3.list_buckets(MaxBuckets=1)["Owner"]["ID"]
    answer = main.s3.get_object_acl(Bucket=bucket, Key="key")
    more = {"Grantee": {"Type": "CanonicalUser", "ID": other}, "Permission": "READ"}
    for arguments in ({"ACL": "public-read"}, {"ACL": "authenticated-read"}, {"GrantRead": f'id="{other}"'},
                      {"AccessControlPolicy": {"Owner": answer["Owner"], "Grants": answer["Grants"] + [more]}}):
        refused(400, "AccessControlListNotSupported", main.s3.put_object_acl, Bucket=bucket, Key="key", **arguments)
    owner_only(bucket)
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    denied(anonymous.get_object, Bucket=bucket, Key="key")


def test_acl_with_put():
    """A PUT with an ACL for others: 400 AccessControlListNotSupported, and what was there stays."""
    bucket = shared()
    for arguments in ({"ACL": "public-read"}, {"ACL": "public-read-write"}, {"GrantRead": f'id="{alt.id}"'}):
        refused(400, "AccessControlListNotSupported", main.s3.put_object, Bucket=bucket, Key="key", Body=b"new", **arguments)
    equal(read(main, bucket, "key"), b"body")


def test_acl_unknown():
    """A canned ACL that there is not: 400 InvalidArgument."""
    bucket = shared()
    equal_code(signed("PUT", f"/{bucket}/key?acl", x_amz_acl="everybody"), 400, "InvalidArgument")
    equal_code(signed("PUT", f"/{bucket}/key", b"new", x_amz_acl="everybody"), 400, "InvalidArgument")
    equal(read(main, bucket, "key"), b"body")


def test_acl_is_the_owners():
    """Another account and nobody in particular neither see nor change it; a policy can let them see it."""
    bucket = shared()
    for s3 in (alt.s3, anonymous):
        denied(s3.get_object_acl, Bucket=bucket, Key="key")
        denied(s3.put_object_acl, Bucket=bucket, Key="key", ACL="private")
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectAcl", arn(bucket, "*")))
    equal(alt.s3.get_object_acl(Bucket=bucket, Key="key")["Owner"]["ID"], main.s3.list_buckets(MaxBuckets=1)["Owner"]["ID"])


# --- whose bucket it is, and is expected to be


def test_others_may_nothing():
    """Another account and nobody in particular neither read, write nor delete, and nothing changes."""
    bucket = shared()
    for s3 in (alt.s3, anonymous):
        denied(s3.get_object, Bucket=bucket, Key="key")
        denied(s3.head_object, Bucket=bucket, Key="key")
        denied(s3.put_object, Bucket=bucket, Key="key", Body=b"theirs")
        denied(s3.put_object, Bucket=bucket, Key="new", Body=b"theirs")
        denied(s3.delete_object, Bucket=bucket, Key="key")
    equal((keys(bucket), read(main, bucket, "key")), (["key"], b"body"))


def test_others_do_not_learn_what_is_there():
    """Who may read but not list is answered 403 for what is not there; who may list, 404."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal(read(alt, bucket, "key"), b"body")
    denied(alt.s3.get_object, Bucket=bucket, Key="missing")
    denied(alt.s3.head_object, Bucket=bucket, Key="missing")
    listing = statement("Allow", alt.arn, "s3:ListBucket", arn(bucket))
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")), listing)
    refused(404, "NoSuchKey", alt.s3.get_object, Bucket=bucket, Key="missing")
    refused(404, "NoSuchKey", alt.s3.head_object, Bucket=bucket, Key="missing")


def test_anybody_may_put_by_policy():
    """Where a policy lets everybody put, who has no key can; the object is the bucket owner's."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", "*", "s3:PutObject", arn(bucket, "in/*")))
    equal(raw("PUT", f"/{bucket}/in/key", body=b"from outside").status, 200)
    equal(raw("PUT", f"/{bucket}/key", body=b"from outside").status, 403)
    equal(raw("GET", f"/{bucket}/in/key").status, 403)
    equal(raw("DELETE", f"/{bucket}/in/key").status, 403)
    equal((keys(bucket), read(main, bucket, "in/key")), (["in/key"], b"from outside"))


def test_dots_lead_to_no_other_bucket():
    """Dots in the path of a public bucket lead to nothing of another one."""
    public, private = new_bucket(), shared()
    set_policy(public, statement("Allow", "*", ["s3:GetObject", "s3:PutObject"], arn(public, "*")))
    for dots in ("%2e%2e", "%2E.", "a/%2e%2e/%2e%2e", "/%2e%2e"):
        equal(raw("GET", f"/{public}/{dots}/{private}/key").status, 403, dots)
        raw("PUT", f"/{public}/{dots}/{private}/new", body=b"x")
    equal(keys(private), ["key"])


def expecting(owner):
    """Each call on an object, as a function that takes no more, with that account expected."""
    bucket = shared()
    of = {"Bucket": bucket, "Key": "key", "ExpectedBucketOwner": owner}
    many = {"Bucket": bucket, "Delete": {"Objects": [{"Key": "key"}]}, "ExpectedBucketOwner": owner}
    s3 = main.s3
    return bucket, [
        (s3.get_object, of),
        (s3.head_object, of),
        (s3.put_object, {**of, "Body": b"new"}),
        (s3.get_object_attributes, {**of, "ObjectAttributes": ["ETag"]}),
        (s3.get_object_acl, of),
        (s3.put_object_acl, {**of, "ACL": "private"}),
        (s3.delete_objects, many),
        (s3.delete_object, of),
    ]


def test_expected_owner():
    """x-amz-expected-bucket-owner of the owner's account changes nothing."""
    _, calls = expecting(main.id)
    for call, arguments in calls:
        call(**arguments)


def test_expected_owner_is_another():
    """Another account's: 403 AccessDenied, and nothing is done."""
    bucket, calls = expecting(alt.id)
    for call, arguments in calls:
        denied(call, **arguments)
    equal(read(main, bucket, "key"), b"body")


def test_expected_owner_that_is_no_account():
    """What is no account id: 400 InvalidBucketOwnerAWSAccountID."""
    bucket = shared()
    for owner in ("someone", "12345"):
        refused(400, "InvalidBucketOwnerAWSAccountID", main.s3.get_object, Bucket=bucket, Key="key", ExpectedBucketOwner=owner)


# --- conditions


def test_if_match():
    """If-Match of the ETag is answered; of another: 412 PreconditionFailed, with the condition."""
    bucket = shared()
    equal(read(main, bucket, "key", IfMatch=etag(b"body")), b"body")
    error = refused(412, "PreconditionFailed", main.s3.get_object, Bucket=bucket, Key="key", IfMatch=etag(b"other"))
    equal(error["Error"]["Condition"], "If-Match")
    refused(412, "PreconditionFailed", main.s3.head_object, Bucket=bucket, Key="key", IfMatch=etag(b"other"))


def test_if_none_match():
    """If-None-Match of the ETag: 304 without a body, with ETag; of another it is answered."""
    bucket = shared()
    equal(read(main, bucket, "key", IfNoneMatch=etag(b"other")), b"body")
    for method in ("GET", "HEAD"):
        answer = signed(method, f"/{bucket}/key", If_None_Match=etag(b"body"))
        equal((answer.status, answer.data, answer.headers["etag"]), (304, b"", etag(b"body")), method)


def test_if_modified_since():
    """If-Modified-Since of a time before is answered, of now: 304; If-Unmodified-Since the other way round: 412."""
    bucket = shared()
    when = head(bucket)["LastModified"]
    before = when - timedelta(hours=1)
    equal(read(main, bucket, "key", IfModifiedSince=before), b"body")
    refused(304, "304", main.s3.get_object, Bucket=bucket, Key="key", IfModifiedSince=when)
    equal(read(main, bucket, "key", IfUnmodifiedSince=when), b"body")
    refused(412, "PreconditionFailed", main.s3.get_object, Bucket=bucket, Key="key", IfUnmodifiedSince=before)


def test_condition_before_range():
    """A condition is looked at before the range: 304 and 412, though the range is good; and though it is beyond the end."""
    bucket = shared()
    for text in ("bytes=0-1", "bytes=100-"):
        refused(304, "304", main.s3.get_object, Bucket=bucket, Key="key", Range=text, IfNoneMatch=etag(b"body"))
        refused(412, "PreconditionFailed", main.s3.get_object, Bucket=bucket, Key="key", Range=text, IfMatch=etag(b"other"))


def test_conditions_that_contradict():
    """If-Match that holds outweighs If-Unmodified-Since; If-None-Match that fails outweighs If-Modified-Since."""
    bucket = shared()
    before = head(bucket)["LastModified"] - timedelta(hours=1)
    equal(read(main, bucket, "key", IfMatch=etag(b"body"), IfUnmodifiedSince=before), b"body")
    refused(304, "304", main.s3.get_object, Bucket=bucket, Key="key", IfNoneMatch=etag(b"body"), IfModifiedSince=before)


def test_put_if_none_match():
    """If-None-Match: * puts what is not there; what is there stays: 412 PreconditionFailed."""
    bucket = new_bucket()
    put(bucket, "key", b"first", IfNoneMatch="*")
    error = refused(412, "PreconditionFailed", main.s3.put_object, Bucket=bucket, Key="key", Body=b"second", IfNoneMatch="*")
    equal(error["Error"]["Condition"], "If-None-Match")
    equal(read(main, bucket, "key"), b"first")


def test_put_if_match():
    """If-Match of a PUT: the ETag that is there, else 412; where nothing is: 404 NoSuchKey."""
    bucket = shared()
    refused(412, "PreconditionFailed", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", IfMatch=etag(b"other"))
    put(bucket, "key", b"new", IfMatch=etag(b"body"))
    equal(read(main, bucket, "key"), b"new")
    refused(404, "NoSuchKey", main.s3.put_object, Bucket=bucket, Key="missing", Body=b"x", IfMatch=etag(b"body"))


def test_delete_if_match():
    """If-Match of a DELETE: the ETag that is there, else 412, and the object stays."""
    bucket = shared()
    refused(412, "PreconditionFailed", main.s3.delete_object, Bucket=bucket, Key="key", IfMatch=etag(b"other"))
    equal(read(main, bucket, "key"), b"body")
    main.s3.delete_object(Bucket=bucket, Key="key", IfMatch=etag(b"body"))
    equal(keys(bucket), [])
