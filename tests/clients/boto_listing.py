"""boto3: ListObjects v1 and v2 of ten thousand keys with many page sizes, prefixes, delimiters, awkward keys."""

import random

from common import *

AWKWARD = [
    "a", "a/", "a/b", "a//b", "a-b", "a0", "/a", "//", "/", "a b", "a+b", "a%2Fb", "ä", "ä/ö", "日本/語", "🦀", "🦀/x", "x\u0301", "é", "e\u0301",
    "quote\"s'", "amp&lt<gt>", "tab\there", "new\nline", "\u0001ctl", "back\\slash", "q?x=y#z", "..", "../x", ".", "./x", "a/../b", "k" * 1024, "d/" * 512,
    "zz/" + "ÿ" * 400, "\u007f", "~", "|", "{}", "^`", ":;,@&=$!*'()", " lead", "trail ", "\ufeffbom", "\uffff", "\U0010fffd", "\u0085nel", "line\u2028separator",
]
# Every character of ASCII but NUL: alone, and at the start, inside and at the end of a name.
AWKWARD += [key for code in range(1, 128) for key in (chr(code), f"every/{chr(code)}x{chr(code)}y{chr(code)}")]
AWKWARD = sorted(set(AWKWARD))


def key_order(key):
    return key.encode()


def expected(keys, prefix="", delimiter="", after=""):
    """What S3 lists: keys and common prefixes, in byte order, after `after`."""
    rows = []
    for key in sorted(keys, key=key_order):
        if not key.startswith(prefix) or key_order(key) <= key_order(after):
            continue
        rest = key[len(prefix) :]
        if delimiter and delimiter in rest:
            group = prefix + rest[: rest.index(delimiter) + len(delimiter)]
            if not rows or rows[-1] != ("prefix", group):
                rows.append(("prefix", group))
        else:
            rows.append(("key", key))
    return rows


def rows_of(page):
    keys = [("key", row["Key"]) for row in page.get("Contents", [])]
    prefixes = [("prefix", row["Prefix"]) for row in page.get("CommonPrefixes", [])]
    return sorted(keys + prefixes, key=lambda row: key_order(row[1]))


def listed(operation, bucket, page_size, **arguments):
    rows, pages = [], 0
    for page in s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": page_size}, **arguments):
        found = rows_of(page)
        assert len(found) <= page_size, (len(found), page_size)
        rows += found
        pages += 1
    return rows


def fill(bucket, keys):
    parallel(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode()[:20]), keys)


def ten_thousand():
    generator = random.Random(1)
    keys = {f"dir{generator.randrange(40):02}/sub{generator.randrange(10)}/file{number:05}" for number in range(9_000)}
    keys |= {f"flat-{number:04}" for number in range(900)}
    keys |= {f"dir{number:02}" for number in range(40)} | {f"dir{number:02}/" for number in range(40)} | {f"dir{number:02}-x" for number in range(20)}
    return sorted(keys, key=key_order)


KEYS = ten_thousand()
BUCKET = new_bucket()
fill(BUCKET, KEYS)


def test_ten_thousand_keys():
    """The suite `listing` has every page size."""
    wanted = expected(KEYS)
    for page_size in (1000, 997, 64):
        equal(listed("list_objects_v2", BUCKET, page_size), wanted, page_size)
    equal(listed("list_objects", BUCKET, 731), wanted)


def test_small_pages():
    for page_size in (1, 2, 3, 7, 10, 13):
        for operation in ("list_objects_v2", "list_objects"):
            equal(listed(operation, BUCKET, page_size, Prefix="dir07/sub3/"), expected(KEYS, "dir07/sub3/"), page_size)
            equal(listed(operation, BUCKET, page_size, Prefix="dir0", Delimiter="/"), expected(KEYS, "dir0", "/"), page_size)
            equal(listed(operation, BUCKET, page_size, Delimiter="/", Prefix="dir"), expected(KEYS, "dir", "/"), page_size)


def test_prefixes_and_delimiters():
    for prefix in ("", "d", "dir01", "dir01/", "dir01/s", "dir01/sub1/", "dir01/sub1/file", "flat-00", "nothing", "dir39-x", "/"):
        for delimiter in ("/", "-", "0", "sub", "file0", "/sub", "x"):
            wanted = expected(KEYS, prefix, delimiter)
            for page_size in (1000, 91):
                if len(wanted) > 20 * page_size:
                    continue
                equal(listed("list_objects_v2", BUCKET, page_size, Prefix=prefix, Delimiter=delimiter), wanted, (prefix, delimiter, page_size))


def test_start_after():
    for after in ("dir05", "dir05/", "dir05/zzz", "flat-0500", "flat-05001", "zzz", "a", KEYS[5000], KEYS[-1]):
        page = s3.list_objects_v2(Bucket=BUCKET, StartAfter=after, MaxKeys=50)
        equal(rows_of(page), expected(KEYS, after=after)[:50], after)
        equal(page.get("StartAfter"), after)
        equal(rows_of(s3.list_objects(Bucket=BUCKET, Marker=after, MaxKeys=50)), expected(KEYS, after=after)[:50], after)


def test_random_listings():
    generator = random.Random(7)
    for _ in range(150):
        key = generator.choice(KEYS)
        prefix = key[: generator.randrange(len(key) + 1)]
        delimiter = generator.choice(["", "/", "-", "1", "ub"])
        max_keys = generator.choice([1, 2, 5, 50, 1000])
        arguments = {"Delimiter": delimiter} if delimiter else {}
        page = s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix, MaxKeys=max_keys, **arguments)
        wanted = expected(KEYS, prefix, delimiter)
        equal(rows_of(page), wanted[:max_keys], (prefix, delimiter, max_keys))
        equal(page["IsTruncated"], len(wanted) > max_keys, (prefix, delimiter, max_keys))
        equal(page["KeyCount"], min(max_keys, len(wanted)), (prefix, delimiter, max_keys))


def test_fields_of_a_page():
    page = s3.list_objects_v2(Bucket=BUCKET, MaxKeys=2, Delimiter="/", Prefix="dir", FetchOwner=True)
    for name, value in {"Name": BUCKET, "MaxKeys": 2, "Delimiter": "/", "Prefix": "dir", "IsTruncated": True}.items():
        equal(page[name], value, name)
    assert page["NextContinuationToken"]
    row = next(row for row in page["Contents"] if row["Key"] == "dir00")
    assert row["Owner"]["ID"] and row["Size"] == 5 and row["StorageClass"] == "STANDARD" and row["ETag"][0] == '"', row
    assert "Owner" not in s3.list_objects_v2(Bucket=BUCKET, MaxKeys=1)["Contents"][0]
    page = s3.list_objects_v2(Bucket=BUCKET, MaxKeys=0)
    equal((page["KeyCount"], page["IsTruncated"], page.get("Contents")), (0, False, None))
    equal(len(s3.list_objects_v2(Bucket=BUCKET, MaxKeys=5000)["Contents"]), 1000)


def test_refusals():
    refused(400, "InvalidArgument", s3.list_objects_v2, Bucket=BUCKET, MaxKeys=-1)
    refused(400, "InvalidArgument", s3.list_objects_v2, Bucket=BUCKET, ContinuationToken="no token of ours")
    refused(400, "InvalidArgument", s3.list_objects_v2, Bucket=BUCKET, EncodingType="rot13")


def fits_xml(key):
    return all(c >= " " and c != "\uffff" for c in key)


def test_awkward_keys():
    bucket = new_bucket()
    fill(bucket, AWKWARD)
    for key in AWKWARD:
        equal(s3.get_object(Bucket=bucket, Key=key)["Body"].read(), key.encode()[:20], key)
        equal(s3.head_object(Bucket=bucket, Key=key)["ContentLength"], len(key.encode()[:20]), key)
    # boto3 asks for encoding-type=url by itself and decodes.
    for page_size in (1, 2, 5, 1000):
        equal(listed("list_objects_v2", bucket, page_size), expected(AWKWARD), page_size)
    for page_size in (3, 1000):
        equal(listed("list_objects", bucket, page_size), expected(AWKWARD), page_size)
        for delimiter in ("/", "b", "ö", "🦀"):
            equal(listed("list_objects_v2", bucket, page_size, Delimiter=delimiter), expected(AWKWARD, "", delimiter), (page_size, delimiter))
    for prefix in ("a", "a/", "a//", "/", "ä", "d/d/", "\u0001", "x", "..", "🦀"):
        equal(listed("list_objects_v2", bucket, 2, Prefix=prefix, Delimiter="/"), expected(AWKWARD, prefix, "/"), prefix)
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in AWKWARD if fits_xml(key)]})
    equal(listed("list_objects_v2", bucket, 1000), expected([key for key in AWKWARD if not fits_xml(key)]))
    for key in AWKWARD:
        s3.delete_object(Bucket=bucket, Key=key)
    s3.delete_bucket(Bucket=bucket)


def test_listing_while_others_write():
    """Keys that are there throughout are listed exactly once, whatever comes and goes around them."""
    bucket = new_bucket()
    stable = [f"s/{number:04}" for number in range(400)]
    fill(bucket, stable)
    from threading import Event, Thread

    stop = Event()

    def churn(name):
        number = 0
        while not stop.is_set():
            number += 1
            key = f"s/{number * 7 % 400:04}-{name}"
            s3.put_object(Bucket=bucket, Key=key, Body=b"")
            s3.delete_object(Bucket=bucket, Key=key)

    threads = [Thread(target=churn, args=(name,)) for name in "ab"]
    [thread.start() for thread in threads]
    try:
        for _ in range(8):
            keys = [key for _, key in listed("list_objects_v2", bucket, 37)]
            equal([key for key in keys if "-" not in key], stable)
    finally:
        stop.set()
        [thread.join() for thread in threads]


run(globals())
