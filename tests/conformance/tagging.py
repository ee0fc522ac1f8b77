"""Tags of objects: PutObjectTagging, GetObjectTagging, DeleteObjectTagging, x-amz-tagging, limits, versions, and who may do what."""

from urllib.parse import quote, urlencode

from support import *


def pairs(tags):
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag(bucket, tags, key="key", who=main, **more):
    return who.s3.put_object_tagging(Bucket=bucket, Key=key, Tagging={"TagSet": pairs(tags)}, **more)


def tags_of(bucket, key="key", who=main, **more):
    return {one["Key"]: one["Value"] for one in who.s3.get_object_tagging(Bucket=bucket, Key=key, **more)["TagSet"]}


def tagged(**tags):
    """A bucket with an object that has these tags."""
    bucket = new_bucket()
    put(bucket, "key", Tagging=urlencode(tags))
    return bucket


def versioned():
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def document_of(*inside):
    return f"<Tagging><TagSet>{''.join(inside)}</TagSet></Tagging>".encode()


def element(key="k", value="v"):
    return f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"


# --- the three operations


def test_none():
    """An object has no tags at first: 200 with an empty set."""
    bucket = new_bucket()
    put(bucket, "key")
    answer = main.s3.get_object_tagging(Bucket=bucket, Key="key")
    equal((status(answer), answer["TagSet"]), (200, []))


def test_put_get_delete():
    """What was put is got; after DELETE there is none. 200, 200, 204."""
    bucket = tagged()
    equal(status(tag(bucket, {"one": "1", "two": "2"})), 200)
    equal(tags_of(bucket), {"one": "1", "two": "2"})
    equal(status(main.s3.delete_object_tagging(Bucket=bucket, Key="key")), 204)
    equal(tags_of(bucket), {})


def test_put_replaces():
    """PutObjectTagging replaces the whole set."""
    bucket = tagged(one="1", two="2")
    tag(bucket, {"two": "b", "three": "c"})
    equal(tags_of(bucket), {"two": "b", "three": "c"})


def test_put_empty():
    """An empty set removes all tags."""
    bucket = tagged(one="1")
    equal(status(tag(bucket, {})), 200)
    equal(tags_of(bucket), {})


def test_delete_none():
    """DeleteObjectTagging of an object without tags is 204."""
    bucket = new_bucket()
    put(bucket, "key")
    equal(status(main.s3.delete_object_tagging(Bucket=bucket, Key="key")), 204)


def test_bodies_are_empty():
    """The answers of PUT and DELETE have no body."""
    bucket = tagged()
    equal(signed("PUT", f"/{bucket}/key?tagging", document_of(element())).data, b"")
    equal(signed("DELETE", f"/{bucket}/key?tagging").data, b"")


def test_xml():
    """GetObjectTagging answers a Tagging with a TagSet, in the namespace of S3."""
    bucket = tagged(one="1")
    answer = signed("GET", f"/{bucket}/key?tagging")
    text = answer.data.decode()
    equal(answer.headers["content-type"], "application/xml")
    for part in ('<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/">', "<TagSet><Tag><Key>one</Key><Value>1</Value></Tag></TagSet>"):
        assert part in text, text


def test_no_such_key():
    """All three of an object that is not there: 404 NoSuchKey, with the key."""
    bucket = new_bucket()
    for call, more in ((main.s3.get_object_tagging, {}), (main.s3.put_object_tagging, {"Tagging": {"TagSet": []}}),
                       (main.s3.delete_object_tagging, {})):
        error = refused(404, "NoSuchKey", call, Bucket=bucket, Key="none", **more)
        equal(error["Error"].get("Key"), "none")


def test_no_such_bucket():
    """All three in a bucket that is not there: 404 NoSuchBucket."""
    name = new_name()
    refused(404, "NoSuchBucket", main.s3.get_object_tagging, Bucket=name, Key="key")
    refused(404, "NoSuchBucket", main.s3.put_object_tagging, Bucket=name, Key="key", Tagging={"TagSet": []})
    refused(404, "NoSuchBucket", main.s3.delete_object_tagging, Bucket=name, Key="key")


def test_object_is_the_same():
    """Tags change neither the object's body, ETag, Last-Modified nor its metadata."""
    bucket = new_bucket()
    put(bucket, "key", Metadata={"a": "b"}, ContentType="text/x-mine")
    before = main.s3.head_object(Bucket=bucket, Key="key")
    tag(bucket, {"one": "1"})
    after = main.s3.head_object(Bucket=bucket, Key="key")
    for name in ("ETag", "LastModified", "ContentLength", "ContentType", "Metadata"):
        equal(after[name], before[name], name)
    equal(read(main, bucket, "key"), b"body")


def test_overwritten():
    """An object that is put again has none of the tags of before."""
    bucket = tagged(one="1")
    put(bucket, "key", b"new")
    equal(tags_of(bucket), {})


def test_deleted():
    """An object that is deleted and put again has none of the tags of before."""
    bucket = tagged(one="1")
    main.s3.delete_object(Bucket=bucket, Key="key")
    refused(404, "NoSuchKey", main.s3.get_object_tagging, Bucket=bucket, Key="key")
    put(bucket, "key")
    equal(tags_of(bucket), {})


# --- x-amz-tagging-count


def test_count():
    """GET and HEAD tell how many tags there are."""
    bucket = tagged(one="1", two="2", three="3")
    equal(main.s3.get_object(Bucket=bucket, Key="key")["TagCount"], 3)
    equal(signed("HEAD", f"/{bucket}/key").headers.get("x-amz-tagging-count"), "3")


def test_count_of_none():
    """Without tags there is no x-amz-tagging-count."""
    bucket = tagged()
    equal(signed("GET", f"/{bucket}/key").headers.get("x-amz-tagging-count"), None)


def test_count_follows():
    """The count follows PutObjectTagging and DeleteObjectTagging."""
    bucket = tagged(one="1")
    tag(bucket, {"one": "1", "two": "2"})
    equal(main.s3.get_object(Bucket=bucket, Key="key")["TagCount"], 2)
    main.s3.delete_object_tagging(Bucket=bucket, Key="key")
    equal("TagCount" in main.s3.get_object(Bucket=bucket, Key="key"), False)


def test_count_wants_permission():
    """The count is told to those alone who may read the tags."""
    bucket = tagged(one="1")
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal("TagCount" in alt.s3.get_object(Bucket=bucket, Key="key"), False)
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObject", "s3:GetObjectTagging"], arn(bucket, "*")))
    equal(alt.s3.get_object(Bucket=bucket, Key="key").get("TagCount"), 1)


# --- limits


def invalid(tags):
    """PutObjectTagging refuses these with 400 InvalidTag; what was stays."""
    bucket = tagged(was="there")
    refused(400, "InvalidTag", tag, bucket=bucket, tags=tags)
    equal(tags_of(bucket), {"was": "there"})


def test_ten():
    """Ten tags are taken, eleven are 400 BadRequest."""
    bucket = tagged()
    tag(bucket, {f"k{number}": "v" for number in range(10)})
    refused(400, "BadRequest", tag, bucket=bucket, tags={f"x{number}": "v" for number in range(11)})
    equal(len(tags_of(bucket)), 10)


def test_long_key():
    """A key of 128 characters is taken, one of 129 is 400 InvalidTag."""
    bucket = tagged()
    tag(bucket, {"k" * 128: "v"})
    equal(tags_of(bucket), {"k" * 128: "v"})
    invalid({"k" * 129: "v"})


def test_long_value():
    """A value of 256 characters is taken, one of 257 is 400 InvalidTag."""
    bucket = tagged()
    tag(bucket, {"k": "v" * 256})
    equal(tags_of(bucket), {"k": "v" * 256})
    invalid({"k": "v" * 257})


def test_length_is_of_characters():
    """Lengths are of characters, not of bytes."""
    bucket = tagged()
    tag(bucket, {"é" * 128: "日" * 256})
    equal(tags_of(bucket), {"é" * 128: "日" * 256})
    invalid({"é" * 129: "v"})
    invalid({"k": "日" * 257})


def test_largest_set():
    """Ten tags of the greatest lengths are taken."""
    bucket = tagged()
    tags = {str(number) + "k" * 127: "v" * 256 for number in range(10)}
    tag(bucket, tags)
    equal(tags_of(bucket), tags)


def test_empty_key():
    """An empty key is 400 InvalidTag."""
    bucket = tagged()
    answer = signed("PUT", f"/{bucket}/key?tagging", document_of(element(key="")))
    equal((answer.status, code(answer)), (400, "InvalidTag"))


def test_empty_value():
    """An empty value is taken."""
    bucket = tagged()
    tag(bucket, {"k": ""})
    equal(tags_of(bucket), {"k": ""})


def test_duplicate_key():
    """The same key twice is 400 InvalidTag, also with the same value; the error names the key."""
    bucket = tagged()
    for value in ("v", "w"):
        answer = signed("PUT", f"/{bucket}/key?tagging", document_of(element("k", "v"), element("k", value)))
        equal((answer.status, code(answer)), (400, "InvalidTag"))
        assert "<Message>Cannot provide multiple Tags with the same key</Message>" in answer.data.decode(), answer.data


def test_case_matters():
    """Keys are case-sensitive: K and k are two."""
    bucket = tagged()
    tag(bucket, {"k": "v", "K": "V"})
    equal(tags_of(bucket), {"k": "v", "K": "V"})


def test_allowed_characters():
    """Letters, digits, spaces and + - = . _ : / @ are allowed in keys and values."""
    bucket = tagged()
    text = "aZ09 +-=._:/@"
    tag(bucket, {text: text})
    equal(tags_of(bucket), {text: text})


def test_letters_of_all_scripts():
    """Letters and digits of any script are allowed."""
    bucket = tagged()
    tags = {"größe": "Übung", "ключ": "значение", "鍵": "値", "مفتاح": "٣"}
    tag(bucket, tags)
    equal(tags_of(bucket), tags)


def test_forbidden_characters():
    """Other characters are 400 InvalidTag, in keys and in values."""
    for character in "!#$%&*()<>?;,'\"[]{}|\\^~`":
        invalid({"k" + character: "v"})
        invalid({"k": "v" + character})


def test_control_characters():
    """A line break within a key or a value is 400 InvalidTag."""
    bucket = tagged()
    for one in (element("a&#10;b", "v"), element("k", "a&#13;b")):
        answer = signed("PUT", f"/{bucket}/key?tagging", document_of(one))
        equal((answer.status, code(answer)), (400, "InvalidTag"), one)


def test_reserved_prefix():
    """Keys with the prefix aws: are the system's: 400 InvalidTag."""
    invalid({"aws:mine": "v"})
    bucket = tagged()
    tag(bucket, {"my:aws:tag": "aws:value"})
    equal(tags_of(bucket), {"my:aws:tag": "aws:value"})


# --- malformed documents


def malformed(body):
    bucket = tagged(was="there")
    answer = signed("PUT", f"/{bucket}/key?tagging", body)
    equal((answer.status, code(answer)), (400, "MalformedXML"), body)
    equal(tags_of(bucket), {"was": "there"})


def test_not_xml():
    """What is no XML is 400 MalformedXML."""
    for body in (b"x", b"<Tagging>", b"{}", b"<Tagging><TagSet></Tagging></TagSet>", b"\xff\xfe\x00"):
        malformed(body)


def test_other_root():
    """Another root element is 400 MalformedXML."""
    malformed(b"<Tags><TagSet/></Tags>")


def test_no_tag_set():
    """A Tagging without a TagSet is 400 MalformedXML."""
    malformed(b"<Tagging/>")


def test_two_tag_sets():
    """Two TagSets are 400 MalformedXML."""
    malformed(f"<Tagging><TagSet>{element('a')}</TagSet><TagSet>{element('b')}</TagSet></Tagging>".encode())


def test_no_key():
    """A tag without a key is 400 MalformedXML."""
    malformed(document_of("<Tag><Value>v</Value></Tag>"))


def test_no_value():
    """A tag without a value is 400 MalformedXML."""
    malformed(document_of("<Tag><Key>k</Key></Tag>"))


def test_unknown_element():
    """An unknown element is 400 MalformedXML."""
    malformed(document_of("<Tag><Key>k</Key><Value>v</Value><Colour>red</Colour></Tag>"))
    malformed(document_of("<Label><Key>k</Key><Value>v</Value></Label>"))


def test_two_keys():
    """A tag with two keys is 400 MalformedXML."""
    malformed(document_of("<Tag><Key>k</Key><Key>l</Key><Value>v</Value></Tag>"))


def test_no_body():
    """An empty body is 400, and the tags stay."""
    bucket = tagged(was="there")
    answer = signed("PUT", f"/{bucket}/key?tagging", b"")
    equal(answer.status, 400)
    assert code(answer) in ("MalformedXML", "MissingRequestBodyError"), answer.data
    equal(tags_of(bucket), {"was": "there"})


def test_namespace_and_declaration():
    """The document may have a declaration, the namespace of S3 and white space between elements."""
    bucket = tagged()
    body = ('<?xml version="1.0" encoding="UTF-8"?>\n<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/">\n <TagSet>\n  <Tag>\n'
            "   <Value>v</Value>\n   <Key>k</Key>\n  </Tag>\n </TagSet>\n</Tagging>\n")
    equal(signed("PUT", f"/{bucket}/key?tagging", body.encode()).status, 200)
    equal(tags_of(bucket), {"k": "v"})


def test_entities():
    """References to characters are what they stand for; entities of one's own are not taken."""
    bucket = tagged()
    equal(signed("PUT", f"/{bucket}/key?tagging", document_of(element("&#107;", "&#x76;"))).status, 200)
    equal(tags_of(bucket), {"k": "v"})
    body = b'<!DOCTYPE t [<!ENTITY e "v">]>' + document_of(element("k", "&e;"))
    equal(signed("PUT", f"/{bucket}/key?tagging", body).status, 400)


# --- x-amz-tagging


def with_header(text, bucket=None):
    return signed("PUT", f"/{bucket or new_bucket()}/key", b"body", x_amz_tagging=text)


def test_put_with_tags():
    """PutObject takes tags in x-amz-tagging, encoded as a query is."""
    bucket = new_bucket()
    tags = {"one": "1", "with space": "a b", "é": "ü", "+-=._:/@": "+-=._:/@"}
    put(bucket, "key", Tagging=urlencode(tags, quote_via=quote))
    equal(tags_of(bucket), tags)


def test_header_plus():
    """A plus sign in x-amz-tagging is a space."""
    bucket = new_bucket()
    with_header("a+b=c+d", bucket)
    equal(tags_of(bucket), {"a b": "c d"})


def test_header_without_value():
    """A key without a value in x-amz-tagging has an empty one."""
    bucket = new_bucket()
    equal(with_header("one&two=", bucket).status, 200)
    equal(tags_of(bucket), {"one": "", "two": ""})


def test_header_empty():
    """An empty x-amz-tagging is no tag."""
    bucket = new_bucket()
    equal(with_header("", bucket).status, 200)
    equal(tags_of(bucket), {})


def test_header_eleven():
    """Eleven tags in x-amz-tagging are 400 BadRequest, ten are taken; nothing is written by what is refused."""
    bucket = new_bucket()
    answer = with_header("&".join(f"k{number}=v" for number in range(11)), bucket)
    equal((answer.status, code(answer)), (400, "BadRequest"))
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")
    equal(with_header("&".join(f"k{number}=v" for number in range(10)), bucket).status, 200)
    equal(len(tags_of(bucket)), 10)


def test_header_duplicate():
    """x-amz-tagging is "without tag name duplicates": 400 InvalidArgument, and nothing is written."""
    bucket = new_bucket()
    answer = with_header("k=v&k=w", bucket)
    equal((answer.status, code(answer)), (400, "InvalidArgument"))
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")


def test_header_invalid():
    """Tags that are too long, reserved or of forbidden characters are 400 InvalidTag in x-amz-tagging too."""
    bucket = new_bucket()
    for text in ("k" * 129 + "=v", "k=" + "v" * 257, "aws:k=v", "k%21=v", "k=v%21"):
        answer = with_header(text, bucket)
        equal((answer.status, code(answer)), (400, "InvalidTag"), text)
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")


def test_header_malformed():
    """x-amz-tagging that is not encoded as a query is 400 InvalidArgument."""
    for text in ("k=%", "k=%zz", "k=%ff"):
        answer = with_header(text)
        equal((answer.status, code(answer)), (400, "InvalidArgument"), text)


def test_multipart():
    """CreateMultipartUpload takes x-amz-tagging; the object has the tags once it is complete."""
    bucket = new_bucket()
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key", Tagging="one=1&two=2")["UploadId"]
    part = main.s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    refused(404, "NoSuchKey", main.s3.get_object_tagging, Bucket=bucket, Key="key")
    main.s3.complete_multipart_upload(
        Bucket=bucket, Key="key", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
    equal(tags_of(bucket), {"one": "1", "two": "2"})
    equal(main.s3.get_object(Bucket=bucket, Key="key")["TagCount"], 2)


def test_multipart_invalid():
    """CreateMultipartUpload with an invalid tag is 400 InvalidTag, and no upload begins."""
    bucket = new_bucket()
    refused(400, "InvalidTag", main.s3.create_multipart_upload, Bucket=bucket, Key="key", Tagging="k%21=v")
    equal(main.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []), [])


# --- copies


def copy(bucket, who=main, **more):
    return who.s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key", **more)


def test_copy_keeps():
    """A copy has its source's tags, by default and with the directive COPY."""
    bucket = tagged(one="1")
    for more in ({}, {"TaggingDirective": "COPY"}):
        copy(bucket, **more)
        equal(tags_of(bucket, "copy"), {"one": "1"}, more)


def test_copy_replaces():
    """With the directive REPLACE a copy has the tags of the request; the source keeps its own."""
    bucket = tagged(one="1")
    copy(bucket, TaggingDirective="REPLACE", Tagging="two=2")
    equal((tags_of(bucket, "copy"), tags_of(bucket)), ({"two": "2"}, {"one": "1"}))


def test_copy_replaces_by_none():
    """With the directive REPLACE and without tags a copy has none."""
    bucket = tagged(one="1")
    copy(bucket, TaggingDirective="REPLACE")
    equal(tags_of(bucket, "copy"), {})


def test_copy_unknown_directive():
    """Another directive is 400 InvalidArgument."""
    refused(400, "InvalidArgument", copy, bucket=tagged(one="1"), TaggingDirective="MERGE")


def test_copy_invalid():
    """A copy with an invalid tag is 400 InvalidTag, and nothing is copied."""
    bucket = tagged()
    refused(400, "InvalidTag", copy, bucket=bucket, TaggingDirective="REPLACE", Tagging="k%21=v")
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="copy")


def test_copies_are_apart():
    """Tags of a copy that change do not change its source's."""
    bucket = tagged(one="1")
    copy(bucket)
    tag(bucket, {"two": "2"}, "copy")
    equal((tags_of(bucket, "copy"), tags_of(bucket)), ({"two": "2"}, {"one": "1"}))


def test_metadata_directive_is_apart():
    """The directives of metadata and of tags are two: metadata that is replaced keeps the tags."""
    bucket = tagged(one="1")
    copy(bucket, MetadataDirective="REPLACE", Metadata={"a": "b"})
    equal(tags_of(bucket, "copy"), {"one": "1"})


# --- versions


def test_versions():
    """Each version has tags of its own; without a version the current one is meant. The answers name the version."""
    bucket = versioned()
    one, two = put(bucket, "key", b"one")["VersionId"], put(bucket, "key", b"two")["VersionId"]
    equal(tag(bucket, {"of": "one"}, VersionId=one)["VersionId"], one)
    equal(tag(bucket, {"of": "two"})["VersionId"], two)
    equal(tags_of(bucket, VersionId=one), {"of": "one"})
    equal(main.s3.get_object_tagging(Bucket=bucket, Key="key")["VersionId"], two)
    equal(tags_of(bucket), {"of": "two"})


def test_delete_of_a_version():
    """DeleteObjectTagging with a version leaves the tags of the others."""
    bucket = versioned()
    one = put(bucket, "key", b"one", Tagging="of=one")["VersionId"]
    put(bucket, "key", b"two", Tagging="of=two")
    equal(main.s3.delete_object_tagging(Bucket=bucket, Key="key", VersionId=one)["VersionId"], one)
    equal((tags_of(bucket, VersionId=one), tags_of(bucket)), ({}, {"of": "two"}))


def test_tags_make_no_version():
    """Tagging makes no new version."""
    bucket = versioned()
    put(bucket, "key")
    tag(bucket, {"one": "1"})
    main.s3.delete_object_tagging(Bucket=bucket, Key="key")
    equal(len(main.s3.list_object_versions(Bucket=bucket)["Versions"]), 1)


def test_no_such_version():
    """A version that is deleted is 404 NoSuchVersion for all three."""
    bucket = versioned()
    version = put(bucket, "key")["VersionId"]
    put(bucket, "key")
    main.s3.delete_object(Bucket=bucket, Key="key", VersionId=version)
    said = {"Bucket": bucket, "Key": "key", "VersionId": version}
    refused(404, "NoSuchVersion", main.s3.get_object_tagging, **said)
    refused(404, "NoSuchVersion", main.s3.put_object_tagging, **said, Tagging={"TagSet": []})
    refused(404, "NoSuchVersion", main.s3.delete_object_tagging, **said)


def test_delete_marker():
    """A delete marker has no tags: 405 MethodNotAllowed by its version."""
    bucket = versioned()
    put(bucket, "key")
    marker = main.s3.delete_object(Bucket=bucket, Key="key")["VersionId"]
    said = {"Bucket": bucket, "Key": "key", "VersionId": marker}
    refused(405, "MethodNotAllowed", main.s3.get_object_tagging, **said)
    refused(405, "MethodNotAllowed", main.s3.put_object_tagging, **said, Tagging={"TagSet": []})
    refused(405, "MethodNotAllowed", main.s3.delete_object_tagging, **said)


def test_copy_of_a_version():
    """A copy of an earlier version has that version's tags."""
    bucket = versioned()
    one = put(bucket, "key", b"one", Tagging="of=one")["VersionId"]
    put(bucket, "key", b"two", Tagging="of=two")
    main.s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "key", "VersionId": one})
    equal(tags_of(bucket, "copy"), {"of": "one"})


# --- who may


def test_others_may_not():
    """Another account and the anonymous may do none of the three."""
    bucket = tagged(one="1")
    for who in (alt.s3, anonymous):
        denied(who.get_object_tagging, Bucket=bucket, Key="key")
        denied(who.put_object_tagging, Bucket=bucket, Key="key", Tagging={"TagSet": []})
        denied(who.delete_object_tagging, Bucket=bucket, Key="key")
    equal(tags_of(bucket), {"one": "1"})


def test_others_of_a_missing_object():
    """Who may not list learns nothing of a missing object: 403."""
    denied(alt.s3.get_object_tagging, Bucket=tagged(), Key="none")


def test_actions():
    """Each of the three has an action of its own."""
    calls = {
        "s3:GetObjectTagging": lambda bucket: alt.s3.get_object_tagging(Bucket=bucket, Key="key"),
        "s3:PutObjectTagging": lambda bucket: tag(bucket, {"by": "alt"}, who=alt),
        "s3:DeleteObjectTagging": lambda bucket: alt.s3.delete_object_tagging(Bucket=bucket, Key="key"),
    }
    bucket = tagged(one="1")
    for allowed in calls:
        set_policy(bucket, statement("Allow", alt.arn, allowed, arn(bucket, "*")))
        for action, call in calls.items():
            if action == allowed:
                call(bucket)
            else:
                denied(call, bucket=bucket)


def test_object_actions_do_not_do():
    """s3:GetObject and s3:PutObject are not enough for tags."""
    bucket = tagged(one="1")
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObject", "s3:PutObject"], arn(bucket, "*")))
    denied(alt.s3.get_object_tagging, Bucket=bucket, Key="key")
    denied(tag, bucket=bucket, tags={"by": "alt"}, who=alt)


def test_put_with_tags_wants_permission():
    """PutObject with x-amz-tagging wants s3:PutObjectTagging too."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    put(bucket, "plain", who=alt)
    denied(put, bucket=bucket, key="key", who=alt, Tagging="by=alt")
    set_policy(bucket, statement("Allow", alt.arn, ["s3:PutObject", "s3:PutObjectTagging"], arn(bucket, "*")))
    put(bucket, "key", who=alt, Tagging="by=alt")
    equal(tags_of(bucket), {"by": "alt"})


def test_multipart_with_tags_wants_permission():
    """CreateMultipartUpload with x-amz-tagging wants s3:PutObjectTagging too."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    denied(alt.s3.create_multipart_upload, Bucket=bucket, Key="key", Tagging="by=alt")


def test_version_actions():
    """The tags of a version named have actions of their own: s3:GetObjectVersionTagging and so on."""
    bucket = versioned()
    version = put(bucket, "key")["VersionId"]
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObjectTagging", "s3:PutObjectTagging"], arn(bucket, "*")))
    alt.s3.get_object_tagging(Bucket=bucket, Key="key")
    denied(alt.s3.get_object_tagging, Bucket=bucket, Key="key", VersionId=version)
    denied(tag, bucket=bucket, tags={}, who=alt, VersionId=version)
    actions = ["s3:GetObjectVersionTagging", "s3:PutObjectVersionTagging", "s3:DeleteObjectVersionTagging"]
    set_policy(bucket, statement("Allow", alt.arn, actions, arn(bucket, "*")))
    tag(bucket, {"by": "alt"}, who=alt, VersionId=version)
    equal(tags_of(bucket, who=alt, VersionId=version), {"by": "alt"})
    equal(status(alt.s3.delete_object_tagging(Bucket=bucket, Key="key", VersionId=version)), 204)
    denied(alt.s3.get_object_tagging, Bucket=bucket, Key="key")


def test_expected_owner():
    """x-amz-expected-bucket-owner of another account is 403 for all three."""
    bucket = tagged(one="1")
    said = {"Bucket": bucket, "Key": "key", "ExpectedBucketOwner": alt.id}
    denied(main.s3.get_object_tagging, **said)
    denied(main.s3.put_object_tagging, **said, Tagging={"TagSet": []})
    denied(main.s3.delete_object_tagging, **said)
    equal(tags_of(bucket, ExpectedBucketOwner=main.id), {"one": "1"})
