"""Versioning: the states of a bucket, version ids, null versions, delete markers, ListObjectVersions, and what takes a versionId."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from urllib.parse import quote
from xml.etree import ElementTree

from support import *


def set_state(bucket, state, who=main, **arguments):
    return who.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": state, **arguments})


def versioned():
    bucket = new_bucket()
    set_state(bucket, "Enabled")
    return bucket


def suspended():
    """A bucket whose versioning was enabled and then suspended."""
    bucket = versioned()
    set_state(bucket, "Suspended")
    return bucket


def put_all(bucket, key, *bodies):
    """Puts one version for each body. Returns their ids, oldest first."""
    return [put(bucket, key, body)["VersionId"] for body in bodies]


def two_versions():
    """A bucket with two versions of `key`, of the bodies `one` and `second`."""
    bucket = versioned()
    return bucket, *put_all(bucket, "key", b"one", b"second")


def delete(bucket, key, version=None, who=main):
    return who.s3.delete_object(Bucket=bucket, Key=key, **({} if version is None else {"VersionId": version}))


def with_marker():
    """A bucket, the id of the one version of `key`, and that of the delete marker on it."""
    bucket = versioned()
    (version,) = put_all(bucket, "key", b"body")
    return bucket, version, delete(bucket, "key")["VersionId"]


def gone(bucket, key):
    """The id of a version of the key that was removed."""
    version = put(bucket, key)["VersionId"]
    delete(bucket, key, version)
    return version


def plain(root):
    """Takes the namespaces off."""
    for element in root.iter():
        element.tag = element.tag.partition("}")[2] or element.tag
    return root


def listing(bucket, query=""):
    """The XML of ListObjectVersions without what boto3 makes of it."""
    answer = signed("GET", f"/{bucket}?{query}{'&' if query else ''}versions")
    equal(answer.status, 200, answer.data)
    return plain(ElementTree.fromstring(answer.data))


def entries(bucket, query=""):
    """Versions and markers as they come: kind, key, id."""
    found = [entry for entry in listing(bucket, query) if entry.tag in ("Version", "DeleteMarker")]
    return [(entry.tag, entry.findtext("Key"), entry.findtext("VersionId")) for entry in found]


def ids(bucket, query=""):
    return [version for _, _, version in entries(bucket, query)]


def versions(answer):
    return [(entry["Key"], entry["VersionId"]) for entry in answer.get("Versions", [])]


def prefixes(answer):
    return [entry["Prefix"] for entry in answer.get("CommonPrefixes", [])]


def headers(answer):
    return answer["ResponseMetadata"]["HTTPHeaders"]


# --- the state of a bucket


def test_state_of_a_new_bucket():
    """A bucket that never had versioning has neither a Status nor an MfaDelete."""
    answer = signed("GET", f"/{new_bucket()}?versioning")
    equal(answer.status, 200)
    root = ElementTree.fromstring(answer.data)
    equal((root.tag.rpartition("}")[2], len(root)), ("VersioningConfiguration", 0))


def test_state_enabled():
    """What was enabled is got as Enabled; PutBucketVersioning is 200."""
    bucket = new_bucket()
    equal(status(set_state(bucket, "Enabled")), 200)
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")


def test_state_suspended():
    """Suspended after Enabled, and Enabled again."""
    bucket = versioned()
    set_state(bucket, "Suspended")
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Suspended")
    set_state(bucket, "Enabled")
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")


def test_state_suspended_at_first():
    """A bucket that never had versioning may be suspended; it then says so."""
    bucket = new_bucket()
    set_state(bucket, "Suspended")
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Suspended")


def test_state_twice():
    """To enable it again changes nothing, and versions stay."""
    bucket, first, second = two_versions()
    equal(status(set_state(bucket, "Enabled")), 200)
    equal(ids(bucket), [second, first])


def unsound(text, *codes):
    bucket = versioned()
    answer = signed("PUT", f"/{bucket}?versioning", text)
    assert (answer.status, code(answer)) in [(400, one) for one in codes], (answer.status, answer.data)
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")


def test_state_not_xml():
    """What is no XML: 400 MalformedXML, and nothing is changed."""
    unsound(b"Suspended", "MalformedXML")
    unsound(b"<VersioningConfiguration><Status>Suspended</Status>", "MalformedXML")


def test_state_without_a_body():
    """An empty body: 400 MissingRequestBodyError or MalformedXML, of which AWS documents both."""
    unsound(b"", "MissingRequestBodyError", "MalformedXML")


def test_state_of_another_root():
    """A document of something else: 400 MalformedXML."""
    unsound(b"<CORSConfiguration><Status>Suspended</Status></CORSConfiguration>", "MalformedXML")


def test_state_unknown():
    """A Status that there is not, also in another case: 400 MalformedXML."""
    for state in (b"Disabled", b"enabled", b"SUSPENDED", b"Off", b""):
        unsound(b"<VersioningConfiguration><Status>" + state + b"</Status></VersioningConfiguration>", "MalformedXML")


def test_state_missing():
    """A document without a Status: 400 IllegalVersioningConfigurationException."""
    unsound(b"<VersioningConfiguration/>", "IllegalVersioningConfigurationException")


def test_state_with_a_namespace():
    """The document may have S3's namespace, or none."""
    bucket = new_bucket()
    for space in (b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', b""):
        text = b"<VersioningConfiguration" + space + b"><Status>Enabled</Status></VersioningConfiguration>"
        equal(signed("PUT", f"/{bucket}?versioning", text).status, 200)


def test_state_mfa():
    """MFA delete is 501 NotImplemented, and nothing is enabled."""
    bucket = new_bucket()
    refused(501, "NotImplemented", set_state, bucket=bucket, state="Enabled", MFADelete="Enabled")
    equal(main.s3.get_bucket_versioning(Bucket=bucket).get("Status"), None)


def test_state_of_no_bucket():
    """Both operations on a bucket that is not there: 404 NoSuchBucket."""
    name = new_name()
    refused(404, "NoSuchBucket", main.s3.get_bucket_versioning, Bucket=name)
    refused(404, "NoSuchBucket", set_state, bucket=name, state="Enabled")


def test_state_others_may_not():
    """Neither another account nor everybody may see or change it; what the policy allows they may."""
    bucket = new_bucket()
    denied(alt.s3.get_bucket_versioning, Bucket=bucket)
    denied(set_state, bucket=bucket, state="Enabled", who=alt)
    denied(anonymous.get_bucket_versioning, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetBucketVersioning", "s3:PutBucketVersioning"], arn(bucket)))
    set_state(bucket, "Enabled", who=alt)
    equal(alt.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")


def test_state_expected_owner():
    """The expected owner of the bucket is checked."""
    bucket = versioned()
    denied(main.s3.get_bucket_versioning, Bucket=bucket, ExpectedBucketOwner=alt.id)
    denied(main.s3.put_bucket_versioning, Bucket=bucket, ExpectedBucketOwner=alt.id, VersioningConfiguration={"Status": "Suspended"})
    equal(main.s3.get_bucket_versioning(Bucket=bucket, ExpectedBucketOwner=main.id)["Status"], "Enabled")


# --- version ids


def test_put_gives_ids():
    """Each PUT into a bucket with versioning gives an id of its own, even of the same body."""
    bucket = versioned()
    given = put_all(bucket, "key", b"x", b"x", b"y")
    equal(len(set(given)), 3)
    assert all(given) and "null" not in given, given
    assert all(len(version) <= 1024 for version in given), given


def test_put_without_versioning():
    """Without versioning neither PUT nor GET nor DELETE has a version id."""
    bucket = new_bucket()
    for answer in (put(bucket, "key"), main.s3.get_object(Bucket=bucket, Key="key"), delete(bucket, "key")):
        assert "x-amz-version-id" not in headers(answer) and "x-amz-delete-marker" not in headers(answer), headers(answer)


def test_get_current():
    """GET and HEAD without an id answer with the newest version, and its id."""
    bucket, _, second = two_versions()
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    equal((answer["VersionId"], answer["Body"].read()), (second, b"second"))
    equal(main.s3.head_object(Bucket=bucket, Key="key")["VersionId"], second)


def test_get_version():
    """GET with an id answers with that version, and its id."""
    bucket, first, second = two_versions()
    for version, body in ((first, b"one"), (second, b"second")):
        answer = main.s3.get_object(Bucket=bucket, Key="key", VersionId=version)
        equal((answer["VersionId"], answer["Body"].read()), (version, body))


def test_head_version():
    """HEAD with an id tells of that version: its size, its ETag, its metadata."""
    bucket = versioned()
    first = put(bucket, "key", b"one", Metadata={"of": "first"}, ContentType="text/plain")
    second = put(bucket, "key", b"second", Metadata={"of": "second"})
    for wanted, size, name in ((first, 3, "first"), (second, 6, "second")):
        answer = main.s3.head_object(Bucket=bucket, Key="key", VersionId=wanted["VersionId"])
        equal((answer["ContentLength"], answer["ETag"], answer["VersionId"]), (size, wanted["ETag"], wanted["VersionId"]))
        equal(answer["Metadata"], {"of": name})
    equal(main.s3.head_object(Bucket=bucket, Key="key", VersionId=first["VersionId"])["ContentType"], "text/plain")


def test_get_range_of_a_version():
    """A range of an older version is a range of that one."""
    bucket, first, _ = two_versions()
    answer = main.s3.get_object(Bucket=bucket, Key="key", VersionId=first, Range="bytes=1-")
    equal((status(answer), answer["ContentRange"], answer["Body"].read()), (206, "bytes 1-2/3", b"ne"))
    refused(416, "InvalidRange", main.s3.get_object, Bucket=bucket, Key="key", VersionId=first, Range="bytes=5-")


def test_presigned_version():
    """A presigned URL may name a version."""
    bucket, first, _ = two_versions()
    url = main.s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "key", "VersionId": first})
    answer = fetch("GET", url)
    equal((answer.status, answer.data, answer.headers["x-amz-version-id"]), (200, b"one", first))


def test_version_of_another_key():
    """The id of another key's version is none of this one's: 404 NoSuchVersion."""
    bucket, first, _ = two_versions()
    put(bucket, "other")
    error = refused(404, "NoSuchVersion", main.s3.get_object, Bucket=bucket, Key="other", VersionId=first)
    equal((error["Error"]["Key"], error["Error"]["VersionId"]), ("other", first))


def test_version_that_is_gone():
    """GET and HEAD of a version that was deleted: 404 NoSuchVersion."""
    bucket = versioned()
    put(bucket, "key")
    version = gone(bucket, "key")
    refused(404, "NoSuchVersion", main.s3.get_object, Bucket=bucket, Key="key", VersionId=version)
    refused(404, "NoSuchVersion", main.s3.head_object, Bucket=bucket, Key="key", VersionId=version)


def test_version_of_no_key():
    """A version of a key that is not there: 404 NoSuchVersion."""
    bucket, first, _ = two_versions()
    refused(404, "NoSuchVersion", main.s3.get_object, Bucket=bucket, Key="missing", VersionId=first)
    refused(404, "NoSuchVersion", main.s3.get_object, Bucket=bucket, Key="missing", VersionId="null")


def test_malformed_id():
    """An id that cannot be one: 400 InvalidArgument, of GET, HEAD and DELETE."""
    bucket, _, _ = two_versions()
    for call in (main.s3.get_object, main.s3.head_object, main.s3.delete_object):
        refused(400, "InvalidArgument", call, Bucket=bucket, Key="key", VersionId="no id of ours!")


def test_empty_id():
    """An empty id: 400 InvalidArgument."""
    bucket, _, _ = two_versions()
    for method in ("GET", "DELETE"):
        answer = signed(method, f"/{bucket}/key?versionId=")
        equal((answer.status, code(answer)), (400, "InvalidArgument"), method)
    equal(len(ids(bucket)), 2)


def test_id_without_versioning():
    """In a bucket without versioning an object is its version null, and there is no other."""
    bucket, (other, _, _) = new_bucket(), two_versions()
    put(bucket, "key")
    equal(read(main, bucket, "key", VersionId="null"), b"body")
    refused(404, "NoSuchVersion", main.s3.get_object, Bucket=bucket, Key="key", VersionId=gone(other, "key"))


def test_multipart_gives_an_id():
    """CompleteMultipartUpload gives an id; the object before stays as a version."""
    bucket = versioned()
    (first,) = put_all(bucket, "key", b"one")
    upload = {"Bucket": bucket, "Key": "key"}
    upload["UploadId"] = main.s3.create_multipart_upload(**upload)["UploadId"]
    part = main.s3.upload_part(**upload, PartNumber=1, Body=b"parts")
    assert "x-amz-version-id" not in headers(part), headers(part)
    equal(ids(bucket), [first])
    whole = main.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    equal(ids(bucket), [whole["VersionId"], first])
    equal(read(main, bucket, "key", VersionId=whole["VersionId"]), b"parts")
    equal(read(main, bucket, "key", VersionId=first), b"one")


def test_multipart_without_versioning():
    """Without versioning CompleteMultipartUpload gives none."""
    upload = {"Bucket": new_bucket(), "Key": "key"}
    upload["UploadId"] = main.s3.create_multipart_upload(**upload)["UploadId"]
    part = main.s3.upload_part(**upload, PartNumber=1, Body=b"parts")
    whole = main.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    assert "VersionId" not in whole, whole


def test_part_number_of_a_version():
    """A part of an older version can be got by its number."""
    bucket = versioned()
    upload = {"Bucket": bucket, "Key": "key"}
    upload["UploadId"] = main.s3.create_multipart_upload(**upload)["UploadId"]
    part = main.s3.upload_part(**upload, PartNumber=1, Body=b"parts")
    whole = main.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    put(bucket, "key", b"newer")
    answer = main.s3.get_object(Bucket=bucket, Key="key", VersionId=whole["VersionId"], PartNumber=1)
    equal((status(answer), answer["Body"].read(), answer["PartsCount"]), (206, b"parts", 1))


def test_concurrent_puts():
    """PUTs of one key at the same time all become versions."""
    bucket = versioned()
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda number: put(bucket, "key", str(number).encode())["VersionId"], range(24)))
    equal(sorted(ids(bucket)), sorted(given))
    equal({read(main, bucket, "key", VersionId=version) for version in given}, {str(number).encode() for number in range(24)})


# --- null versions


def test_null_before_versioning():
    """What was put before versioning is the version null, and stays so when it is overwritten."""
    bucket = new_bucket()
    put(bucket, "key", b"old")
    set_state(bucket, "Enabled")
    equal(main.s3.get_object(Bucket=bucket, Key="key")["VersionId"], "null")
    (newer,) = put_all(bucket, "key", b"new")
    equal(ids(bucket), [newer, "null"])
    equal((read(main, bucket, "key"), read(main, bucket, "key", VersionId="null")), (b"new", b"old"))


def test_null_while_suspended():
    """A PUT while versioning is suspended makes the version null, beside those that have ids."""
    bucket, first, second = two_versions()
    set_state(bucket, "Suspended")
    equal(put(bucket, "key", b"null").get("VersionId", "null"), "null")
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    equal((answer["VersionId"], answer["Body"].read()), ("null", b"null"))
    equal(ids(bucket), ["null", second, first])


def test_null_overwritten():
    """A second PUT while it is suspended replaces the version null, and no other."""
    bucket, first, second = two_versions()
    set_state(bucket, "Suspended")
    put(bucket, "key", b"null")
    put(bucket, "key", b"null again")
    equal(ids(bucket), ["null", second, first])
    equal(read(main, bucket, "key", VersionId="null"), b"null again")
    equal(read(main, bucket, "key", VersionId=first), b"one")


def test_null_of_before_is_replaced():
    """The version null from before versioning, under newer ones, is replaced by a PUT while it is suspended."""
    bucket = new_bucket()
    put(bucket, "key", b"old")
    set_state(bucket, "Enabled")
    (middle,) = put_all(bucket, "key", b"middle")
    set_state(bucket, "Suspended")
    put(bucket, "key", b"new")
    equal(ids(bucket), ["null", middle])
    equal(read(main, bucket, "key", VersionId="null"), b"new")


def test_null_stays_when_enabled_again():
    """The version null stays when versioning is enabled again, and new ones get ids."""
    bucket = suspended()
    put(bucket, "key", b"null")
    set_state(bucket, "Enabled")
    (newer,) = put_all(bucket, "key", b"newer")
    equal(ids(bucket), [newer, "null"])


def test_null_deleted_by_id():
    """DELETE with versionId=null removes that version for good, and the former one is current again."""
    bucket, first, second = two_versions()
    set_state(bucket, "Suspended")
    put(bucket, "key", b"null")
    answer = delete(bucket, "key", "null")
    equal((status(answer), answer["VersionId"], answer.get("DeleteMarker")), (204, "null", None))
    equal(ids(bucket), [second, first])
    equal(read(main, bucket, "key"), b"second")


def test_null_deleted_by_id_without_versioning():
    """DELETE with versionId=null removes an object of a bucket without versioning."""
    bucket = new_bucket()
    put(bucket, "key")
    equal(status(delete(bucket, "key", "null")), 204)
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_null_marker():
    """DELETE while it is suspended removes the version null and leaves a marker whose id is null."""
    bucket, first, second = two_versions()
    set_state(bucket, "Suspended")
    put(bucket, "key", b"null")
    answer = delete(bucket, "key")
    equal((status(answer), answer["DeleteMarker"], answer["VersionId"]), (204, True, "null"))
    equal(entries(bucket), [("DeleteMarker", "key", "null"), ("Version", "key", second), ("Version", "key", first)])
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")


def test_null_marker_without_a_null_version():
    """Where no version null is, DELETE while suspended leaves all versions and makes the marker."""
    bucket, first, second = two_versions()
    set_state(bucket, "Suspended")
    delete(bucket, "key")
    equal(ids(bucket), ["null", second, first])
    equal(read(main, bucket, "key", VersionId=first), b"one")


def test_null_marker_once():
    """A second DELETE while suspended replaces the marker: there is one."""
    bucket = suspended()
    put(bucket, "key")
    delete(bucket, "key")
    delete(bucket, "key")
    equal(entries(bucket), [("DeleteMarker", "key", "null")])


def test_null_marker_overwritten():
    """A PUT while suspended replaces a marker whose id is null."""
    bucket = suspended()
    put(bucket, "key")
    delete(bucket, "key")
    put(bucket, "key", b"new")
    equal(entries(bucket), [("Version", "key", "null")])
    equal(read(main, bucket, "key"), b"new")


def test_null_marker_deleted():
    """DELETE of the marker null by its id says that it was one, and brings the former version back."""
    bucket, _, _ = two_versions()
    set_state(bucket, "Suspended")
    delete(bucket, "key")
    answer = delete(bucket, "key", "null")
    equal((answer["DeleteMarker"], answer["VersionId"]), (True, "null"))
    equal(read(main, bucket, "key"), b"second")


def test_null_marker_got():
    """GET of the marker null by its id: 405 MethodNotAllowed, as of any marker; GET of the key: 404 with its id."""
    bucket = suspended()
    put(bucket, "key")
    delete(bucket, "key")
    error = refused(405, "MethodNotAllowed", main.s3.get_object, Bucket=bucket, Key="key", VersionId="null")
    equal((headers(error).get("x-amz-delete-marker"), headers(error).get("allow")), ("true", "DELETE"))
    error = refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")
    equal((headers(error).get("x-amz-delete-marker"), headers(error).get("x-amz-version-id")), ("true", "null"))


def test_null_by_copy():
    """A copy to a key of a bucket whose versioning is suspended replaces the version null."""
    bucket, first, second = two_versions()
    set_state(bucket, "Suspended")
    put(bucket, "key", b"null")
    copy(bucket, "key", bucket, first)
    equal(ids(bucket), ["null", second, first])
    equal(read(main, bucket, "key", VersionId="null"), b"one")


def test_null_by_multipart():
    """An upload that is completed while versioning is suspended replaces the version null, also if it was begun before."""
    bucket, first, second = two_versions()
    upload = {"Bucket": bucket, "Key": "key"}
    upload["UploadId"] = main.s3.create_multipart_upload(**upload)["UploadId"]
    part = main.s3.upload_part(**upload, PartNumber=1, Body=b"parts")
    set_state(bucket, "Suspended")
    put(bucket, "key", b"null")
    main.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})
    equal(ids(bucket), ["null", second, first])
    equal(read(main, bucket, "key", VersionId="null"), b"parts")


def test_null_takes_nothing_when_the_put_fails():
    """A PUT while suspended whose body does not match its Content-MD5 leaves the version null as it was."""
    bucket = suspended()
    put(bucket, "key", b"null")
    refused(400, "BadDigest", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    equal((ids(bucket), read(main, bucket, "key")), (["null"], b"null"))


def test_version_deleted_while_suspended():
    """While suspended a version is removed by its id as well."""
    bucket, first, second = two_versions()
    set_state(bucket, "Suspended")
    equal(delete(bucket, "key", first)["VersionId"], first)
    equal(ids(bucket), [second])


def test_null_is_no_id_of_others():
    """Where all versions have ids, null is none: 404 NoSuchVersion."""
    bucket, _, _ = two_versions()
    refused(404, "NoSuchVersion", main.s3.get_object, Bucket=bucket, Key="key", VersionId="null")


# --- delete markers


def test_delete_makes_a_marker():
    """DELETE without an id: 204, a marker with an id of its own, and nothing is lost."""
    bucket, first, second = two_versions()
    answer = delete(bucket, "key")
    equal((status(answer), answer["DeleteMarker"]), (204, True))
    assert answer["VersionId"] not in (first, second, "null"), answer
    equal(headers(answer)["x-amz-delete-marker"], "true")
    equal(entries(bucket), [("DeleteMarker", "key", answer["VersionId"]), ("Version", "key", second), ("Version", "key", first)])


def test_get_deleted():
    """GET of a key whose newest is a marker: 404 NoSuchKey, with the headers that tell of the marker."""
    bucket, _, marker = with_marker()
    error = refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")
    equal((headers(error).get("x-amz-delete-marker"), headers(error).get("x-amz-version-id")), ("true", marker))


def test_head_deleted():
    """So does HEAD."""
    bucket, _, marker = with_marker()
    error = refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")
    equal((headers(error).get("x-amz-delete-marker"), headers(error).get("x-amz-version-id")), ("true", marker))


def test_get_missing_has_no_marker():
    """GET of a key that never was has no header of a marker."""
    error = refused(404, "NoSuchKey", main.s3.get_object, Bucket=versioned(), Key="key")
    assert "x-amz-delete-marker" not in headers(error) and "x-amz-version-id" not in headers(error), error


def test_get_marker():
    """GET of a marker by its id: 405 MethodNotAllowed, Allow: DELETE, Last-Modified, and the headers of the marker."""
    bucket, _, marker = with_marker()
    error = refused(405, "MethodNotAllowed", main.s3.get_object, Bucket=bucket, Key="key", VersionId=marker)
    equal((headers(error).get("x-amz-delete-marker"), headers(error).get("allow")), ("true", "DELETE"))
    equal(headers(error).get("x-amz-version-id"), marker)
    assert "last-modified" in headers(error), error


def test_head_marker():
    """So does HEAD."""
    bucket, _, marker = with_marker()
    error = refused(405, "MethodNotAllowed", main.s3.head_object, Bucket=bucket, Key="key", VersionId=marker)
    equal((headers(error).get("x-amz-delete-marker"), headers(error).get("allow")), ("true", "DELETE"))
    assert "last-modified" in headers(error), error


def test_get_under_a_marker():
    """A version under a marker is got by its id as before."""
    bucket, version, _ = with_marker()
    equal(read(main, bucket, "key", VersionId=version), b"body")


def test_delete_marker_brings_back():
    """DELETE of the marker: 204, says that it was one, and the object is there again."""
    bucket, version, marker = with_marker()
    answer = delete(bucket, "key", marker)
    equal((status(answer), answer["DeleteMarker"], answer["VersionId"]), (204, True, marker))
    equal(main.s3.get_object(Bucket=bucket, Key="key")["VersionId"], version)


def test_markers_on_markers():
    """Each DELETE without an id makes another marker; all must go before the object is there again."""
    bucket, version, first = with_marker()
    second = delete(bucket, "key")["VersionId"]
    equal(ids(bucket), [second, first, version])
    delete(bucket, "key", second)
    refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")
    delete(bucket, "key", first)
    equal(read(main, bucket, "key"), b"body")


def test_marker_of_a_missing_key():
    """DELETE of a key that never was makes a marker too."""
    bucket = versioned()
    answer = delete(bucket, "key")
    equal((status(answer), answer["DeleteMarker"]), (204, True))
    equal(entries(bucket), [("DeleteMarker", "key", answer["VersionId"])])


def test_put_on_a_marker():
    """A PUT makes a version on the marker, which stays."""
    bucket, version, marker = with_marker()
    (newer,) = put_all(bucket, "key", b"newer")
    equal(ids(bucket), [newer, marker, version])
    equal(read(main, bucket, "key"), b"newer")


def test_delete_under_a_marker():
    """Without the version under it a marker is still there, and still DELETE's to remove."""
    bucket, version, marker = with_marker()
    delete(bucket, "key", version)
    equal(ids(bucket), [marker])
    delete(bucket, "key", marker)
    equal(entries(bucket), [])


def test_bucket_with_a_marker():
    """A bucket is not empty as long as it has a version or a marker: 409 BucketNotEmpty."""
    bucket, version, marker = with_marker()
    refused(409, "BucketNotEmpty", main.s3.delete_bucket, Bucket=bucket)
    delete(bucket, "key", version)
    refused(409, "BucketNotEmpty", main.s3.delete_bucket, Bucket=bucket)
    delete(bucket, "key", marker)
    equal(status(main.s3.delete_bucket(Bucket=bucket)), 204)


# --- DELETE of versions


def test_delete_newest():
    """When the newest version is deleted by its id, the former one is current."""
    bucket, first, second = two_versions()
    answer = delete(bucket, "key", second)
    equal((status(answer), answer["VersionId"], answer.get("DeleteMarker")), (204, second, None))
    answer = main.s3.get_object(Bucket=bucket, Key="key")
    equal((answer["VersionId"], answer["Body"].read()), (first, b"one"))
    equal(main.s3.list_object_versions(Bucket=bucket)["Versions"][0]["IsLatest"], True)


def test_delete_older():
    """When an older version is deleted the newest stays current."""
    bucket, first, second = two_versions()
    delete(bucket, "key", first)
    equal((ids(bucket), read(main, bucket, "key")), ([second], b"second"))


def test_delete_only():
    """When the only version is deleted there is nothing: 404, without a marker."""
    bucket = versioned()
    gone(bucket, "key")
    error = refused(404, "NoSuchKey", main.s3.get_object, Bucket=bucket, Key="key")
    assert "x-amz-delete-marker" not in headers(error), error
    equal(entries(bucket), [])


def test_delete_again():
    """DELETE of a version that is gone is 204 again, and makes no marker."""
    bucket = versioned()
    version = gone(bucket, "key")
    equal(status(delete(bucket, "key", version)), 204)
    equal(entries(bucket), [])


def test_delete_of_another_key():
    """The id of another key's version deletes nothing."""
    bucket, first, second = two_versions()
    equal(status(delete(bucket, "other", first)), 204)
    equal(ids(bucket), [second, first])


# --- DeleteObjects


def delete_all(bucket, *objects, who=main, **arguments):
    listed = [{"Key": key, **({"VersionId": version} if version else {})} for key, version in objects]
    return who.s3.delete_objects(Bucket=bucket, Delete={"Objects": listed, **arguments})


def test_delete_objects_makes_markers():
    """Without ids it makes markers, and says their ids."""
    bucket = versioned()
    put_all(bucket, "a", b"x")
    answer = delete_all(bucket, ("a", None), ("missing", None))
    markers = dict((key, version) for kind, key, version in entries(bucket) if kind == "DeleteMarker")
    said = {entry["Key"]: (entry["DeleteMarker"], entry["DeleteMarkerVersionId"], entry.get("VersionId")) for entry in answer["Deleted"]}
    equal(said, {key: (True, version, None) for key, version in markers.items()})
    equal(sorted(said), ["a", "missing"])


def test_delete_objects_of_versions():
    """With ids it removes versions, and says which."""
    bucket, first, second = two_versions()
    answer = delete_all(bucket, ("key", first))
    equal(answer["Deleted"], [{"Key": "key", "VersionId": first}])
    equal(ids(bucket), [second])


def test_delete_objects_of_markers():
    """A marker that is removed by its id is said to have been one."""
    bucket, version, marker = with_marker()
    answer = delete_all(bucket, ("key", marker))
    equal(answer["Deleted"], [{"Key": "key", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker}])
    equal(ids(bucket), [version])


def test_delete_objects_of_all():
    """Versions and markers of several keys in one request leave nothing."""
    bucket, version, marker = with_marker()
    (other,) = put_all(bucket, "other", b"x")
    answer = delete_all(bucket, ("key", version), ("key", marker), ("other", other))
    equal((len(answer["Deleted"]), answer.get("Errors")), (3, None))
    equal(entries(bucket), [])
    main.s3.delete_bucket(Bucket=bucket)


def test_delete_objects_without_versioning():
    """Without versioning there is neither a marker nor an id."""
    bucket = new_bucket()
    put(bucket, "key")
    equal(delete_all(bucket, ("key", None))["Deleted"], [{"Key": "key"}])


def test_delete_objects_while_suspended():
    """While suspended it replaces the version null by a marker."""
    bucket = suspended()
    put(bucket, "key")
    answer = delete_all(bucket, ("key", None))
    equal(answer["Deleted"], [{"Key": "key", "DeleteMarker": True, "DeleteMarkerVersionId": "null"}])
    equal(entries(bucket), [("DeleteMarker", "key", "null")])


def test_delete_objects_that_are_gone():
    """A version that is gone counts as deleted."""
    bucket = versioned()
    version = gone(bucket, "key")
    answer = delete_all(bucket, ("key", version))
    equal(([(entry["Key"], entry["VersionId"]) for entry in answer["Deleted"]], answer.get("Errors")), ([("key", version)], None))


def test_delete_objects_quiet():
    """A quiet request says nothing of what was done."""
    bucket, version, marker = with_marker()
    answer = delete_all(bucket, ("key", version), ("key", marker), Quiet=True)
    equal((answer.get("Deleted"), answer.get("Errors"), entries(bucket)), (None, None, []))


def test_delete_objects_malformed_id():
    """One id that cannot be one is told as that key's error; the others are deleted."""
    bucket, first, second = two_versions()
    answer = delete_all(bucket, ("key", "no id of ours!"), ("key", first))
    equal([entry["VersionId"] for entry in answer["Deleted"]], [first])
    equal([(entry["Key"], entry["VersionId"]) for entry in answer["Errors"]], [("key", "no id of ours!")])
    equal(ids(bucket), [second])


# --- ListObjectVersions


def test_list_empty():
    """An empty bucket: no versions, and what was not asked is said: 1000 at most."""
    bucket = versioned()
    root = listing(bucket)
    equal(root.tag, "ListVersionsResult")
    said = {child.tag: child.text or "" for child in root}
    equal(said, {"Name": bucket, "Prefix": "", "KeyMarker": "", "VersionIdMarker": "", "MaxKeys": "1000", "IsTruncated": "false"})


def test_list_no_such_bucket():
    """A bucket that is not there: 404 NoSuchBucket."""
    refused(404, "NoSuchBucket", main.s3.list_object_versions, Bucket=new_name())


def test_list_without_versioning():
    """Without versioning each object is one version, null, the latest."""
    bucket = new_bucket()
    put(bucket, "key")
    put(bucket, "key")
    listed = main.s3.list_object_versions(Bucket=bucket)["Versions"]
    equal([(entry["Key"], entry["VersionId"], entry["IsLatest"]) for entry in listed], [("key", "null", True)])


def test_list_what_is_said():
    """A version has key, id, size, ETag, class, owner, time, and whether it is the latest."""
    bucket, first, second = two_versions()
    newest, oldest = main.s3.list_object_versions(Bucket=bucket)["Versions"]
    equal((newest["VersionId"], newest["Size"], newest["IsLatest"]), (second, 6, True))
    equal((oldest["VersionId"], oldest["Size"], oldest["IsLatest"]), (first, 3, False))
    equal(oldest["ETag"], main.s3.head_object(Bucket=bucket, Key="key", VersionId=first)["ETag"])
    owner = main.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    for entry in (newest, oldest):
        equal((entry["Key"], entry["StorageClass"], entry["Owner"]["ID"]), ("key", "STANDARD", owner))
        assert abs(datetime.now(timezone.utc) - entry["LastModified"]) < timedelta(minutes=1), entry


def test_list_what_is_said_of_a_marker():
    """A marker has key, id, owner, time, and whether it is the latest: no size, no ETag, no class."""
    bucket, _, marker = with_marker()
    found = listing(bucket).find("DeleteMarker")
    equal({child.tag for child in found}, {"Key", "VersionId", "IsLatest", "LastModified", "Owner"})
    equal((found.findtext("VersionId"), found.findtext("IsLatest")), (marker, "true"))
    equal(main.s3.list_object_versions(Bucket=bucket)["Versions"][0]["IsLatest"], False)
    equal(found.findtext("Owner/ID"), main.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"])


def test_list_order():
    """Keys come in order, and the versions of a key newest first, markers among them."""
    bucket = versioned()
    first_b, second_b = put_all(bucket, "b", b"1", b"2")
    marker = delete(bucket, "b")["VersionId"]
    (third_b,) = put_all(bucket, "b", b"3")
    first_a, second_a = put_all(bucket, "a", b"1", b"2")
    wanted = [("Version", "a", second_a), ("Version", "a", first_a), ("Version", "b", third_b), ("DeleteMarker", "b", marker),
              ("Version", "b", second_b), ("Version", "b", first_b)]
    equal(entries(bucket), wanted)


def test_list_one_latest():
    """One version or marker of each key is the latest."""
    bucket = versioned()
    put_all(bucket, "a", b"1", b"2", b"3")
    put_all(bucket, "b", b"1")
    delete(bucket, "b")
    flags = [(entry.findtext("Key"), entry.findtext("IsLatest")) for entry in listing(bucket) if entry.tag in ("Version", "DeleteMarker")]
    equal(flags, [("a", "true"), ("a", "false"), ("a", "false"), ("b", "true"), ("b", "false")])


def test_list_null_by_its_time():
    """A version null stands where its time puts it, and is the latest if it is newest."""
    bucket = versioned()
    (first,) = put_all(bucket, "key", b"1")
    set_state(bucket, "Suspended")
    put(bucket, "key", b"null")
    equal(main.s3.list_object_versions(Bucket=bucket)["Versions"][0]["IsLatest"], True)
    set_state(bucket, "Enabled")
    (third,) = put_all(bucket, "key", b"3")
    equal(ids(bucket), [third, "null", first])


def test_list_many_in_a_moment():
    """Versions put one right after the other come newest first."""
    bucket = versioned()
    given = put_all(bucket, "key", *[b"x"] * 30)
    equal(ids(bucket), given[::-1])


def test_list_prefix():
    """Only keys that begin with the prefix come, and it is said."""
    bucket = versioned()
    put_all(bucket, "a", b"1")
    first, second = put_all(bucket, "b/1", b"1", b"2")
    put_all(bucket, "c", b"1")
    answer = main.s3.list_object_versions(Bucket=bucket, Prefix="b/")
    equal((versions(answer), answer["Prefix"]), ([("b/1", second), ("b/1", first)], "b/"))
    equal(versions(main.s3.list_object_versions(Bucket=bucket, Prefix="x")), [])


def test_list_delimiter():
    """Keys that have the delimiter come as common prefixes, once, also if only markers are under it."""
    bucket = versioned()
    (a,) = put_all(bucket, "a", b"1")
    put_all(bucket, "b/1", b"1", b"2")
    put_all(bucket, "b/2", b"1")
    delete(bucket, "c/1")
    answer = main.s3.list_object_versions(Bucket=bucket, Delimiter="/")
    equal((versions(answer), prefixes(answer), answer["Delimiter"]), ([("a", a)], ["b/", "c/"], "/"))


def test_list_prefix_and_delimiter():
    """Both together, with a delimiter of several characters."""
    bucket = versioned()
    (a,) = put_all(bucket, "p/a", b"1")
    put_all(bucket, "p/b--1", b"1", b"2")
    put_all(bucket, "q", b"1")
    answer = main.s3.list_object_versions(Bucket=bucket, Prefix="p/", Delimiter="--")
    equal((versions(answer), prefixes(answer)), ([("p/a", a)], ["p/b--"]))


def test_list_key_marker():
    """A key-marker alone leaves out all versions of that key and before; it is said."""
    bucket = versioned()
    put_all(bucket, "a", b"1", b"2")
    put_all(bucket, "b", b"1", b"2")
    (c,) = put_all(bucket, "c", b"1")
    answer = main.s3.list_object_versions(Bucket=bucket, KeyMarker="b")
    equal((versions(answer), answer["KeyMarker"]), ([("c", c)], "b"))
    equal(len(versions(main.s3.list_object_versions(Bucket=bucket, KeyMarker="aa"))), 3)


def test_list_both_markers():
    """With a version-id-marker the versions of the key that are older than that one come as well."""
    bucket = versioned()
    one, two, three = put_all(bucket, "a", b"1", b"2", b"3")
    (b,) = put_all(bucket, "b", b"1")
    answer = main.s3.list_object_versions(Bucket=bucket, KeyMarker="a", VersionIdMarker=three)
    equal((versions(answer), answer["VersionIdMarker"]), ([("a", two), ("a", one), ("b", b)], three))


def test_list_marker_null():
    """The version-id-marker may be null."""
    bucket = versioned()
    (first,) = put_all(bucket, "key", b"1")
    set_state(bucket, "Suspended")
    put(bucket, "key")
    equal(ids(bucket, "key-marker=key&version-id-marker=null"), [first])


def bad(query):
    bucket, _, _ = two_versions()
    answer = signed("GET", f"/{bucket}?{query}&versions")
    equal((answer.status, code(answer)), (400, "InvalidArgument"), query)


def test_list_version_marker_alone():
    """A version-id-marker without a key-marker: 400 InvalidArgument."""
    bucket, first, _ = two_versions()
    refused(400, "InvalidArgument", main.s3.list_object_versions, Bucket=bucket, VersionIdMarker=first)
    bad("version-id-marker=null")


def test_list_version_marker_malformed():
    """A version-id-marker that cannot be an id: 400 InvalidArgument."""
    bad("key-marker=key&version-id-marker=no%21id")


def test_list_max_keys_bad():
    """A max-keys that is negative or no number: 400 InvalidArgument."""
    bad("max-keys=-1")
    bad("max-keys=x")


def test_list_max_keys():
    """max-keys of zero, of as many as there are, and of more than 1000."""
    bucket, _, _ = two_versions()
    answer = main.s3.list_object_versions(Bucket=bucket, MaxKeys=0)
    equal((versions(answer), answer["IsTruncated"], answer["MaxKeys"]), ([], False, 0))
    equal(main.s3.list_object_versions(Bucket=bucket, MaxKeys=2)["IsTruncated"], False)
    equal(main.s3.list_object_versions(Bucket=bucket, MaxKeys=5000)["MaxKeys"], 1000)


def test_list_truncated():
    """A page that is cut within a key says the key and the id of its last; versions and markers both count."""
    bucket, version, marker = with_marker()
    answer = main.s3.list_object_versions(Bucket=bucket, MaxKeys=1)
    equal((answer["IsTruncated"], answer["MaxKeys"]), (True, 1))
    equal((answer["NextKeyMarker"], answer["NextVersionIdMarker"]), ("key", marker))
    equal(([entry["VersionId"] for entry in answer["DeleteMarkers"]], versions(answer)), ([marker], []))
    answer = main.s3.list_object_versions(Bucket=bucket, MaxKeys=1, KeyMarker="key", VersionIdMarker=marker)
    equal((versions(answer), answer["IsTruncated"], answer.get("NextKeyMarker")), ([("key", version)], False, None))


def one_by_one(bucket, size=1, **arguments):
    """Versions, markers and common prefixes, page by page: the paginator knows of both markers."""
    pages = main.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": size}, **arguments)
    seen = []
    for page in pages:
        some = [(entry["Key"], entry["VersionId"]) for entry in page.get("Versions", []) + page.get("DeleteMarkers", [])] + prefixes(page)
        assert len(some) <= size, some
        seen += some
    return seen


def test_list_one_by_one():
    """Pages of one over several keys, with markers and versions null: none comes twice, none is left out."""
    bucket = new_bucket()
    put(bucket, "b")
    set_state(bucket, "Enabled")
    for key in ("a", "b", "c"):
        put_all(bucket, key, b"1", b"2")
    delete(bucket, "b")
    delete(bucket, "d")
    whole = [(key, version) for _, key, version in entries(bucket)]
    equal((len(whole), one_by_one(bucket)), (9, whole))
    equal(sorted(one_by_one(bucket, 4)), sorted(whole))


def test_list_one_by_one_with_a_delimiter():
    """Pages of one over versions and common prefixes."""
    bucket = versioned()
    put_all(bucket, "a/1", b"1", b"2")
    put_all(bucket, "a/2", b"1")
    first, second = put_all(bucket, "b", b"1", b"2")
    put_all(bucket, "c/1", b"1")
    (d,) = put_all(bucket, "d", b"1")
    equal(one_by_one(bucket, Delimiter="/"), ["a/", ("b", second), ("b", first), "c/", ("d", d)])


def test_list_thousand_versions():
    """1,100 versions of one key come in pages of 1,000, in order."""
    bucket = versioned()
    given = [signed("PUT", f"/{bucket}/key").headers["x-amz-version-id"] for _ in range(1100)]
    first = main.s3.list_object_versions(Bucket=bucket)
    equal((len(first["Versions"]), first["IsTruncated"], first["NextVersionIdMarker"]), (1000, True, given[100]))
    wanted = [("key", version) for version in reversed(given)]
    equal(one_by_one(bucket, 1000), wanted)
    equal(one_by_one(bucket, 275), wanted)
    equal([entry["Size"] for entry in main.s3.list_objects_v2(Bucket=bucket)["Contents"]], [0])


def test_list_encoded():
    """encoding-type=url encodes keys, prefix, key-marker, delimiter and common prefixes."""
    bucket = versioned()
    put_all(bucket, "ä&", b"1", b"2")
    delete(bucket, "ä+")
    put_all(bucket, "äü/1", b"1")
    root = listing(bucket, f"delimiter=%2F&encoding-type=url&key-marker={quote('ä')}&prefix={quote('ä')}")
    wanted = ("EncodingType", "Prefix", "KeyMarker", "Delimiter", "Version/Key", "DeleteMarker/Key", "CommonPrefixes/Prefix")
    said = [root.findtext(name) for name in wanted]
    equal(said, ["url", quote("ä"), quote("ä"), "/", quote("ä&"), quote("ä+"), quote("äü/")])
    equal(listing(bucket, "encoding-type=url&max-keys=1").findtext("NextKeyMarker"), quote("ä&"))


def test_list_others_may_not():
    """Another account may list versions only if the policy allows it s3:ListBucketVersions; s3:ListBucket is not enough."""
    bucket, first, second = two_versions()
    denied(alt.s3.list_object_versions, Bucket=bucket)
    denied(anonymous.list_object_versions, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket)))
    denied(alt.s3.list_object_versions, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucketVersions", arn(bucket)))
    equal(versions(alt.s3.list_object_versions(Bucket=bucket)), [("key", second), ("key", first)])
    denied(alt.s3.list_objects_v2, Bucket=bucket)


def test_objects_are_current_ones():
    """ListObjects and ListObjectsV2 show current versions only: none of a key whose newest is a marker."""
    bucket, _, _ = two_versions()
    put_all(bucket, "other", b"x")
    delete(bucket, "other")
    for call in (main.s3.list_objects, main.s3.list_objects_v2):
        equal([(entry["Key"], entry["Size"]) for entry in call(Bucket=bucket)["Contents"]], [("key", 6)])
        assert "VersionId" not in call(Bucket=bucket)["Contents"][0]


def test_objects_have_no_common_prefix_of_markers():
    """A prefix under which only markers are current is none of ListObjectsV2's, and max-keys does not count it."""
    bucket = versioned()
    for key in ("a/1", "a/2", "b"):
        put_all(bucket, key, b"x")
    for key in ("a/1", "a/2"):
        delete(bucket, key)
    answer = main.s3.list_objects_v2(Bucket=bucket, Delimiter="/", MaxKeys=1)
    equal((answer["KeyCount"], answer["Contents"][0]["Key"], answer["IsTruncated"], prefixes(answer)), (1, "b", False, []))


# --- tags of versions


TAGS = [{"Key": "one", "Value": "1"}]
OTHERS = [{"Key": "two", "Value": "2"}]


def tags(bucket, **arguments):
    return main.s3.get_object_tagging(Bucket=bucket, Key="key", **arguments)["TagSet"]


def test_tags_of_a_version():
    """PutObjectTagging of a version says its id, and leaves the others as they are."""
    bucket, first, second = two_versions()
    equal(main.s3.put_object_tagging(Bucket=bucket, Key="key", VersionId=first, Tagging={"TagSet": TAGS})["VersionId"], first)
    equal((tags(bucket, VersionId=first), tags(bucket), tags(bucket, VersionId=second)), (TAGS, [], []))
    equal(main.s3.get_object_tagging(Bucket=bucket, Key="key", VersionId=first)["VersionId"], first)
    equal(len(ids(bucket)), 2)


def test_tags_of_the_current():
    """Without an id the current version is meant, and its id is said."""
    bucket, first, second = two_versions()
    equal(main.s3.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": OTHERS})["VersionId"], second)
    equal((tags(bucket), tags(bucket, VersionId=first)), (OTHERS, []))
    equal(main.s3.get_object_tagging(Bucket=bucket, Key="key")["VersionId"], second)


def test_tags_deleted():
    """DeleteObjectTagging of a version takes its tags only, and says its id: 204."""
    bucket = versioned()
    first, second = put(bucket, "key", Tagging="one=1")["VersionId"], put(bucket, "key", Tagging="two=2")["VersionId"]
    answer = main.s3.delete_object_tagging(Bucket=bucket, Key="key", VersionId=first)
    equal((status(answer), answer["VersionId"]), (204, first))
    equal((tags(bucket, VersionId=first), tags(bucket, VersionId=second)), ([], OTHERS))


def test_tags_are_counted():
    """GET of a version has the number of its own tags."""
    bucket = versioned()
    first = put(bucket, "key", Tagging="one=1&two=2")["VersionId"]
    put(bucket, "key")
    equal(main.s3.get_object(Bucket=bucket, Key="key", VersionId=first)["TagCount"], 2)
    equal(main.s3.get_object(Bucket=bucket, Key="key").get("TagCount"), None)


def test_tags_of_null():
    """The version null has tags too."""
    bucket = new_bucket()
    put(bucket, "key")
    set_state(bucket, "Enabled")
    put(bucket, "key")
    main.s3.put_object_tagging(Bucket=bucket, Key="key", VersionId="null", Tagging={"TagSet": TAGS})
    equal((tags(bucket, VersionId="null"), tags(bucket)), (TAGS, []))


def test_tags_of_no_version():
    """A version that is gone: 404 NoSuchVersion, of all three; a malformed id: 400 InvalidArgument."""
    bucket = versioned()
    put(bucket, "key")
    for version, number, wanted in ((gone(bucket, "key"), 404, "NoSuchVersion"), ("no id!", 400, "InvalidArgument")):
        named = {"Bucket": bucket, "Key": "key", "VersionId": version}
        refused(number, wanted, main.s3.get_object_tagging, **named)
        refused(number, wanted, main.s3.put_object_tagging, **named, Tagging={"TagSet": TAGS})
        refused(number, wanted, main.s3.delete_object_tagging, **named)


def test_tags_of_a_marker():
    """A marker has no tags: 405 MethodNotAllowed of its id."""
    bucket, _, marker = with_marker()
    refused(405, "MethodNotAllowed", main.s3.get_object_tagging, Bucket=bucket, Key="key", VersionId=marker)
    refused(405, "MethodNotAllowed", main.s3.put_object_tagging, Bucket=bucket, Key="key", VersionId=marker, Tagging={"TagSet": TAGS})


def test_tags_others_may_not():
    """The tags of a version are another right than those of the object: s3:GetObjectVersionTagging."""
    bucket, first, _ = two_versions()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectTagging", arn(bucket, "*")))
    alt.s3.get_object_tagging(Bucket=bucket, Key="key")
    denied(alt.s3.get_object_tagging, Bucket=bucket, Key="key", VersionId=first)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectVersionTagging", arn(bucket, "*")))
    alt.s3.get_object_tagging(Bucket=bucket, Key="key", VersionId=first)
    denied(alt.s3.get_object_tagging, Bucket=bucket, Key="key")


# --- copies


def copy(bucket, key, source, version=None, **arguments):
    source = {"Bucket": source, "Key": "key", **({"VersionId": version} if version else {})}
    return main.s3.copy_object(Bucket=bucket, Key=key, CopySource=source, **arguments)


def test_copy_of_a_version():
    """A copy may be of an older version; the answer says that one's id, and that of the new version."""
    bucket, first, _ = two_versions()
    answer = copy(bucket, "copy", bucket, first)
    equal((answer["CopySourceVersionId"], read(main, bucket, "copy")), (first, b"one"))
    equal(answer["VersionId"], main.s3.head_object(Bucket=bucket, Key="copy")["VersionId"])
    assert answer["VersionId"] != first, answer


def test_copy_of_the_current():
    """A copy without an id is of the current version, whose id is said."""
    bucket, _, second = two_versions()
    answer = copy(bucket, "copy", bucket)
    equal((answer["CopySourceVersionId"], read(main, bucket, "copy")), (second, b"second"))


def test_copy_brings_a_version_back():
    """An older version may be copied onto its own key, and is then a new version."""
    bucket, first, second = two_versions()
    newest = copy(bucket, "key", bucket, first)["VersionId"]
    equal((ids(bucket), read(main, bucket, "key")), ([newest, second, first], b"one"))


def test_copy_between_states():
    """From a bucket with versioning into one without, the copy has no id, and the other way round."""
    bucket, first, _ = two_versions()
    simple = new_bucket()
    answer = copy(simple, "key", bucket, first)
    equal((answer.get("VersionId"), answer["CopySourceVersionId"]), (None, first))
    answer = copy(bucket, "copy", simple)
    equal(answer.get("CopySourceVersionId"), None)
    assert answer["VersionId"], answer


def test_copy_of_null():
    """A copy may be of the version null."""
    bucket = new_bucket()
    put(bucket, "key", b"null")
    set_state(bucket, "Enabled")
    put(bucket, "key", b"newer")
    answer = copy(bucket, "copy", bucket, "null")
    equal((answer["CopySourceVersionId"], read(main, bucket, "copy")), ("null", b"null"))


def test_copy_of_a_deleted_key():
    """A copy of a key whose newest is a marker: 404 NoSuchKey; of a version under it, it works."""
    bucket, version, _ = with_marker()
    refused(404, "NoSuchKey", copy, bucket=bucket, key="copy", source=bucket)
    copy(bucket, "key", bucket, version)
    equal(read(main, bucket, "key"), b"body")


def test_copy_of_a_marker():
    """A copy of a marker by its id: 400 InvalidRequest."""
    bucket, _, marker = with_marker()
    refused(400, "InvalidRequest", copy, bucket=bucket, key="copy", source=bucket, version=marker)


def test_copy_of_no_version():
    """A copy of a version that is gone: 404 NoSuchVersion; of a malformed id: 400 InvalidArgument."""
    bucket = versioned()
    put(bucket, "key")
    refused(404, "NoSuchVersion", copy, bucket=bucket, key="copy", source=bucket, version=gone(bucket, "key"))
    refused(400, "InvalidArgument", copy, bucket=bucket, key="copy", source=bucket, version="no id!")


def test_copy_keeps_what_the_version_had():
    """A copy has the metadata and the tags of the version that it is of."""
    bucket = versioned()
    first = put(bucket, "key", b"one", Metadata={"of": "first"}, Tagging="one=1")["VersionId"]
    put(bucket, "key", b"two", Metadata={"of": "second"}, Tagging="two=2")
    copy(bucket, "copy", bucket, first)
    equal(main.s3.head_object(Bucket=bucket, Key="copy")["Metadata"], {"of": "first"})
    equal(main.s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"], TAGS)


def test_copy_conditions_are_of_the_version():
    """The conditions of a copy are of the version that is named."""
    bucket, first, second = two_versions()
    tag = main.s3.head_object(Bucket=bucket, Key="key", VersionId=first)["ETag"]
    copy(bucket, "copy", bucket, first, CopySourceIfMatch=tag)
    refused(412, "PreconditionFailed", copy, bucket=bucket, key="copy", source=bucket, version=second, CopySourceIfMatch=tag)
    refused(412, "PreconditionFailed", copy, bucket=bucket, key="copy", source=bucket, version=first, CopySourceIfNoneMatch=tag)


def test_copy_of_a_part_of_a_version():
    """UploadPartCopy may be of an older version, whose id is said."""
    bucket, first, _ = two_versions()
    upload = {"Bucket": bucket, "Key": "whole"}
    upload["UploadId"] = main.s3.create_multipart_upload(**upload)["UploadId"]
    part = main.s3.upload_part_copy(**upload, PartNumber=1, CopySource={"Bucket": bucket, "Key": "key", "VersionId": first})
    equal(part["CopySourceVersionId"], first)
    listed = [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]
    main.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": listed})
    equal(read(main, bucket, "whole"), b"one")


def test_copy_of_a_part_of_a_marker():
    """UploadPartCopy of a marker by its id: 400 InvalidRequest."""
    bucket, _, marker = with_marker()
    upload = {"Bucket": bucket, "Key": "whole"}
    upload["UploadId"] = main.s3.create_multipart_upload(**upload)["UploadId"]
    source = {"Bucket": bucket, "Key": "key", "VersionId": marker}
    refused(400, "InvalidRequest", main.s3.upload_part_copy, **upload, PartNumber=1, CopySource=source)


def test_copy_needs_the_right_to_the_version():
    """To copy a version of another's bucket takes s3:GetObjectVersion there."""
    bucket, first, _ = two_versions()
    own = new_bucket(alt)
    named = {"Bucket": own, "Key": "copy", "CopySource": {"Bucket": bucket, "Key": "key", "VersionId": first}}
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    denied(alt.s3.copy_object, **named)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectVersion", arn(bucket, "*")))
    alt.s3.copy_object(**named)
    equal(read(alt, own, "copy"), b"one")


# --- conditions


def test_get_conditions_are_of_the_version():
    """If-Match and If-None-Match of GET are of the version that is named: 412 and 304."""
    bucket, first, second = two_versions()
    tag = main.s3.head_object(Bucket=bucket, Key="key", VersionId=first)["ETag"]
    equal(read(main, bucket, "key", VersionId=first, IfMatch=tag), b"one")
    refused(412, "PreconditionFailed", main.s3.get_object, Bucket=bucket, Key="key", VersionId=second, IfMatch=tag)
    refused(304, "304", main.s3.get_object, Bucket=bucket, Key="key", VersionId=first, IfNoneMatch=tag)
    equal(read(main, bucket, "key", VersionId=second, IfNoneMatch=tag), b"second")


def test_get_dates_are_of_the_version():
    """If-Modified-Since and If-Unmodified-Since too."""
    bucket, first, _ = two_versions()
    time = main.s3.head_object(Bucket=bucket, Key="key", VersionId=first)["LastModified"]
    named = {"Bucket": bucket, "Key": "key", "VersionId": first}
    refused(304, "304", main.s3.get_object, **named, IfModifiedSince=time)
    refused(412, "PreconditionFailed", main.s3.get_object, **named, IfUnmodifiedSince=time - timedelta(minutes=1))
    equal(status(main.s3.get_object(**named, IfUnmodifiedSince=time)), 200)


def test_put_if_none_match():
    """If-None-Match: * fails if there is a current version, and succeeds if the newest is a marker."""
    bucket, _, _ = with_marker()
    put(bucket, "key", b"new", IfNoneMatch="*")
    refused(412, "PreconditionFailed", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", IfNoneMatch="*")
    equal((len(ids(bucket)), read(main, bucket, "key")), (3, b"new"))


def test_put_if_match():
    """If-Match of a PUT is of the current version, not of an older one: 412, and nothing is put."""
    bucket, first, second = two_versions()
    old = main.s3.head_object(Bucket=bucket, Key="key", VersionId=first)["ETag"]
    new = main.s3.head_object(Bucket=bucket, Key="key")["ETag"]
    refused(412, "PreconditionFailed", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", IfMatch=old)
    equal(ids(bucket), [second, first])
    put(bucket, "key", b"third", IfMatch=new)
    equal(len(ids(bucket)), 3)


def test_put_if_match_on_a_marker():
    """If-Match of a PUT on a marker: 404 NoSuchKey."""
    bucket, version, _ = with_marker()
    tag = main.s3.head_object(Bucket=bucket, Key="key", VersionId=version)["ETag"]
    refused(404, "NoSuchKey", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", IfMatch=tag)


def test_delete_if_match():
    """If-Match of a DELETE is of the current version: 412 without a marker, or a marker."""
    bucket, first, second = two_versions()
    old = main.s3.head_object(Bucket=bucket, Key="key", VersionId=first)["ETag"]
    new = main.s3.head_object(Bucket=bucket, Key="key")["ETag"]
    refused(412, "PreconditionFailed", main.s3.delete_object, Bucket=bucket, Key="key", IfMatch=old)
    equal(ids(bucket), [second, first])
    marker = main.s3.delete_object(Bucket=bucket, Key="key", IfMatch=new)["VersionId"]
    equal(ids(bucket), [marker, second, first])


# --- attributes, and who may


def test_acl_of_a_version():
    """GetObjectAcl may be of a version; of one that is gone: 404 NoSuchVersion; of a marker: 405 MethodNotAllowed."""
    bucket, first, _ = two_versions()
    marker = delete(bucket, "key")["VersionId"]
    owner = main.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    equal(main.s3.get_object_acl(Bucket=bucket, Key="key", VersionId=first)["Owner"]["ID"], owner)
    refused(404, "NoSuchVersion", main.s3.get_object_acl, Bucket=bucket, Key="key", VersionId=gone(bucket, "key"))
    refused(405, "MethodNotAllowed", main.s3.get_object_acl, Bucket=bucket, Key="key", VersionId=marker)


def test_attributes_of_a_version():
    """GetObjectAttributes of a version tells of that one, and its id; without an id, of the current one."""
    bucket, first, second = two_versions()
    named = {"Bucket": bucket, "Key": "key", "ObjectAttributes": ["ETag", "ObjectSize", "StorageClass"]}
    answer = main.s3.get_object_attributes(**named, VersionId=first)
    equal((answer["VersionId"], answer["ObjectSize"], answer["StorageClass"]), (first, 3, "STANDARD"))
    equal(answer["ETag"], main.s3.head_object(Bucket=bucket, Key="key", VersionId=first)["ETag"].strip('"'))
    answer = main.s3.get_object_attributes(**named)
    equal((answer["VersionId"], answer["ObjectSize"]), (second, 6))


def test_attributes_of_no_version():
    """Of a version that is gone: 404 NoSuchVersion; of a malformed id: 400 InvalidArgument."""
    bucket = versioned()
    put(bucket, "key")
    named = {"Bucket": bucket, "Key": "key", "ObjectAttributes": ["ObjectSize"]}
    refused(404, "NoSuchVersion", main.s3.get_object_attributes, **named, VersionId=gone(bucket, "key"))
    refused(400, "InvalidArgument", main.s3.get_object_attributes, **named, VersionId="no id!")


def test_attributes_of_a_marker():
    """Of a key whose newest is a marker: 404 NoSuchKey with x-amz-delete-marker; of the marker's id: 405 MethodNotAllowed."""
    bucket, _, marker = with_marker()
    named = {"Bucket": bucket, "Key": "key", "ObjectAttributes": ["ObjectSize"]}
    error = refused(404, "NoSuchKey", main.s3.get_object_attributes, **named)
    equal(headers(error).get("x-amz-delete-marker"), "true")
    refused(405, "MethodNotAllowed", main.s3.get_object_attributes, **named, VersionId=marker)


def test_get_needs_the_right_to_versions():
    """To get a version, null too, takes s3:GetObjectVersion; s3:GetObject is for the current one."""
    bucket, first, _ = two_versions()
    named = {"Bucket": bucket, "Key": "key"}
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal(read(alt, bucket, "key"), b"second")
    for version in (first, "null"):
        denied(alt.s3.get_object, **named, VersionId=version)
        denied(alt.s3.head_object, **named, VersionId=version)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectVersion", arn(bucket, "*")))
    equal(read(alt, bucket, "key", VersionId=first), b"one")
    denied(alt.s3.get_object, **named)


def test_delete_needs_the_right_to_versions():
    """To delete a version takes s3:DeleteObjectVersion; s3:DeleteObject makes a marker only."""
    bucket, first, second = two_versions()
    named = {"Bucket": bucket, "Key": "key"}
    denied(alt.s3.delete_object, **named)
    denied(alt.s3.delete_object, **named, VersionId=first)
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObject", arn(bucket, "*")))
    denied(alt.s3.delete_object, **named, VersionId=first)
    marker = delete(bucket, "key", who=alt)["VersionId"]
    equal(ids(bucket), [marker, second, first])
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObjectVersion", arn(bucket, "*")))
    denied(alt.s3.delete_object, **named)
    delete(bucket, "key", first, who=alt)
    equal(ids(bucket), [marker, second])


def test_delete_objects_needs_the_right_to_versions():
    """DeleteObjects asks for each of its keys: what may not be deleted is told as an error."""
    bucket, first, second = two_versions()
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObject", arn(bucket, "*")))
    answer = delete_all(bucket, ("key", first), ("other", None), who=alt)
    equal([(entry["Key"], entry["VersionId"], entry["Code"]) for entry in answer["Errors"]], [("key", first, "AccessDenied")])
    equal([entry["Key"] for entry in answer["Deleted"]], ["other"])
    equal(ids(bucket)[:2], [second, first])


def test_versions_in_public():
    """Everybody gets a version only where the policy gives everybody s3:GetObjectVersion."""
    bucket, first, _ = two_versions()
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    equal(raw("GET", f"/{bucket}/key?versionId={quote(first)}").status, 403)
    set_policy(bucket, statement("Allow", "*", "s3:GetObjectVersion", arn(bucket, "*")))
    answer = raw("GET", f"/{bucket}/key?versionId={quote(first)}")
    equal((answer.status, answer.data), (200, b"one"))


def test_policy_names_a_version():
    """A policy may allow one version (s3:VersionId)."""
    bucket, first, second = two_versions()
    condition = {"StringEquals": {"s3:VersionId": first}}
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectVersion", arn(bucket, "*"), Condition=condition))
    equal(read(alt, bucket, "key", VersionId=first), b"one")
    denied(alt.s3.get_object, Bucket=bucket, Key="key", VersionId=second)


def test_missing_version_is_hidden():
    """Who may not list is told 403 of a version that is gone, and of a deleted key."""
    bucket, _, _ = with_marker()
    version = gone(bucket, "other")
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObject", "s3:GetObjectVersion"], arn(bucket, "*")))
    denied(alt.s3.get_object, Bucket=bucket, Key="other", VersionId=version)
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
