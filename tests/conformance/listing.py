"""Listings: ListObjects, ListObjectsV2, ListMultipartUploads and ListParts: order, pages, prefixes, delimiters, encoding."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from urllib.parse import quote
from xml.etree import ElementTree

from support import *


def with_keys(*keys, body=b"", **arguments):
    """A bucket of main's with these objects."""
    bucket = new_bucket(**arguments)
    for key in keys:
        put(bucket, key, body)
    return bucket


def names(answer):
    """The keys and the common prefixes of one page."""
    keys = [one["Key"] for one in answer.get("Contents", [])]
    return keys, [one["Prefix"] for one in answer.get("CommonPrefixes", [])]


def one(bucket, **arguments):
    """Keys and common prefixes of one page of ListObjects."""
    return names(main.s3.list_objects(Bucket=bucket, **arguments))


def two(bucket, **arguments):
    """Keys and common prefixes of one page of ListObjectsV2."""
    return names(main.s3.list_objects_v2(Bucket=bucket, **arguments))


def paged(operation, bucket, size, **arguments):
    """Keys, common prefixes and the sizes of the pages, by boto3's paginator."""
    keys, prefixes, sizes = [], [], []
    for page in main.s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": size}, **arguments):
        some_keys, some_prefixes = names(page)
        keys += some_keys
        prefixes += some_prefixes
        sizes.append(len(some_keys) + len(some_prefixes))
    return keys, prefixes, sizes


def plain(root):
    """Takes the namespaces off."""
    for element in root.iter():
        element.tag = element.tag.partition("}")[2] or element.tag
    return root


def document_of(bucket, query, who=main):
    """The XML of a listing without what boto3 makes of it."""
    answer = signed("GET", f"/{bucket}?{query}", who=who)
    equal(answer.status, 200, answer.data)
    return plain(ElementTree.fromstring(answer.data))


def rejected(bucket, query, wanted="InvalidArgument", number=400):
    answer = signed("GET", f"/{bucket}?{query}")
    equal((answer.status, code(answer)), (number, wanted), query)
    return answer


# --- ListObjects


def test_empty():
    """An empty bucket lists nothing, and is not truncated."""
    answer = main.s3.list_objects(Bucket=new_bucket())
    equal((status(answer), names(answer), answer["IsTruncated"]), (200, ([], []), False))


def test_empty_echoes():
    """The answer says the bucket, an empty prefix and marker, and 1000 keys at most, where nothing was asked."""
    bucket = new_bucket()
    root = document_of(bucket, "")
    equal(root.tag, "ListBucketResult")
    said = {child.tag: child.text or "" for child in root}
    equal(said, {"Name": bucket, "Prefix": "", "Marker": "", "MaxKeys": "1000", "IsTruncated": "false"})


def test_namespace_and_type():
    """The document is of S3's namespace, and its type is application/xml."""
    answer = signed("GET", f"/{new_bucket()}")
    equal(ElementTree.fromstring(answer.data).tag, "{http://s3.amazonaws.com/doc/2006-03-01/}ListBucketResult")
    equal(answer.headers["content-type"], "application/xml")


def test_slash_after_the_bucket():
    """`/bucket/` lists as `/bucket` does."""
    bucket = with_keys("a")
    answer = signed("GET", f"/{bucket}/")
    equal((answer.status, answer.data), (200, signed("GET", f"/{bucket}").data))


def test_no_such_bucket():
    """ListObjects of a bucket that is not there: 404 NoSuchBucket, with its name."""
    name = new_name()
    equal(refused(404, "NoSuchBucket", main.s3.list_objects, Bucket=name)["Error"]["BucketName"], name)


def test_emptied():
    """A bucket whose objects were all deleted lists nothing."""
    bucket = with_keys("a", "b/c")
    for key in ("a", "b/c"):
        main.s3.delete_object(Bucket=bucket, Key=key)
    equal(one(bucket), ([], []))
    equal(one(bucket, Delimiter="/"), ([], []))


def test_what_is_said_of_an_object():
    """An object has its key, size, ETag in quotes, class, owner, and the time when it was put."""
    bucket = with_keys("key", body=b"hello")
    entry = main.s3.list_objects(Bucket=bucket)["Contents"][0]
    equal((entry["Key"], entry["Size"], entry["StorageClass"]), ("key", 5, "STANDARD"))
    equal(entry["ETag"], '"5d41402abc4b2a76b9719d911017c592"')
    owner = main.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    equal(entry["Owner"]["ID"], owner)
    assert abs(datetime.now(timezone.utc) - entry["LastModified"]) < timedelta(minutes=1), entry


def test_time_as_in_head():
    """LastModified is of HEAD's second, and is written with milliseconds and a Z."""
    bucket = with_keys("key")
    text = document_of(bucket, "").find("Contents/LastModified").text
    assert len(text) == len("2006-02-03T16:45:09.000Z") and text.endswith("Z") and text[19] == ".", text
    listed = datetime.fromisoformat(text.replace("Z", "+00:00")).replace(microsecond=0)
    equal(listed, main.s3.head_object(Bucket=bucket, Key="key")["LastModified"])


def test_overwritten():
    """A key that was overwritten is listed once, as it is now."""
    bucket = with_keys("key", body=b"one")
    put(bucket, "key", b"longer")
    entries = main.s3.list_objects(Bucket=bucket)["Contents"]
    equal([(entry["Key"], entry["Size"]) for entry in entries], [("key", 6)])


def test_multipart_object():
    """An object of parts is listed with its whole size and the ETag that says how many; before it is complete it is not."""
    bucket = new_bucket()
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    tag = main.s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
    equal(one(bucket), ([], []))
    parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
    whole = main.s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload=parts)
    entry = main.s3.list_objects(Bucket=bucket)["Contents"][0]
    equal((entry["Size"], entry["ETag"]), (4, whole["ETag"]))
    assert entry["ETag"].endswith('-1"'), entry


def test_order():
    """Keys come in the order of their bytes: digits, capitals, underscore, small letters, then what is not ASCII."""
    keys = ["10", "2", "A", "Z", "_", "a", "a b", "a!", "a-b", "a/b", "ab", "z", "~", "é"]
    equal(one(with_keys(*reversed(keys)))[0], sorted(keys, key=str.encode))


def test_order_by_utf8():
    """The order is that of UTF-8: U+FF5E is before U+1F600, which in UTF-16 it is not."""
    keys = ["\uff5e", "\U0001f600"]
    bucket = with_keys(*keys)
    equal(one(bucket)[0], keys)
    equal(two(bucket)[0], keys)
    equal(one(bucket, Marker="\uff5e")[0], keys[1:])


def test_order_of_a_key_and_what_begins_with_it():
    """A key is before all that begin with it."""
    keys = ["a", "a\x20", "a.txt", "a/", "a/b", "a0", "aa"]
    equal(one(with_keys(*reversed(keys)))[0], keys)


def test_marker():
    """A listing begins after the marker, which is a key of the bucket."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b", "c"), Marker="b")
    equal((names(answer)[0], answer["Marker"]), (["c"], "b"))


def test_marker_that_is_no_key():
    """A marker need not be a key: what is after it comes."""
    equal(one(with_keys("a", "b", "c"), Marker="aa")[0], ["b", "c"])


def test_marker_after_all():
    """After a marker that is behind all keys there is nothing, and no more to come."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b"), Marker="zzz")
    equal((names(answer), answer["IsTruncated"]), (([], []), False))


def test_marker_before_all():
    """A marker that is before all keys, and an empty one, leave out none."""
    bucket = with_keys("b", "c")
    equal(one(bucket, Marker="a")[0], ["b", "c"])
    equal(one(bucket, Marker="")[0], ["b", "c"])


def test_marker_unreadable():
    """A marker may be a control character."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b"), Marker="\x0a")
    equal((names(answer)[0], answer["Marker"]), (["a", "b"], "\x0a"))


def test_marker_and_prefix():
    """A marker before the prefix leaves out nothing of it, one inside does, one behind it leaves nothing."""
    bucket = with_keys("a", "b1", "b2", "c")
    equal(one(bucket, Prefix="b", Marker="a")[0], ["b1", "b2"])
    equal(one(bucket, Prefix="b", Marker="b1")[0], ["b2"])
    equal(one(bucket, Prefix="b", Marker="bb"), ([], []))


def test_marker_and_delimiter():
    """After a marker that is a common prefix neither it nor anything under it comes."""
    bucket = with_keys("a", "b/1", "b/2", "c", "d/1")
    equal(one(bucket, Delimiter="/", Marker="b/"), (["c"], ["d/"]))


def test_max_keys_one():
    """max-keys=1 gives the first, and says that there is more."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b"), MaxKeys=1)
    equal((names(answer)[0], answer["MaxKeys"], answer["IsTruncated"]), (["a"], 1, True))


def test_max_keys_exact():
    """As many as there are: the listing is not truncated."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b"), MaxKeys=2)
    equal((names(answer)[0], answer["IsTruncated"]), (["a", "b"], False))


def test_max_keys_zero():
    """max-keys=0 gives nothing, and says that there is no more."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b"), MaxKeys=0)
    equal((names(answer), answer["MaxKeys"], answer["IsTruncated"]), (([], []), 0, False))


def test_max_keys_a_thousand():
    """max-keys=1000 is the default, and is said."""
    equal(main.s3.list_objects(Bucket=with_keys("a"), MaxKeys=1000)["MaxKeys"], 1000)
    equal(main.s3.list_objects(Bucket=with_keys("a"))["MaxKeys"], 1000)


def test_max_keys_over():
    """More than 1000 are taken for 1000, as far as the number is one of 31 bits."""
    bucket = with_keys("a")
    for number in (1001, 100_000, 2**31 - 1):
        answer = main.s3.list_objects(Bucket=bucket, MaxKeys=number)
        equal((names(answer)[0], answer["MaxKeys"]), (["a"], 1000), number)


def test_max_keys_negative():
    """A negative max-keys: 400 InvalidArgument."""
    rejected(with_keys("a"), "max-keys=-1")


def test_max_keys_no_number():
    """A max-keys that is no integer: 400 InvalidArgument, which names it."""
    bucket = with_keys("a")
    for text in ("many", "1.5", "0x10", "1a"):
        assert b"max-keys" in rejected(bucket, f"max-keys={text}").data, text


def test_max_keys_too_large():
    """A max-keys that no integer holds: 400 InvalidArgument."""
    rejected(with_keys("a"), "max-keys=99999999999999999999")


def test_max_keys_of_no_bucket():
    """A good request for a bucket that is not there is 404, whatever is asked."""
    rejected(new_name(), "max-keys=1&delimiter=%2F&prefix=a", "NoSuchBucket", 404)


def test_next_marker_needs_a_delimiter():
    """Without a delimiter there is no NextMarker: the last key is the next marker."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b"), MaxKeys=1)
    equal((answer["IsTruncated"], answer.get("NextMarker")), (True, None))


def test_next_marker_is_a_key():
    """With a delimiter NextMarker is the last key, if that was last."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b/1"), MaxKeys=1, Delimiter="/")
    equal((names(answer), answer["NextMarker"]), ((["a"], []), "a"))


def test_next_marker_is_a_common_prefix():
    """With a delimiter NextMarker is the last common prefix, if that was last."""
    answer = main.s3.list_objects(Bucket=with_keys("a/1", "a/2", "b"), MaxKeys=1, Delimiter="/")
    equal((names(answer), answer["NextMarker"]), (([], ["a/"]), "a/"))


def test_next_marker_only_if_truncated():
    """The last page has no NextMarker."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b/1"), MaxKeys=2, Delimiter="/")
    equal((answer["IsTruncated"], answer.get("NextMarker")), (False, None))


def test_truncated_only_if_more_comes():
    """A page that ends with a common prefix is the last one, when all that is left is under that prefix."""
    answer = main.s3.list_objects(Bucket=with_keys("a/1", "a/2", "a/3"), MaxKeys=1, Delimiter="/")
    equal((names(answer), answer["IsTruncated"]), (([], ["a/"]), False))


def test_truncated_within_the_prefix():
    """Keys behind the prefix do not make a listing of it truncated."""
    answer = main.s3.list_objects(Bucket=with_keys("a1", "a2", "b"), MaxKeys=2, Prefix="a")
    equal((names(answer)[0], answer["IsTruncated"]), (["a1", "a2"], False))


def test_prefix():
    """Only keys that begin with the prefix come, and the prefix is said. It may end within a name."""
    bucket = with_keys("photo", "photos/1", "photos/2", "phone", "x")
    answer = main.s3.list_objects(Bucket=bucket, Prefix="photos/")
    equal((names(answer)[0], answer["Prefix"]), (["photos/1", "photos/2"], "photos/"))
    equal(one(bucket, Prefix="pho")[0], ["phone", "photo", "photos/1", "photos/2"])


def test_prefix_that_is_a_key():
    """A prefix that is a key itself lists that one too."""
    equal(one(with_keys("a", "a/", "a/b", "b"), Prefix="a/")[0], ["a/", "a/b"])


def test_prefix_of_nothing():
    """A prefix that no key has lists nothing."""
    equal(one(with_keys("a", "c"), Prefix="b"), ([], []))


def test_prefix_empty():
    """An empty prefix is none."""
    equal(one(with_keys("a", "b"), Prefix="")[0], ["a", "b"])


def test_prefix_is_not_a_pattern():
    """No character of a prefix stands for others, and its case counts."""
    bucket = with_keys("a*b", "axb", "A", "%41", "a?")
    equal(one(bucket, Prefix="a*")[0], ["a*b"])
    equal(one(bucket, Prefix="a?")[0], ["a?"])
    equal(one(bucket, Prefix="%41")[0], ["%41"])
    equal(one(bucket, Prefix="A")[0], ["A"])


def test_prefix_of_bytes():
    """A prefix that is not ASCII, and one that begins with a slash or a dot."""
    bucket = with_keys("ä/1", "äö", "b", "/c", "./d", "../e")
    equal(one(bucket, Prefix="ä")[0], ["ä/1", "äö"])
    equal(one(bucket, Prefix="/")[0], ["/c"])
    equal(one(bucket, Prefix="..")[0], ["../e"])


def test_delimiter():
    """Keys that have the delimiter come as a common prefix, each once, that ends with it; the delimiter is said."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b/1", "b/2/3", "c/", "d"), Delimiter="/")
    equal((names(answer), answer["Delimiter"]), ((["a", "d"], ["b/", "c/"]), "/"))


def test_delimiter_other_character():
    """Any character may be the delimiter."""
    equal(one(with_keys("bar", "baz", "cab", "foo"), Delimiter="a"), (["foo"], ["ba", "ca"]))
    equal(one(with_keys("a b", "a c", "d"), Delimiter=" "), (["d"], ["a "]))
    equal(one(with_keys("a%b", "a%c", "d"), Delimiter="%"), (["d"], ["a%"]))
    equal(one(with_keys("a.b", "a.c", "d"), Delimiter="."), (["d"], ["a."]))


def test_delimiter_not_ascii():
    """The delimiter may be a character of several bytes."""
    equal(one(with_keys("1→2", "1→3", "4"), Delimiter="→"), (["4"], ["1→"]))


def test_delimiter_of_several_characters():
    """The delimiter may be of several characters, all of which must be there."""
    equal(one(with_keys("a::1", "a::2", "a:3", "b"), Delimiter="::"), (["a:3", "b"], ["a::"]))


def test_delimiter_unreadable():
    """The delimiter may be a control character."""
    answer = main.s3.list_objects(Bucket=with_keys("a", "b"), Delimiter="\x0a")
    equal((names(answer), answer["Delimiter"]), ((["a", "b"], []), "\x0a"))


def test_delimiter_empty():
    """An empty delimiter is none, and is not said."""
    root = document_of(with_keys("a", "b/1"), "delimiter=")
    equal([key.text for key in root.findall("Contents/Key")], ["a", "b/1"])
    equal((root.findall("CommonPrefixes"), root.findtext("Delimiter") or ""), ([], ""))


def test_delimiter_that_no_key_has():
    """A delimiter that no key has changes nothing."""
    equal(one(with_keys("a", "b/1"), Delimiter="|"), (["a", "b/1"], []))


def test_delimiter_first():
    """A key that begins with the delimiter has that for its common prefix."""
    equal(one(with_keys("/a", "//b", "c"), Delimiter="/"), (["c"], ["/"]))
    equal(one(with_keys("/a", "//b", "c"), Delimiter="/", Prefix="/"), (["/a"], ["//"]))


def test_prefix_and_delimiter():
    """Within a prefix the delimiter counts from where the prefix ends."""
    bucket = with_keys("asdf", "boo/bar", "boo/baz/xyzzy", "cquux/thud", "cquux/bla")
    equal(one(bucket, Delimiter="/", Prefix="boo/"), (["boo/bar"], ["boo/baz/"]))
    equal(one(bucket, Delimiter="/", Prefix="cq"), ([], ["cquux/"]))
    equal(one(bucket, Delimiter="/", Prefix="cquux/"), (["cquux/bla", "cquux/thud"], []))
    equal(one(bucket, Delimiter="/", Prefix="none/"), ([], []))


def test_prefix_that_is_a_folder():
    """A key that is the prefix and ends with the delimiter is listed as a key."""
    equal(one(with_keys("a/", "a/b", "a/c/d"), Delimiter="/", Prefix="a/"), (["a/", "a/b"], ["a/c/"]))


def test_prefix_has_the_delimiter():
    """A delimiter that is part of the prefix only makes no common prefix."""
    equal(one(with_keys("a/b1", "a/b2"), Delimiter="/", Prefix="a/b"), (["a/b1", "a/b2"], []))


def test_prefix_ends_within_a_long_delimiter():
    """A delimiter is looked for behind the prefix: one that begins in it is none."""
    equal(one(with_keys("a::b", "a:c::d"), Delimiter="::", Prefix="a:"), (["a::b"], ["a:c::"]))


def test_a_key_and_its_folder():
    """A key and a common prefix that is the key with a slash are two entries."""
    equal(one(with_keys("a", "a/b", "a-"), Delimiter="/"), (["a", "a-"], ["a/"]))


def test_common_prefixes_count():
    """A common prefix counts as one for max-keys, however much is under it."""
    bucket = with_keys("a/1", "a/2", "a/3", "b", "c/1", "c/2", "d")
    answer = main.s3.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=2)
    equal((names(answer), answer["IsTruncated"], answer["NextMarker"]), ((["b"], ["a/"]), True, "b"))
    answer = main.s3.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=2, Marker="b")
    equal((names(answer), answer["IsTruncated"]), ((["d"], ["c/"]), False))


def test_common_prefix_of_deleted():
    """A common prefix under which nothing is left is gone."""
    bucket = with_keys("a/1", "b/1")
    main.s3.delete_object(Bucket=bucket, Key="a/1")
    equal(one(bucket, Delimiter="/"), ([], ["b/"]))


def test_pages_over_common_prefixes():
    """Page by page of one entry each, over keys and common prefixes, none comes twice and none is left out."""
    bucket = with_keys("a/1", "a/2", "b", "c/1", "c/2", "c/3", "d", "e/1")
    seen, marker = [], ""
    for _ in range(9):
        answer = main.s3.list_objects(Bucket=bucket, Delimiter="/", MaxKeys=1, Marker=marker)
        keys, prefixes = names(answer)
        equal(len(keys) + len(prefixes), 1)
        seen += keys + prefixes
        if not answer["IsTruncated"]:
            break
        marker = answer["NextMarker"]
    equal(seen, ["a/", "b", "c/", "d", "e/"])


def test_pages_in_a_prefix():
    """Likewise within a prefix."""
    bucket = with_keys("a", "p/1/x", "p/1/y", "p/2", "p/3/x", "q")
    keys, prefixes, sizes = paged("list_objects", bucket, 1, Delimiter="/", Prefix="p/")
    equal((keys, prefixes, sizes), (["p/2"], ["p/1/", "p/3/"], [1, 1, 1]))


def test_pages_of_keys():
    """Pages of one and of seven keys."""
    keys = [f"key-{number:02}" for number in range(22)]
    bucket = with_keys(*keys)
    for size, sizes in ((1, [1] * 22), (7, [7, 7, 7, 1]), (11, [11, 11]), (1000, [22])):
        equal(paged("list_objects", bucket, size), (keys, [], sizes), size)
        equal(paged("list_objects_v2", bucket, size), (keys, [], sizes), size)


def test_pages_of_odd_keys():
    """Pages of one, where keys have characters that a marker or a token must carry as they are."""
    keys = sorted([" ", "+", "%", "%2F", "&a=b", "a b", "a+b", "a#b", "a?b", "ä", "\U0001f600", "a\nb", "'\"", "<>", "\\", "."], key=str.encode)
    bucket = with_keys(*keys)
    equal(paged("list_objects", bucket, 1)[0], keys)
    equal(paged("list_objects_v2", bucket, 1)[0], keys)


def test_keys_added_between_pages():
    """A key that comes while pages are fetched is listed if it is behind the marker."""
    bucket = with_keys("a", "c", "e")
    token = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=2)["NextContinuationToken"]
    put(bucket, "b")
    put(bucket, "d")
    equal(two(bucket, ContinuationToken=token)[0], ["d", "e"])


def test_keys_deleted_between_pages():
    """A marker or token goes on to count when its key is deleted."""
    bucket = with_keys("a", "b", "c")
    token = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=2)["NextContinuationToken"]
    for key in ("a", "b"):
        main.s3.delete_object(Bucket=bucket, Key=key)
    equal(two(bucket, ContinuationToken=token)[0], ["c"])
    equal(one(bucket, Marker="b")[0], ["c"])


# --- encoding


ODD = ["a b", "a+b", "a%b", "a&b", "a<b", "a/b", "test_file(3).png", "ü", "a\x01b", "a~b", "a-b.c_d*e"]


def test_url_encoding_of_keys():
    """encoding-type=url encodes the keys, but not their slashes, and says so."""
    keys = sorted(ODD, key=str.encode)
    root = document_of(with_keys(*keys), "encoding-type=url")
    equal(root.findtext("EncodingType"), "url")
    # A space may be a plus, an asterisk may be either.
    got = [key.text.replace("+", "%20").replace("*", "%2A") for key in root.findall("Contents/Key")]
    equal(got, [quote(key, safe="/").replace("*", "%2A") for key in keys])


def test_url_encoding_as_documented():
    """The example of the reference: test_file(3).png is test_file%283%29.png."""
    root = document_of(with_keys("test_file(3).png"), "list-type=2&encoding-type=url")
    equal(root.findtext("Contents/Key"), "test_file%283%29.png")


def test_url_encoding_of_the_rest():
    """encoding-type=url encodes prefix, delimiter, marker and common prefixes too."""
    bucket = with_keys("ä&1", "ä&2/ü/x", "ä&3/ü/x")
    query = f"encoding-type=url&prefix={quote('ä&')}&delimiter={quote('ü')}&marker={quote('ä&1')}&max-keys=1"
    root = document_of(bucket, query)
    said = [root.findtext(name) for name in ("Prefix", "Delimiter", "Marker", "CommonPrefixes/Prefix", "NextMarker")]
    equal(said, [quote("ä&"), quote("ü"), quote("ä&1"), quote("ä&2/ü"), quote("ä&2/ü")])


def test_url_encoding_of_start_after():
    """encoding-type=url encodes StartAfter."""
    root = document_of(with_keys("a", "ü"), f"list-type=2&encoding-type=url&start-after={quote('ä')}")
    equal((root.findtext("StartAfter"), root.findtext("Contents/Key")), (quote("ä"), quote("ü")))


def test_without_encoding():
    """Without an encoding keys are as they are, in XML, and no EncodingType is said."""
    keys = sorted(["a b", "a+b", "a%20b", "a&b", "a<b>", "\"'", "ü", "\U0001f600"], key=str.encode)
    root = document_of(with_keys(*keys), "")
    equal([key.text for key in root.findall("Contents/Key")], keys)
    equal(root.find("EncodingType"), None)


def test_unknown_encoding():
    """An encoding that is not url: 400 InvalidArgument, of all listings."""
    bucket = with_keys("a")
    for query in ("", "list-type=2&", "versions&", "uploads&"):
        assert b"encoding-type" in rejected(bucket, f"{query}encoding-type=base64").data, query


def test_whitespace_at_the_ends():
    """Keys keep white space at their ends."""
    keys = [" a", "a ", "a  b"]
    bucket = with_keys(*keys)
    equal(one(bucket)[0], sorted(keys))
    equal([key.text for key in document_of(bucket, "list-type=2").findall("Contents/Key")], sorted(keys))


def test_long_key():
    """A key of 1,024 bytes is listed, and pages go on after it."""
    keys = ["k" * 1024, "l" * 1024]
    bucket = with_keys(*keys)
    equal(paged("list_objects_v2", bucket, 1)[0], keys)
    equal(one(bucket, Prefix="k" * 1024)[0], keys[:1])


# --- who may


def test_others_may_not():
    """Neither another account nor everybody may list: 403 AccessDenied."""
    bucket = with_keys("a")
    for call in (alt.s3.list_objects, alt.s3.list_objects_v2, anonymous.list_objects, anonymous.list_objects_v2):
        denied(call, Bucket=bucket)


def test_policy_lets_another_list():
    """Whom the policy allows s3:ListBucket may list, both ways."""
    bucket = with_keys("a")
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket)))
    equal(names(alt.s3.list_objects(Bucket=bucket))[0], ["a"])
    equal(names(alt.s3.list_objects_v2(Bucket=bucket))[0], ["a"])
    denied(alt.s3.list_multipart_uploads, Bucket=bucket)
    denied(tenant.s3.list_objects, Bucket=bucket)


def test_policy_of_a_prefix():
    """A policy may allow one prefix (s3:prefix): others are denied."""
    bucket = with_keys("home/a", "other")
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket), Condition={"StringEquals": {"s3:prefix": "home/"}}))
    equal(names(alt.s3.list_objects_v2(Bucket=bucket, Prefix="home/"))[0], ["home/a"])
    denied(alt.s3.list_objects_v2, Bucket=bucket)
    denied(alt.s3.list_objects, Bucket=bucket, Prefix="other")


def test_policy_of_max_keys():
    """A policy may allow so many keys at most (s3:max-keys)."""
    bucket = with_keys("a", "b", "c")
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket), Condition={"NumericLessThanEquals": {"s3:max-keys": "2"}}))
    equal(names(alt.s3.list_objects_v2(Bucket=bucket, MaxKeys=2))[0], ["a", "b"])
    denied(alt.s3.list_objects_v2, Bucket=bucket, MaxKeys=3)


def test_policy_of_a_delimiter():
    """A policy may want a delimiter (s3:delimiter)."""
    bucket = with_keys("a/1")
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket), Condition={"StringEquals": {"s3:delimiter": "/"}}))
    equal(names(alt.s3.list_objects_v2(Bucket=bucket, Delimiter="/")), ([], ["a/"]))
    denied(alt.s3.list_objects_v2, Bucket=bucket, Delimiter="-")


def test_public_list():
    """A bucket that everybody may list is listed without a signature."""
    bucket = with_keys("a")
    set_policy(bucket, statement("Allow", "*", "s3:ListBucket", arn(bucket)))
    equal(names(anonymous.list_objects_v2(Bucket=bucket))[0], ["a"])
    equal(raw("GET", f"/{bucket}?list-type=2").status, 200)


def test_expected_owner():
    """The expected owner of the bucket is checked: 403 if it is another."""
    bucket = with_keys("a")
    for call in (main.s3.list_objects, main.s3.list_objects_v2, main.s3.list_multipart_uploads):
        equal(status(call(Bucket=bucket, ExpectedBucketOwner=main.id)), 200)
        denied(call, Bucket=bucket, ExpectedBucketOwner=alt.id)


# --- ListObjectsV2


def test_v2_empty():
    """An empty bucket: KeyCount is 0, nothing is truncated, there is no token, no Marker."""
    bucket = new_bucket()
    said = {child.tag: child.text or "" for child in document_of(bucket, "list-type=2")}
    equal(said, {"Name": bucket, "Prefix": "", "KeyCount": "0", "MaxKeys": "1000", "IsTruncated": "false"})


def test_v2_no_such_bucket():
    """ListObjectsV2 of a bucket that is not there: 404 NoSuchBucket."""
    refused(404, "NoSuchBucket", main.s3.list_objects_v2, Bucket=new_name())


def test_v2_list_type():
    """A list-type of which there is none: 400 InvalidArgument."""
    bucket = with_keys("a")
    for text in ("3", "0", "two"):
        rejected(bucket, f"list-type={text}")


def test_v2_key_count():
    """KeyCount counts keys and common prefixes of the page."""
    bucket = with_keys("a", "b/1", "b/2", "c", "d")
    equal(main.s3.list_objects_v2(Bucket=bucket)["KeyCount"], 5)
    equal(main.s3.list_objects_v2(Bucket=bucket, Delimiter="/")["KeyCount"], 4)
    equal(main.s3.list_objects_v2(Bucket=bucket, Delimiter="/", MaxKeys=3)["KeyCount"], 3)
    equal(main.s3.list_objects_v2(Bucket=bucket, Prefix="none")["KeyCount"], 0)


def test_v2_start_after():
    """start-after begins behind a key, which need not be there, and is said."""
    bucket = with_keys("a", "b", "c")
    answer = main.s3.list_objects_v2(Bucket=bucket, StartAfter="b")
    equal((names(answer)[0], answer["StartAfter"]), (["c"], "b"))
    equal(two(bucket, StartAfter="aa")[0], ["b", "c"])
    equal(two(bucket, StartAfter="c"), ([], []))


def test_v2_start_after_unreadable():
    """start-after may be a control character."""
    equal(two(with_keys("a", "b"), StartAfter="\x0a")[0], ["a", "b"])


def test_v2_start_after_and_prefix():
    """start-after within a prefix, before it and behind it."""
    bucket = with_keys("a", "b1", "b2", "c")
    equal(two(bucket, Prefix="b", StartAfter="a")[0], ["b1", "b2"])
    equal(two(bucket, Prefix="b", StartAfter="b1")[0], ["b2"])
    equal(two(bucket, Prefix="b", StartAfter="c"), ([], []))


def test_v2_token():
    """The token of a truncated page begins the next, which says it again; the last page has none."""
    bucket = with_keys("a", "b", "c")
    first = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=2)
    equal((names(first)[0], first["IsTruncated"], first.get("ContinuationToken")), (["a", "b"], True, None))
    token = first["NextContinuationToken"]
    second = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=2, ContinuationToken=token)
    equal((names(second)[0], second["IsTruncated"], second["ContinuationToken"]), (["c"], False, token))
    equal(second.get("NextContinuationToken"), None)


def test_v2_token_and_start_after():
    """With both, the token counts; both are said."""
    bucket = with_keys("a", "b", "c", "d")
    first = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=1, StartAfter="a")
    equal(names(first)[0], ["b"])
    token = first["NextContinuationToken"]
    second = main.s3.list_objects_v2(Bucket=bucket, StartAfter="a", ContinuationToken=token)
    equal((names(second)[0], second["StartAfter"], second["ContinuationToken"]), (["c", "d"], "a", token))


def test_v2_token_with_another_size():
    """A token may be used again, and with another page size."""
    bucket = with_keys("a", "b", "c", "d")
    token = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=1)["NextContinuationToken"]
    equal(two(bucket, ContinuationToken=token, MaxKeys=2)[0], ["b", "c"])
    equal(two(bucket, ContinuationToken=token)[0], ["b", "c", "d"])


def test_v2_token_is_not_a_key():
    """The token is obfuscated: it is not the key where it begins."""
    bucket = with_keys("first-key", "second-key")
    token = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=1)["NextContinuationToken"]
    assert token not in ("first-key", "second-key"), token


def test_v2_token_invalid():
    """A token that no page gave, and an empty one: 400 InvalidArgument."""
    bucket = with_keys("a", "b")
    refused(400, "InvalidArgument", main.s3.list_objects_v2, Bucket=bucket, ContinuationToken="no token of ours!")
    rejected(bucket, "list-type=2&continuation-token=")


def test_v2_owner():
    """Owners are told only if fetch-owner is true."""
    bucket = with_keys("a")
    owner = main.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    equal(main.s3.list_objects_v2(Bucket=bucket)["Contents"][0].get("Owner"), None)
    equal(main.s3.list_objects_v2(Bucket=bucket, FetchOwner=False)["Contents"][0].get("Owner"), None)
    equal(main.s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]["Owner"]["ID"], owner)


def test_v2_what_is_said_of_an_object():
    """An object has its key, size, ETag, class and time."""
    entry = main.s3.list_objects_v2(Bucket=with_keys("key", body=b"hello"))["Contents"][0]
    equal((entry["Key"], entry["Size"], entry["StorageClass"]), ("key", 5, "STANDARD"))
    equal(entry["ETag"], '"5d41402abc4b2a76b9719d911017c592"')
    assert abs(datetime.now(timezone.utc) - entry["LastModified"]) < timedelta(minutes=1), entry


def test_v2_max_keys():
    """max-keys of zero, of one, and of more than 1000."""
    bucket = with_keys("a", "b")
    none = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    equal((names(none), none["KeyCount"], none["MaxKeys"], none["IsTruncated"]), (([], []), 0, 0, False))
    equal(none.get("NextContinuationToken"), None)
    first = main.s3.list_objects_v2(Bucket=bucket, MaxKeys=1)
    equal((names(first)[0], first["KeyCount"], first["IsTruncated"]), (["a"], 1, True))
    equal(main.s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)["MaxKeys"], 1000)


def test_v2_max_keys_bad():
    """A max-keys that is negative or no number: 400 InvalidArgument."""
    bucket = with_keys("a")
    rejected(bucket, "list-type=2&max-keys=-1")
    rejected(bucket, "list-type=2&max-keys=all")


def test_v2_marker_is_not_one():
    """A marker is none of V2's parameters: it has no effect."""
    root = document_of(with_keys("a", "b"), "list-type=2&marker=a")
    equal([key.text for key in root.findall("Contents/Key")], ["a", "b"])
    equal((root.find("Marker"), root.find("NextMarker")), (None, None))


def test_v1_start_after_is_not_one():
    """start-after is none of V1's parameters: it has no effect, and KeyCount is not said."""
    root = document_of(with_keys("a", "b"), "start-after=a&fetch-owner=false")
    equal([key.text for key in root.findall("Contents/Key")], ["a", "b"])
    equal((root.find("KeyCount"), root.find("StartAfter")), (None, None))


def test_v2_prefix_and_delimiter():
    """Prefix and delimiter are as those of ListObjects, and are said."""
    bucket = with_keys("asdf", "boo/bar", "boo/baz/xyzzy", "cquux/thud")
    answer = main.s3.list_objects_v2(Bucket=bucket, Delimiter="/", Prefix="boo/")
    equal((names(answer), answer["Prefix"], answer["Delimiter"]), ((["boo/bar"], ["boo/baz/"]), "boo/", "/"))
    equal(two(bucket, Delimiter="/"), (["asdf"], ["boo/", "cquux/"]))
    equal(two(bucket, Delimiter="o/ba"), (["asdf", "cquux/thud"], ["boo/ba"]))


def test_v2_pages_over_common_prefixes():
    """Pages of one entry over keys and common prefixes: a token after a common prefix leaves out all under it."""
    bucket = with_keys("a/1", "a/2", "b", "c/1", "c/2", "c/3", "d", "e/1")
    equal(paged("list_objects_v2", bucket, 1, Delimiter="/"), (["b", "d"], ["a/", "c/", "e/"], [1] * 5))
    equal(paged("list_objects_v2", bucket, 2, Delimiter="/"), (["b", "d"], ["a/", "c/", "e/"], [2, 2, 1]))


def test_v2_start_after_a_common_prefix():
    """start-after behind all keys of a folder leaves out its common prefix."""
    equal(two(with_keys("a/1", "b/1", "c"), Delimiter="/", StartAfter="a/1"), (["c"], ["b/"]))


def test_thousands():
    """2,100 keys come in order, by both operations, in pages of 1,000 or as many as are asked."""
    bucket = new_bucket()
    keys = sorted(f"{number % 7}/{number:05}" for number in range(2100))
    with ThreadPoolExecutor(8) as pool:
        assert all(answer.status == 200 for answer in pool.map(lambda key: signed("PUT", f"/{bucket}/{key}"), keys))
    for operation in ("list_objects", "list_objects_v2"):
        equal(paged(operation, bucket, 1000), (keys, [], [1000, 1000, 100]), operation)
        equal(paged(operation, bucket, 700), (keys, [], [700, 700, 700]), operation)
        equal(paged(operation, bucket, 5000), (keys, [], [1000, 1000, 100]), operation)
        equal(paged(operation, bucket, 2, Delimiter="/"), ([], [f"{number}/" for number in range(7)], [2, 2, 2, 1]), operation)
        equal(paged(operation, bucket, 7, Prefix="3/0000"), ([key for key in keys if key.startswith("3/0000")], [], [1]), operation)
        equal(paged(operation, bucket, 1000, Prefix="3/")[2], [300], operation)
    equal(len(main.s3.list_objects_v2(Bucket=bucket)["Contents"]), 1000)


# --- ListMultipartUploads


def begin(bucket, *keys, **arguments):
    """Begins uploads. Returns their ids."""
    return [main.s3.create_multipart_upload(Bucket=bucket, Key=key, **arguments)["UploadId"] for key in keys]


def with_uploads(*keys):
    bucket = new_bucket()
    return bucket, begin(bucket, *keys)


def uploads(answer):
    return [(upload["Key"], upload["UploadId"]) for upload in answer.get("Uploads", [])]


def all_uploads(bucket, size, **arguments):
    """The uploads page by page, with the number of pages."""
    seen, pages = [], 0
    while True:
        answer = main.s3.list_multipart_uploads(Bucket=bucket, MaxUploads=size, **arguments)
        seen += uploads(answer) + [prefix["Prefix"] for prefix in answer.get("CommonPrefixes", [])]
        pages += 1
        if not answer["IsTruncated"]:
            return seen, pages
        assert pages < 50, seen
        arguments.update(KeyMarker=answer["NextKeyMarker"], UploadIdMarker=answer.get("NextUploadIdMarker", ""))


def test_uploads_none():
    """A bucket without uploads lists none, and says what was not asked: 1000 at most."""
    bucket = new_bucket()
    root = document_of(bucket, "uploads")
    equal(root.tag, "ListMultipartUploadsResult")
    said = {name: root.findtext(name) for name in ("Bucket", "KeyMarker", "UploadIdMarker", "MaxUploads", "IsTruncated")}
    equal(said, {"Bucket": bucket, "KeyMarker": "", "UploadIdMarker": "", "MaxUploads": "1000", "IsTruncated": "false"})
    equal(root.findall("Upload"), [])


def test_uploads_of_no_bucket():
    """ListMultipartUploads of a bucket that is not there: 404 NoSuchBucket."""
    refused(404, "NoSuchBucket", main.s3.list_multipart_uploads, Bucket=new_name())


def test_uploads_what_is_said():
    """An upload has its key, id, class, owner, initiator and time."""
    bucket, (upload,) = with_uploads("key")
    entry = main.s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]
    equal((entry["Key"], entry["UploadId"], entry["StorageClass"]), ("key", upload, "STANDARD"))
    owner = main.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    equal(entry["Owner"]["ID"], owner)
    assert entry["Initiator"]["ID"], entry
    assert abs(datetime.now(timezone.utc) - entry["Initiated"]) < timedelta(minutes=1), entry


def test_uploads_checksum():
    """An upload that was begun with a checksum says which."""
    bucket = new_bucket()
    begin(bucket, "key", ChecksumAlgorithm="SHA256")
    entry = main.s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]
    equal((entry["ChecksumAlgorithm"], entry["ChecksumType"]), ("SHA256", "COMPOSITE"))


def test_uploads_order():
    """Uploads come by their keys."""
    bucket, ids = with_uploads("c", "a", "b/1", "B")
    equal(uploads(main.s3.list_multipart_uploads(Bucket=bucket)), [("B", ids[3]), ("a", ids[1]), ("b/1", ids[2]), ("c", ids[0])])


def test_uploads_of_one_key():
    """Those of one key come by the time at which they were begun."""
    bucket, ids = with_uploads("key", "key", "key", "key")
    equal(uploads(main.s3.list_multipart_uploads(Bucket=bucket)), [("key", upload) for upload in ids])


def test_uploads_done():
    """An upload that is complete or aborted is listed no more."""
    bucket, (first, second, third) = with_uploads("a", "b", "c")
    tag = main.s3.upload_part(Bucket=bucket, Key="a", UploadId=first, PartNumber=1, Body=b"x")["ETag"]
    main.s3.complete_multipart_upload(Bucket=bucket, Key="a", UploadId=first, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]})
    main.s3.abort_multipart_upload(Bucket=bucket, Key="b", UploadId=second)
    equal(uploads(main.s3.list_multipart_uploads(Bucket=bucket)), [("c", third)])


def test_uploads_are_not_objects():
    """Objects are not listed among uploads."""
    equal(uploads(main.s3.list_multipart_uploads(Bucket=with_keys("a", "b"))), [])


def test_uploads_prefix():
    """Only uploads whose keys begin with the prefix come, and the prefix is said."""
    bucket, ids = with_uploads("a", "b/1", "b/2", "c")
    answer = main.s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")
    equal((uploads(answer), answer["Prefix"]), ([("b/1", ids[1]), ("b/2", ids[2])], "b/"))
    equal(uploads(main.s3.list_multipart_uploads(Bucket=bucket, Prefix="x")), [])


def test_uploads_delimiter():
    """Uploads whose keys have the delimiter come as common prefixes, and the delimiter is said."""
    bucket, ids = with_uploads("a", "b/1", "b/2", "c/1", "d")
    answer = main.s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    equal((uploads(answer), answer["Delimiter"]), ([("a", ids[0]), ("d", ids[4])], "/"))
    equal([prefix["Prefix"] for prefix in answer["CommonPrefixes"]], ["b/", "c/"])


def test_uploads_prefix_and_delimiter():
    """Both together, with a delimiter of several characters."""
    bucket, ids = with_uploads("p/a", "p/b--1", "p/b--2", "q")
    answer = main.s3.list_multipart_uploads(Bucket=bucket, Prefix="p/", Delimiter="--")
    equal(uploads(answer), [("p/a", ids[0])])
    equal([prefix["Prefix"] for prefix in answer["CommonPrefixes"]], ["p/b--"])


def test_uploads_key_marker():
    """A key-marker alone leaves out all uploads of that key and before; it is said."""
    bucket, ids = with_uploads("a", "b", "b", "c")
    answer = main.s3.list_multipart_uploads(Bucket=bucket, KeyMarker="b")
    equal((uploads(answer), answer["KeyMarker"]), ([("c", ids[3])], "b"))
    equal(len(uploads(main.s3.list_multipart_uploads(Bucket=bucket, KeyMarker="aa"))), 3)


def test_uploads_both_markers():
    """With an upload-id-marker, further uploads of the key come as well."""
    bucket, ids = with_uploads("a", "b", "b", "c")
    answer = main.s3.list_multipart_uploads(Bucket=bucket, MaxUploads=2)
    equal((answer["NextKeyMarker"], answer["NextUploadIdMarker"]), ("b", ids[1]))
    answer = main.s3.list_multipart_uploads(Bucket=bucket, KeyMarker="b", UploadIdMarker=ids[1])
    equal((uploads(answer), answer["UploadIdMarker"]), ([("b", ids[2]), ("c", ids[3])], ids[1]))


def test_uploads_id_marker_alone():
    """An upload-id-marker without a key-marker is ignored."""
    bucket, ids = with_uploads("a", "b")
    equal(uploads(main.s3.list_multipart_uploads(Bucket=bucket, UploadIdMarker=ids[0])), [("a", ids[0]), ("b", ids[1])])


def test_uploads_truncated():
    """max-uploads cuts, and says where to go on; the last page does not say so."""
    bucket, ids = with_uploads("a", "b")
    answer = main.s3.list_multipart_uploads(Bucket=bucket, MaxUploads=1)
    equal((uploads(answer), answer["IsTruncated"], answer["MaxUploads"]), ([("a", ids[0])], True, 1))
    equal((answer["NextKeyMarker"], answer["NextUploadIdMarker"]), ("a", ids[0]))
    answer = main.s3.list_multipart_uploads(Bucket=bucket, MaxUploads=2)
    equal((len(uploads(answer)), answer["IsTruncated"]), (2, False))


def test_uploads_max_bad():
    """A max-uploads that is negative or no number: 400 InvalidArgument; more than 1000 are taken for 1000."""
    bucket = new_bucket()
    rejected(bucket, "uploads&max-uploads=-1")
    rejected(bucket, "uploads&max-uploads=some")
    equal(main.s3.list_multipart_uploads(Bucket=bucket, MaxUploads=2000)["MaxUploads"], 1000)


def test_uploads_one_by_one():
    """Pages of one, of several uploads per key: none comes twice, none is left out."""
    bucket, ids = with_uploads("a", "a", "a", "b", "c", "c")
    wanted = list(zip(["a", "a", "a", "b", "c", "c"], ids))
    equal(all_uploads(bucket, 1), (wanted, 6))
    equal(all_uploads(bucket, 4), (wanted, 2))
    equal(all_uploads(bucket, 1000), (wanted, 1))


def test_uploads_one_by_one_with_a_delimiter():
    """Pages of one over uploads and common prefixes."""
    bucket, ids = with_uploads("a/1", "a/2", "b", "b", "c/1", "d")
    equal(all_uploads(bucket, 1, Delimiter="/"), (["a/", ("b", ids[2]), ("b", ids[3]), "c/", ("d", ids[5])], 5))


def test_uploads_encoded():
    """encoding-type=url encodes keys, prefix, delimiter, markers and common prefixes."""
    bucket, _ = with_uploads("ä/1", "äö&")
    root = document_of(bucket, f"uploads&encoding-type=url&prefix={quote('ä')}&delimiter=%2F&key-marker={quote('ä')}")
    said = [root.findtext(name) for name in ("EncodingType", "Prefix", "KeyMarker", "CommonPrefixes/Prefix", "Upload/Key")]
    equal(said, ["url", quote("ä"), quote("ä"), quote("ä/"), quote("äö&")])


def test_uploads_others_may_not():
    """Another account may list uploads only if the policy allows it s3:ListBucketMultipartUploads."""
    bucket, ids = with_uploads("a")
    denied(alt.s3.list_multipart_uploads, Bucket=bucket)
    denied(anonymous.list_multipart_uploads, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucketMultipartUploads", arn(bucket)))
    equal(uploads(alt.s3.list_multipart_uploads(Bucket=bucket)), [("a", ids[0])])
    denied(alt.s3.list_objects_v2, Bucket=bucket)


# --- ListParts


def with_parts(*numbers, **arguments):
    """A bucket and the arguments that name an upload in it that has these parts, each of as many bytes as its number says."""
    bucket = new_bucket()
    upload = {"Bucket": bucket, "Key": "key", "UploadId": begin(bucket, "key", **arguments)[0]}
    for number in numbers:
        main.s3.upload_part(**upload, PartNumber=number, Body=b"x" * number)
    return upload


def parts(upload, **arguments):
    return [part["PartNumber"] for part in main.s3.list_parts(**upload, **arguments).get("Parts", [])]


def of_upload(upload):
    """The path and query of the upload."""
    return f"{upload['Bucket']}/{upload['Key']}", f"uploadId={quote(upload['UploadId'])}"


def test_parts_none():
    """An upload without parts lists none; the answer says bucket, key, id, class, owner and initiator."""
    upload = with_parts()
    answer = main.s3.list_parts(**upload)
    equal({name: answer[name] for name in upload}, upload)
    equal((answer.get("Parts", []), answer["IsTruncated"], answer["MaxParts"], answer["PartNumberMarker"]), ([], False, 1000, 0))
    equal(answer["StorageClass"], "STANDARD")
    equal(answer["Owner"]["ID"], main.s3.get_bucket_acl(Bucket=upload["Bucket"])["Owner"]["ID"])
    assert answer["Initiator"]["ID"], answer


def test_parts_what_is_said():
    """A part has its number, size, ETag and time."""
    upload = with_parts()
    tag = main.s3.upload_part(**upload, PartNumber=3, Body=b"hello")["ETag"]
    (part,) = main.s3.list_parts(**upload)["Parts"]
    equal((part["PartNumber"], part["Size"], part["ETag"]), (3, 5, tag))
    assert abs(datetime.now(timezone.utc) - part["LastModified"]) < timedelta(minutes=1), part


def test_parts_order():
    """Parts come by their numbers, however they were put."""
    equal(parts(with_parts(10, 2, 1, 9, 100)), [1, 2, 9, 10, 100])


def test_parts_put_again():
    """A part that was put again is listed once, as it is now."""
    upload = with_parts(1, 2)
    tag = main.s3.upload_part(**upload, PartNumber=1, Body=b"another")["ETag"]
    listed = [(part["PartNumber"], part["Size"]) for part in main.s3.list_parts(**upload)["Parts"]]
    equal((listed, main.s3.list_parts(**upload)["Parts"][0]["ETag"]), ([(1, 7), (2, 2)], tag))


def test_parts_max():
    """max-parts cuts, and the answer says where to go on."""
    answer = main.s3.list_parts(**with_parts(1, 3, 5), MaxParts=2)
    equal([part["PartNumber"] for part in answer["Parts"]], [1, 3])
    equal((answer["IsTruncated"], answer["MaxParts"], answer["NextPartNumberMarker"]), (True, 2, 3))


def test_parts_exact():
    """As many parts as there are: not truncated."""
    equal(main.s3.list_parts(**with_parts(1, 3), MaxParts=2)["IsTruncated"], False)


def test_parts_marker():
    """part-number-marker begins behind that number, be there such a part or not, and is said."""
    upload = with_parts(1, 3, 5)
    answer = main.s3.list_parts(**upload, PartNumberMarker=3)
    equal(([part["PartNumber"] for part in answer["Parts"]], answer["PartNumberMarker"]), ([5], 3))
    equal(parts(upload, PartNumberMarker=2), [3, 5])
    equal(parts(upload, PartNumberMarker=0), [1, 3, 5])
    equal(parts(upload, PartNumberMarker=10000), [])


def test_parts_pages():
    """The paginator finds all of them, in pages of one, of two and of 1000."""
    upload = with_parts(1, 2, 3, 4, 5)
    for size, count in ((1, 5), (2, 3), (1000, 1)):
        pages = list(main.s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": size}))
        equal(([part["PartNumber"] for page in pages for part in page["Parts"]], len(pages)), ([1, 2, 3, 4, 5], count))


def test_parts_max_over():
    """More than 1000 are taken for 1000."""
    equal(main.s3.list_parts(**with_parts(1), MaxParts=5000)["MaxParts"], 1000)


def test_parts_bad_numbers():
    """A max-parts or a marker that is negative or no number: 400 InvalidArgument."""
    path, query = of_upload(with_parts(1))
    for bad in ("max-parts=-1", "max-parts=x", "part-number-marker=-1", "part-number-marker=x"):
        rejected(path, f"{query}&{bad}")


def test_parts_of_no_upload():
    """An upload that is not there, or that is another key's: 404 NoSuchUpload."""
    upload = with_parts(1)
    refused(404, "NoSuchUpload", main.s3.list_parts, **{**upload, "UploadId": "none"})
    refused(404, "NoSuchUpload", main.s3.list_parts, **{**upload, "Key": "other"})
    refused(404, "NoSuchUpload", main.s3.list_parts, **{**upload, "Bucket": new_bucket()})


def test_parts_of_no_bucket():
    """An upload of a bucket that is not there: 404 NoSuchBucket."""
    refused(404, "NoSuchBucket", main.s3.list_parts, **{**with_parts(), "Bucket": new_name()})


def test_parts_of_an_upload_that_is_done():
    """After it is aborted or complete there is no upload: 404 NoSuchUpload."""
    upload = with_parts(1)
    main.s3.abort_multipart_upload(**upload)
    refused(404, "NoSuchUpload", main.s3.list_parts, **upload)
    upload = with_parts(1)
    done = [{"PartNumber": 1, "ETag": main.s3.list_parts(**upload)["Parts"][0]["ETag"]}]
    main.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
    refused(404, "NoSuchUpload", main.s3.list_parts, **upload)


def test_parts_checksums():
    """Parts of an upload with a checksum have theirs, and the answer says which."""
    upload = with_parts(ChecksumAlgorithm="SHA256")
    sent = main.s3.upload_part(**upload, PartNumber=1, Body=b"x", ChecksumAlgorithm="SHA256")
    answer = main.s3.list_parts(**upload)
    equal((answer["ChecksumAlgorithm"], answer["ChecksumType"]), ("SHA256", "COMPOSITE"))
    equal(answer["Parts"][0]["ChecksumSHA256"], sent["ChecksumSHA256"])


def test_parts_copied():
    """A part that was copied is listed as one that was put."""
    upload = with_parts()
    put(upload["Bucket"], "source", b"hello")
    source = {"Bucket": upload["Bucket"], "Key": "source"}
    copied = main.s3.upload_part_copy(**upload, PartNumber=1, CopySource=source, CopySourceRange="bytes=1-3")
    (part,) = main.s3.list_parts(**upload)["Parts"]
    equal((part["Size"], part["ETag"]), (3, copied["CopyPartResult"]["ETag"]))


def test_parts_others_may_not():
    """Another account may list parts only if the policy allows it s3:ListMultipartUploadParts."""
    upload = with_parts(1)
    denied(alt.s3.list_parts, **upload)
    denied(anonymous.list_parts, **upload)
    bucket = upload["Bucket"]
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListMultipartUploadParts", arn(bucket, "*")))
    equal(len(alt.s3.list_parts(**upload)["Parts"]), 1)
