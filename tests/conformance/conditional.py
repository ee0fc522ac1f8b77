"""Conditional requests: GET and HEAD as RFC 9110 and the S3 API Reference have them, conditional writes, copies and deletes."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

from support import *

BODY = b"the body"
TAG = '"' + hashlib.md5(BODY).hexdigest() + '"'
OTHER = '"' + hashlib.md5(b"other").hexdigest() + '"'
MIB = 1 << 20


def http(moment):
    return format_datetime(moment.astimezone(timezone.utc), usegmt=True)


NOW = datetime.now(timezone.utc)
BEFORE = http(NOW - timedelta(days=1))


def one_object():
    """A bucket with the object "key"."""
    bucket = new_bucket()
    put(bucket, "key", BODY)
    return bucket


def modified(bucket, key="key"):
    return main.s3.head_object(Bucket=bucket, Key=key)["LastModified"]


# --- reads


def ask(bucket, method="GET", key="key", **headers):
    return signed(method, f"/{bucket}/{key}", **headers)


def whole(bucket, **headers):
    """Both GET and HEAD answer 200, with the headers of the object."""
    for method in ("GET", "HEAD"):
        answer = ask(bucket, method, **headers)
        equal((answer.status, answer.data), (200, BODY if method == "GET" else b""), (method, headers))
        equal((answer.headers["etag"], answer.headers["content-length"]), (TAG, str(len(BODY))))


def not_modified(bucket, **headers):
    """Both GET and HEAD answer 304 without a body, but with the ETag and Last-Modified."""
    for method in ("GET", "HEAD"):
        answer = ask(bucket, method, **headers)
        equal((answer.status, answer.data), (304, b""), (method, headers))
        equal(answer.headers.get("etag"), TAG)
        equal(answer.headers.get("last-modified"), http(modified(bucket)))
        assert answer.headers.get("x-amz-request-id"), answer.headers


def failed(bucket, condition, **headers):
    """Both GET and HEAD answer 412; the body of GET's names the condition."""
    for method in ("GET", "HEAD"):
        answer = ask(bucket, method, **headers)
        equal(answer.status, 412, (method, headers))
        if method == "HEAD":
            equal(answer.data, b"")
            continue
        equal(code(answer), "PreconditionFailed")
        text = answer.data.decode()
        assert f"<Condition>{condition}</Condition>" in text, text
        assert "<Message>At least one of the pre-conditions you specified did not hold</Message>" in text, text
        assert BODY.decode() not in text


def test_if_match():
    """If-Match with the object's ETag: 200."""
    whole(one_object(), If_Match=TAG)


def test_if_match_wrong():
    """If-Match with another ETag: 412 PreconditionFailed."""
    failed(one_object(), "If-Match", If_Match=OTHER)


def test_if_match_unquoted():
    """If-Match with the ETag without its quotes: S3 takes it."""
    whole(one_object(), If_Match=TAG.strip('"'))


def test_if_match_unquoted_wrong():
    """If-Match with another ETag without quotes: 412."""
    failed(one_object(), "If-Match", If_Match=OTHER.strip('"'))


def test_if_match_any():
    """If-Match: * holds for any object that is there."""
    whole(one_object(), If_Match="*")


def test_if_match_list():
    """If-Match with a list that has the ETag: 200, wherever it stands."""
    bucket = one_object()
    whole(bucket, If_Match=f"{OTHER}, {TAG}")
    whole(bucket, If_Match=f"{TAG},{OTHER}")


def test_if_match_list_wrong():
    """If-Match with a list that has not the ETag: 412."""
    failed(one_object(), "If-Match", If_Match=f'{OTHER}, "x", "y"')


def test_if_match_weak():
    """If-Match compares strongly (RFC 9110, 13.1.1): a weak ETag never matches."""
    failed(one_object(), "If-Match", If_Match="W/" + TAG)


def test_if_match_prefix():
    """A part of the ETag is not the ETag."""
    failed(one_object(), "If-Match", If_Match=TAG[:-2] + '"')


def test_if_none_match():
    """If-None-Match with the object's ETag: 304."""
    not_modified(one_object(), If_None_Match=TAG)


def test_if_none_match_other():
    """If-None-Match with another ETag: 200."""
    whole(one_object(), If_None_Match=OTHER)


def test_if_none_match_unquoted():
    """If-None-Match with the ETag without its quotes: 304."""
    not_modified(one_object(), If_None_Match=TAG.strip('"'))


def test_if_none_match_any():
    """If-None-Match: * fails for any object that is there: 304 on reads."""
    not_modified(one_object(), If_None_Match="*")


def test_if_none_match_list():
    """If-None-Match with a list that has the ETag: 304."""
    not_modified(one_object(), If_None_Match=f"{OTHER}, {TAG}")


def test_if_none_match_list_other():
    """If-None-Match with a list that has not the ETag: 200."""
    whole(one_object(), If_None_Match=f'{OTHER}, "x"')


def test_if_none_match_weak():
    """If-None-Match compares weakly (RFC 9110, 13.1.2): a weak ETag matches."""
    not_modified(one_object(), If_None_Match="W/" + TAG)


def test_if_none_match_weak_in_a_list():
    """A weak ETag within a list matches too."""
    not_modified(one_object(), If_None_Match=f"W/{OTHER}, W/{TAG}")


def test_if_modified_since():
    """If-Modified-Since an earlier moment: 200."""
    whole(one_object(), If_Modified_Since=BEFORE)


def test_if_modified_since_not():
    """If-Modified-Since the very moment of Last-Modified: 304."""
    bucket = one_object()
    not_modified(bucket, If_Modified_Since=http(modified(bucket)))


def test_if_modified_since_a_second_before():
    """If-Modified-Since a second before: 200."""
    bucket = one_object()
    whole(bucket, If_Modified_Since=http(modified(bucket) - timedelta(seconds=1)))


def test_if_modified_since_the_future():
    """A date in the future is no valid one (RFC 9110, 13.1.3, leaves it to the server): the object or 304, never an error."""
    answer = ask(one_object(), If_Modified_Since=http(NOW + timedelta(days=400)))
    assert answer.status in (200, 304), answer.status


def test_if_modified_since_malformed():
    """If-Modified-Since that is no date is ignored."""
    bucket = one_object()
    for date in ("yesterday", "", "2020-01-01", "Mon, 32 Jan 2020 00:00:00 GMT"):
        whole(bucket, If_Modified_Since=date)


def test_if_unmodified_since():
    """If-Unmodified-Since the very moment of Last-Modified: 200."""
    bucket = one_object()
    whole(bucket, If_Unmodified_Since=http(modified(bucket)))


def test_if_unmodified_since_the_future():
    """If-Unmodified-Since a later moment: 200."""
    whole(one_object(), If_Unmodified_Since=http(NOW + timedelta(days=400)))


def test_if_unmodified_since_not():
    """If-Unmodified-Since an earlier moment: 412."""
    failed(one_object(), "If-Unmodified-Since", If_Unmodified_Since=BEFORE)


def test_if_unmodified_since_a_second_before():
    """If-Unmodified-Since a second before: 412."""
    bucket = one_object()
    failed(bucket, "If-Unmodified-Since", If_Unmodified_Since=http(modified(bucket) - timedelta(seconds=1)))


def test_if_unmodified_since_malformed():
    """If-Unmodified-Since that is no date is ignored."""
    whole(one_object(), If_Unmodified_Since="yesterday")


def test_old_forms_of_dates():
    """The two obsolete forms of dates are understood (RFC 9110, 5.6.7)."""
    bucket = one_object()
    moment = NOW - timedelta(days=1)
    for form in ("%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"):
        failed(bucket, "If-Unmodified-Since", If_Unmodified_Since=moment.strftime(form))


# --- several conditions at once


def test_match_over_unmodified():
    """If-Match holds and If-Unmodified-Since does not: 200, as the API Reference says."""
    whole(one_object(), If_Match=TAG, If_Unmodified_Since=BEFORE)


def test_match_fails_and_unmodified_holds():
    """If-Match does not hold: 412, whatever If-Unmodified-Since says."""
    bucket = one_object()
    failed(bucket, "If-Match", If_Match=OTHER, If_Unmodified_Since=http(modified(bucket)))


def test_none_match_over_modified():
    """If-None-Match does not hold and If-Modified-Since does: 304, as the API Reference says."""
    not_modified(one_object(), If_None_Match=TAG, If_Modified_Since=BEFORE)


def test_none_match_holds_and_modified_fails():
    """If-None-Match holds: If-Modified-Since is not looked at (RFC 9110, 13.2.2), 200."""
    bucket = one_object()
    whole(bucket, If_None_Match=OTHER, If_Modified_Since=http(modified(bucket)))


def test_match_and_none_match():
    """If-Match holds and If-None-Match does not: 304."""
    not_modified(one_object(), If_Match=TAG, If_None_Match=TAG)


def test_match_fails_before_none_match():
    """If-Match is looked at first: 412, though If-None-Match would be 304."""
    failed(one_object(), "If-Match", If_Match=OTHER, If_None_Match=TAG)


def test_match_and_none_match_hold():
    """If-Match and If-None-Match hold: 200."""
    whole(one_object(), If_Match=TAG, If_None_Match=OTHER)


def test_unmodified_fails_before_none_match():
    """If-Unmodified-Since is looked at before If-None-Match: 412."""
    failed(one_object(), "If-Unmodified-Since", If_Unmodified_Since=BEFORE, If_None_Match=TAG)


def test_match_and_modified():
    """If-Match holds and If-Modified-Since does not: 304."""
    bucket = one_object()
    not_modified(bucket, If_Match=TAG, If_Modified_Since=http(modified(bucket)))


def test_unmodified_and_modified():
    """If-Unmodified-Since holds and If-Modified-Since does not: 304."""
    bucket = one_object()
    moment = http(modified(bucket))
    not_modified(bucket, If_Unmodified_Since=moment, If_Modified_Since=moment)


def test_all_four():
    """All four at once that hold: 200."""
    bucket = one_object()
    whole(bucket, If_Match=TAG, If_None_Match=OTHER, If_Modified_Since=BEFORE, If_Unmodified_Since=http(modified(bucket)))


# --- with other things that a read may say


def test_missing_object():
    """A missing object is 404 NoSuchKey under any condition."""
    bucket = new_bucket()
    for headers in ({"If_Match": "*"}, {"If_Match": TAG}, {"If_None_Match": "*"}, {"If_None_Match": TAG}, {"If_Modified_Since": BEFORE}):
        answer = ask(bucket, **headers)
        equal((answer.status, code(answer)), (404, "NoSuchKey"), headers)
        equal(ask(bucket, "HEAD", **headers).status, 404, headers)


def test_missing_bucket():
    """A missing bucket is 404 NoSuchBucket under any condition."""
    answer = ask(new_name(), If_None_Match="*")
    equal((answer.status, code(answer)), (404, "NoSuchBucket"))


def test_range_and_conditions():
    """A condition is looked at before the range: 304 and 412, and 206 when it holds."""
    bucket = one_object()
    equal(ask(bucket, Range="bytes=0-2", If_None_Match=TAG).status, 304)
    equal(ask(bucket, Range="bytes=0-2", If_Match=OTHER).status, 412)
    answer = ask(bucket, Range="bytes=0-2", If_Match=TAG)
    equal((answer.status, answer.data), (206, b"the"))


def test_unsatisfiable_range_and_conditions():
    """A condition that fails is told before a range that cannot be satisfied."""
    bucket = one_object()
    equal(ask(bucket, Range="bytes=100-", If_None_Match=TAG).status, 304)
    equal(ask(bucket, Range="bytes=100-", If_Match=OTHER).status, 412)
    answer = ask(bucket, Range="bytes=100-", If_Match=TAG)
    equal((answer.status, code(answer)), (416, "InvalidRange"))


def test_empty_object():
    """An empty object is no special case."""
    bucket = new_bucket()
    tag = put(bucket, "key", b"")["ETag"]
    equal(ask(bucket, If_None_Match=tag).status, 304)
    equal(ask(bucket, If_Match=tag).status, 200)
    equal(ask(bucket, If_Match=OTHER).status, 412)


def test_versions():
    """A condition with a version is about that version."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one, two = put(bucket, "key", b"one"), put(bucket, "key", b"two")
    for version, mine, other in ((one["VersionId"], one["ETag"], two["ETag"]), (two["VersionId"], two["ETag"], one["ETag"])):
        said = {"Bucket": bucket, "Key": "key", "VersionId": version}
        main.s3.get_object(**said, IfMatch=mine)
        main.s3.get_object(**said, IfNoneMatch=other)
        refused(304, "304", main.s3.get_object, **said, IfNoneMatch=mine)
        refused(412, "PreconditionFailed", main.s3.get_object, **said, IfMatch=other)


def test_multipart_etag():
    """The ETag of a multipart object is one like any other."""
    bucket = new_bucket()
    tag = assemble(bucket)["ETag"]
    assert tag.endswith('-1"'), tag
    main.s3.get_object(Bucket=bucket, Key="key", IfMatch=tag)
    refused(304, "304", main.s3.get_object, Bucket=bucket, Key="key", IfNoneMatch=tag)
    refused(412, "PreconditionFailed", main.s3.get_object, Bucket=bucket, Key="key", IfMatch=tag.replace("-1", "-2"))


def test_others_learn_nothing():
    """Who may not read an object learns nothing by conditions: 403."""
    bucket = one_object()
    for who in (alt.s3, anonymous):
        for said in ({"IfMatch": TAG}, {"IfMatch": OTHER}, {"IfNoneMatch": TAG}, {"IfNoneMatch": "*"}):
            denied(who.get_object, Bucket=bucket, Key="key", **said)
            denied(who.head_object, Bucket=bucket, Key="key", **said)


def test_anonymous_reader():
    """Conditions are for anonymous readers too."""
    bucket = one_object()
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    answer = raw("GET", f"/{bucket}/key", headers={"If-None-Match": TAG})
    equal((answer.status, answer.data, answer.headers["etag"]), (304, b"", TAG))
    equal(raw("GET", f"/{bucket}/key", headers={"If-Match": OTHER}).status, 412)


def test_not_modified_keeps_the_connection():
    """After a 304 the next answer on the same connection is in its place."""
    bucket = one_object()
    for _ in range(5):
        equal(ask(bucket, If_None_Match=TAG).status, 304)
        equal(ask(bucket).data, BODY)
        equal(ask(bucket, "HEAD", If_Match=OTHER).status, 412)


# --- PUT


def write(bucket, body=BODY, key="key", who=main, **headers):
    return signed("PUT", f"/{bucket}/{key}", body, who=who, **headers)


def write_failed(answer, condition):
    equal((answer.status, code(answer)), (412, "PreconditionFailed"))
    assert f"<Condition>{condition}</Condition>" in answer.data.decode(), answer.data


def test_put_new():
    """PUT with If-None-Match: * makes an object that was not there: 200."""
    bucket = new_bucket()
    answer = write(bucket, If_None_Match="*")
    equal((answer.status, answer.headers["etag"]), (200, TAG))
    equal(read(main, bucket, "key"), BODY)


def test_put_new_that_is_there():
    """PUT with If-None-Match: * over an object: 412, and the object stays."""
    bucket = one_object()
    write_failed(write(bucket, b"new", If_None_Match="*"), "If-None-Match")
    equal(read(main, bucket, "key"), BODY)


def test_put_new_after_delete():
    """Once the object is deleted it may be made again."""
    bucket = one_object()
    main.s3.delete_object(Bucket=bucket, Key="key")
    equal(write(bucket, b"new", If_None_Match="*").status, 200)


def test_put_new_over_a_marker():
    """A delete marker is no object: If-None-Match: * holds."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put(bucket, "key")
    write_failed(write(bucket, If_None_Match="*"), "If-None-Match")
    main.s3.delete_object(Bucket=bucket, Key="key")
    equal(write(bucket, If_None_Match="*").status, 200)


def test_put_none_match_of_a_tag():
    """PUT with If-None-Match of anything but * is 501 NotImplemented, whether the object is there or not."""
    bucket = one_object()
    for key in ("key", "other"):
        for value in (TAG, OTHER, OTHER.strip('"'), f"{TAG}, {OTHER}", "**", '"*"'):
            answer = write(bucket, b"new", key, If_None_Match=value)
            equal((answer.status, code(answer)), (501, "NotImplemented"), value)
    equal(read(main, bucket, "key"), BODY)


def test_put_if_match():
    """PUT with If-Match of the object's ETag replaces it."""
    bucket = one_object()
    equal(write(bucket, b"new", If_Match=TAG).status, 200)
    equal(read(main, bucket, "key"), b"new")


def test_put_if_match_unquoted():
    """The ETag may be without quotes."""
    bucket = one_object()
    equal(write(bucket, b"new", If_Match=TAG.strip('"')).status, 200)


def test_put_if_match_wrong():
    """PUT with If-Match of another ETag: 412, and the object stays."""
    bucket = one_object()
    write_failed(write(bucket, b"new", If_Match=OTHER), "If-Match")
    equal(read(main, bucket, "key"), BODY)


def test_put_if_match_stale():
    """An ETag that was right once is wrong after the object was replaced."""
    bucket = one_object()
    equal(write(bucket, b"new", If_Match=TAG).status, 200)
    write_failed(write(bucket, b"newer", If_Match=TAG), "If-Match")
    equal(read(main, bucket, "key"), b"new")


def test_put_if_match_missing():
    """PUT with If-Match and no object: 404 NoSuchKey."""
    bucket = new_bucket()
    answer = write(bucket, If_Match=TAG)
    equal((answer.status, code(answer)), (404, "NoSuchKey"))
    equal(main.s3.list_objects_v2(Bucket=bucket)["KeyCount"], 0)


def test_put_if_match_marker():
    """PUT with If-Match where a delete marker is the current version: 404 NoSuchKey."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    tag = put(bucket, "key")["ETag"]
    main.s3.delete_object(Bucket=bucket, Key="key")
    answer = write(bucket, If_Match=tag)
    equal((answer.status, code(answer)), (404, "NoSuchKey"))


def test_put_if_match_versions():
    """If-Match is about the current version, not one before."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    one, two = put(bucket, "key", b"one")["ETag"], put(bucket, "key", b"two")["ETag"]
    write_failed(write(bucket, b"three", If_Match=one), "If-Match")
    equal(write(bucket, b"three", If_Match=two).status, 200)
    equal(len(main.s3.list_object_versions(Bucket=bucket)["Versions"]), 3)


def test_put_missing_bucket():
    """A conditional PUT into a missing bucket is 404 NoSuchBucket."""
    for said in ({"If_None_Match": "*"}, {"If_Match": TAG}):
        answer = write(new_name(), **said)
        equal((answer.status, code(answer)), (404, "NoSuchBucket"))


def test_put_of_others():
    """Another account is denied, whether the condition holds or not."""
    bucket = one_object()
    for key in ("key", "none"):
        for said in ({"If_None_Match": "*"}, {"If_Match": TAG}):
            answer = write(bucket, b"new", key, alt, **said)
            equal((answer.status, code(answer)), (403, "AccessDenied"), (key, said))
    equal(read(main, bucket, "key"), BODY)


def test_put_if_match_wants_get():
    """PUT with If-Match wants s3:GetObject beside s3:PutObject; If-None-Match: * does not."""
    bucket = one_object()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    equal(write(bucket, b"alt's", "new", alt, If_None_Match="*").status, 200)
    answer = write(bucket, b"alt's", "key", alt, If_Match=TAG)
    equal((answer.status, code(answer)), (403, "AccessDenied"))
    set_policy(bucket, statement("Allow", alt.arn, ["s3:PutObject", "s3:GetObject"], arn(bucket, "*")))
    equal(write(bucket, b"alt's", "key", alt, If_Match=TAG).status, 200)


def at_once(count, write_one):
    """The answers to `write_one(number)` of so many threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(write_one, range(count)))


def test_two_writers_of_a_new_object():
    """Of writers at once with If-None-Match: * exactly one wins; the others get 412 or 409 ConditionalRequestConflict."""
    bucket = new_bucket()
    for key in ("a", "b", "c", "d", "e"):
        answers = at_once(6, lambda number: write(bucket, b"writer %d" % number, key, If_None_Match="*"))
        winners = [number for number, answer in enumerate(answers) if answer.status == 200]
        equal(len(winners), 1, [answer.status for answer in answers])
        for answer in answers:
            assert answer.status == 200 or (answer.status, code(answer)) in (
                (412, "PreconditionFailed"), (409, "ConditionalRequestConflict")), answer.data
        equal(read(main, bucket, key), b"writer %d" % winners[0])


def test_two_writers_of_an_object():
    """Of writers at once with the same If-Match exactly one wins."""
    bucket = one_object()
    answers = at_once(6, lambda number: write(bucket, b"writer %d" % number, If_Match=TAG))
    winners = [number for number, answer in enumerate(answers) if answer.status == 200]
    equal(len(winners), 1, [answer.status for answer in answers])
    equal(read(main, bucket, "key"), b"writer %d" % winners[0])


def test_counter():
    """Read, add one and write with If-Match, by several at once: no addition is lost."""
    bucket = new_bucket()
    put(bucket, "key", b"0")

    def add(_):
        for _ in range(200):
            answer = ask(bucket)
            if write(bucket, str(int(answer.data) + 1).encode(), If_Match=answer.headers["etag"]).status == 200:
                return
            time.sleep(0.002)
        raise AssertionError("never won")

    at_once(6, add)
    equal(read(main, bucket, "key"), b"6")


# --- multipart uploads


def begin(bucket, body=b"a part"):
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    tag = main.s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=body)["ETag"]
    return {"Bucket": bucket, "Key": "key", "UploadId": upload, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": tag}]}}


def assemble(bucket, **said):
    return main.s3.complete_multipart_upload(**begin(bucket), **said)


def test_complete_new():
    """Complete with If-None-Match: * makes an object that was not there."""
    bucket = new_bucket()
    assemble(bucket, IfNoneMatch="*")
    equal(read(main, bucket, "key"), b"a part")


def test_complete_new_that_is_there():
    """Complete with If-None-Match: * over an object: 412 with the condition, and the object stays; without it the upload completes."""
    bucket = one_object()
    upload = begin(bucket)
    error = refused(412, "PreconditionFailed", main.s3.complete_multipart_upload, **upload, IfNoneMatch="*")
    equal(error["Error"].get("Condition"), "If-None-Match")
    equal(read(main, bucket, "key"), BODY)
    main.s3.complete_multipart_upload(**upload)
    equal(read(main, bucket, "key"), b"a part")


def test_complete_new_made_meanwhile():
    """The condition is that of the moment of completion: an object that was put since the upload began counts."""
    bucket = new_bucket()
    upload = begin(bucket)
    put(bucket, "key")
    refused(412, "PreconditionFailed", main.s3.complete_multipart_upload, **upload, IfNoneMatch="*")


def test_complete_none_match_of_a_tag():
    """Complete with If-None-Match of anything but *: 501 NotImplemented."""
    bucket = new_bucket()
    refused(501, "NotImplemented", main.s3.complete_multipart_upload, **begin(bucket), IfNoneMatch=TAG)


def test_complete_if_match():
    """Complete with If-Match of the object's ETag replaces it."""
    bucket = one_object()
    assemble(bucket, IfMatch=TAG)
    equal(read(main, bucket, "key"), b"a part")


def test_complete_if_match_wrong():
    """Complete with If-Match of another ETag: 412, and the object stays."""
    bucket = one_object()
    refused(412, "PreconditionFailed", assemble, bucket=bucket, IfMatch=OTHER)
    equal(read(main, bucket, "key"), BODY)


def test_complete_if_match_missing():
    """Complete with If-Match and no object: 404 NoSuchKey."""
    bucket = new_bucket()
    refused(404, "NoSuchKey", assemble, bucket=bucket, IfMatch=TAG)
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")


def test_two_completions():
    """Of completions at once with If-None-Match: * exactly one wins."""
    bucket = new_bucket()
    uploads = [begin(bucket, b"part %d" % number) for number in range(4)]

    def complete(number):
        try:
            return status(main.s3.complete_multipart_upload(**uploads[number], IfNoneMatch="*"))
        except ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]

    answers = at_once(4, complete)
    equal(answers.count(200), 1, answers)
    assert set(answers) <= {200, 409, 412}, answers
    equal(read(main, bucket, "key"), b"part %d" % answers.index(200))


# --- copies


def copy(bucket, key="copy", **said):
    return main.s3.copy_object(Bucket=bucket, Key=key, CopySource=f"{bucket}/key", **said)


def test_copy_source_if_match():
    """x-amz-copy-source-if-match: the right ETag copies, another is 412."""
    bucket = one_object()
    copy(bucket, CopySourceIfMatch=TAG)
    refused(412, "PreconditionFailed", copy, bucket=bucket, key="other", CopySourceIfMatch=OTHER)
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="other")


def test_copy_source_if_none_match():
    """x-amz-copy-source-if-none-match: another ETag copies, the source's is 412."""
    bucket = one_object()
    copy(bucket, CopySourceIfNoneMatch=OTHER)
    refused(412, "PreconditionFailed", copy, bucket=bucket, CopySourceIfNoneMatch=TAG)


def test_copy_source_dates():
    """x-amz-copy-source-if-modified-since and -if-unmodified-since: 412 where they do not hold."""
    bucket = one_object()
    moment = modified(bucket)
    copy(bucket, CopySourceIfModifiedSince=moment - timedelta(seconds=1))
    copy(bucket, CopySourceIfUnmodifiedSince=moment)
    refused(412, "PreconditionFailed", copy, bucket=bucket, CopySourceIfModifiedSince=moment)
    refused(412, "PreconditionFailed", copy, bucket=bucket, CopySourceIfUnmodifiedSince=moment - timedelta(seconds=1))


def test_copy_source_match_over_unmodified():
    """-if-match holds and -if-unmodified-since does not: 200 and a copy, as the API Reference says."""
    bucket = one_object()
    equal(status(copy(bucket, CopySourceIfMatch=TAG, CopySourceIfUnmodifiedSince=NOW - timedelta(days=1))), 200)


def test_copy_source_none_match_over_modified():
    """-if-none-match does not hold and -if-modified-since does: 412, as the API Reference says."""
    bucket = one_object()
    refused(412, "PreconditionFailed", copy, bucket=bucket, CopySourceIfNoneMatch=TAG, CopySourceIfModifiedSince=NOW - timedelta(days=1))


def test_copy_part_conditions():
    """UploadPartCopy has the same conditions."""
    bucket = one_object()
    said = begin(bucket)
    del said["MultipartUpload"]
    said.update(PartNumber=1, CopySource=f"{bucket}/key")
    main.s3.upload_part_copy(**said, CopySourceIfMatch=TAG)
    refused(412, "PreconditionFailed", main.s3.upload_part_copy, **said, CopySourceIfMatch=OTHER)
    refused(412, "PreconditionFailed", main.s3.upload_part_copy, **said, CopySourceIfNoneMatch=TAG)


# --- deletes


def test_delete_if_match():
    """DELETE with If-Match of the object's ETag: 204, and it is gone."""
    bucket = one_object()
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key", IfMatch=TAG)), 204)
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")


def test_delete_if_match_unquoted():
    """The ETag may be without quotes."""
    equal(status(main.s3.delete_object(Bucket=one_object(), Key="key", IfMatch=TAG.strip('"'))), 204)


def test_delete_if_match_wrong():
    """DELETE with If-Match of another ETag: 412 with the condition, and the object stays."""
    bucket = one_object()
    error = refused(412, "PreconditionFailed", main.s3.delete_object, Bucket=bucket, Key="key", IfMatch=OTHER)
    equal(error["Error"].get("Condition"), "If-Match")
    equal(read(main, bucket, "key"), BODY)


def test_delete_if_match_any():
    """DELETE with If-Match: * deletes an object that is there."""
    bucket = one_object()
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key", IfMatch="*")), 204)
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")


def test_delete_if_match_missing():
    """DELETE with If-Match of an ETag and no object: 404 NoSuchKey; without a condition it is 204."""
    bucket = new_bucket()
    refused(404, "NoSuchKey", main.s3.delete_object, Bucket=bucket, Key="key", IfMatch=TAG)
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key")), 204)


def test_delete_leaves_a_marker():
    """With versioning a conditional DELETE of the current version leaves a marker; one that fails leaves none."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    put(bucket, "key", BODY)
    refused(412, "PreconditionFailed", main.s3.delete_object, Bucket=bucket, Key="key", IfMatch=OTHER)
    equal(main.s3.list_object_versions(Bucket=bucket).get("DeleteMarkers", []), [])
    equal(main.s3.delete_object(Bucket=bucket, Key="key", IfMatch=TAG)["DeleteMarker"], True)


def test_delete_wants_get():
    """DELETE with If-Match of an ETag wants s3:GetObject beside s3:DeleteObject; with * it does not."""
    bucket = one_object()
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObject", arn(bucket, "*")))
    denied(alt.s3.delete_object, Bucket=bucket, Key="key", IfMatch=TAG)
    equal(read(main, bucket, "key"), BODY)
    equal(status(alt.s3.delete_object(Bucket=bucket, Key="key", IfMatch="*")), 204)


def test_delete_objects_wants_get():
    """DeleteObjects with an ETag wants s3:GetObject beside s3:DeleteObject: else that key is AccessDenied."""
    bucket = one_object()
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObject", arn(bucket, "*")))
    answer = alt.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "ETag": TAG}]})
    equal([(one["Key"], one["Code"]) for one in answer.get("Errors", [])], [("key", "AccessDenied")])
    equal(read(main, bucket, "key"), BODY)


def test_complete_if_match_wants_get():
    """Complete with If-Match wants s3:GetObject beside s3:PutObject."""
    bucket = one_object()
    upload = begin(bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    denied(alt.s3.complete_multipart_upload, **upload, IfMatch=TAG)
    equal(read(main, bucket, "key"), BODY)


def test_delete_of_others():
    """Another account is denied a DELETE, whether the condition holds or not."""
    bucket = one_object()
    for key, tag in (("key", TAG), ("key", OTHER), ("key", "*"), ("none", TAG), ("none", "*")):
        denied(alt.s3.delete_object, Bucket=bucket, Key=key, IfMatch=tag)
    equal(read(main, bucket, "key"), BODY)


def test_two_deletes():
    """Of two DELETEs at once with the same If-Match exactly one wins."""
    bucket = one_object()

    def delete(_):
        return signed("DELETE", f"/{bucket}/key", If_Match=TAG).status

    answers = at_once(4, delete)
    equal(answers.count(204), 1, answers)
    assert set(answers) <= {204, 404, 409, 412}, answers


def bulk(bucket, *objects, **more):
    return main.s3.delete_objects(Bucket=bucket, Delete={"Objects": list(objects), **more})


def test_delete_objects():
    """DeleteObjects with an ETag per key: who match are deleted, the others are PreconditionFailed in a 200."""
    bucket = new_bucket()
    for key in ("right", "wrong", "any", "none"):
        put(bucket, key, BODY)
    answer = bulk(bucket, {"Key": "right", "ETag": TAG}, {"Key": "wrong", "ETag": OTHER}, {"Key": "any", "ETag": "*"}, {"Key": "none"})
    equal({one["Key"] for one in answer["Deleted"]}, {"right", "any", "none"})
    equal([(one["Key"], one["Code"]) for one in answer["Errors"]], [("wrong", "PreconditionFailed")])
    equal([one["Key"] for one in main.s3.list_objects_v2(Bucket=bucket)["Contents"]], ["wrong"])


def test_delete_objects_quiet():
    """A quiet DeleteObjects tells the failed ones alone."""
    bucket = one_object()
    put(bucket, "other", BODY)
    answer = bulk(bucket, {"Key": "key", "ETag": OTHER}, {"Key": "other", "ETag": TAG}, Quiet=True)
    equal(answer.get("Deleted", []), [])
    equal([(one["Key"], one["Code"]) for one in answer["Errors"]], [("key", "PreconditionFailed")])


def test_delete_objects_missing():
    """DeleteObjects with an ETag of a key that is not there tells an error for that key, and deletes the others."""
    bucket = one_object()
    answer = bulk(bucket, {"Key": "none", "ETag": TAG}, {"Key": "key", "ETag": TAG})
    equal([(one["Key"], one["Code"]) for one in answer["Errors"]], [("none", "NoSuchKey")])
    equal([one["Key"] for one in answer["Deleted"]], ["key"])


def test_delete_objects_unquoted():
    """The ETag of a key may be without quotes."""
    answer = bulk(one_object(), {"Key": "key", "ETag": TAG.strip('"')})
    equal([one["Key"] for one in answer["Deleted"]], ["key"])
