"""Object lock: buckets that lock, default retention, retention in both modes, bypassing, legal hold, and what they forbid."""

import time
from datetime import datetime, timedelta, timezone

from support import *

DAY = timedelta(days=1)


def soon(delta=DAY):
    return (datetime.now(timezone.utc) + delta).replace(microsecond=0)


def locking(**arguments):
    return new_bucket(ObjectLockEnabledForBucket=True, **arguments)


def set_rule(bucket, mode=None, who=main, **period):
    rule = {"Rule": {"DefaultRetention": {"Mode": mode, **period}}} if mode else {}
    return who.s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", **rule})


def rule(bucket):
    return main.s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]


def retain(bucket, key, mode, until, who=main, **arguments):
    return who.s3.put_object_retention(Bucket=bucket, Key=key, Retention={"Mode": mode, "RetainUntilDate": until}, **arguments)


def retention(bucket, key, **arguments):
    return main.s3.get_object_retention(Bucket=bucket, Key=key, **arguments)["Retention"]


def hold(bucket, key, status, **arguments):
    return main.s3.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": status}, **arguments)


def governed(until=None, **arguments):
    """A bucket with one version in GOVERNANCE: the bucket, the version's id."""
    bucket = locking()
    answer = put(bucket, "key", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until or soon(), **arguments)
    return bucket, answer["VersionId"]


# --- the bucket


def test_a_new_bucket_locks():
    """CreateBucket with x-amz-bucket-object-lock-enabled: it locks without a rule, and has versioning."""
    bucket = locking()
    equal(rule(bucket), {"ObjectLockEnabled": "Enabled"})
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")


def test_others_do_not_lock():
    """Of any other bucket: 404 ObjectLockConfigurationNotFoundError."""
    refused(404, "ObjectLockConfigurationNotFoundError", main.s3.get_object_lock_configuration, Bucket=new_bucket())


def test_rules_are_kept():
    """Days and years, both modes: what was put is got."""
    bucket = locking()
    for mode, period in (("GOVERNANCE", {"Days": 1}), ("COMPLIANCE", {"Years": 1}), ("GOVERNANCE", {"Years": 100})):
        equal(status(set_rule(bucket, mode, **period)), 200)
        equal(rule(bucket), {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": mode, **period}}})


def test_a_rule_is_taken_back():
    """A configuration without a rule takes the rule back; the bucket locks still."""
    bucket = locking()
    set_rule(bucket, "GOVERNANCE", Days=1)
    set_rule(bucket)
    equal(rule(bucket), {"ObjectLockEnabled": "Enabled"})
    put(bucket, "key")
    assert "ObjectLockMode" not in main.s3.head_object(Bucket=bucket, Key="key")


def test_a_bucket_with_versioning_begins_to_lock():
    """PutObjectLockConfiguration on a bucket that has versioning: it locks from then on."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    set_rule(bucket, "GOVERNANCE", Days=2)
    equal(rule(bucket)["Rule"]["DefaultRetention"], {"Mode": "GOVERNANCE", "Days": 2})
    put(bucket, "key")
    equal(retention(bucket, "key")["Mode"], "GOVERNANCE")


def test_a_bucket_without_versioning_does_not():
    """Without versioning, or where it is suspended: 409 InvalidBucketState."""
    bucket = new_bucket()
    refused(409, "InvalidBucketState", set_rule, bucket=bucket, mode="GOVERNANCE", Days=1)
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    refused(409, "InvalidBucketState", set_rule, bucket=bucket, mode="GOVERNANCE", Days=1)
    refused(404, "ObjectLockConfigurationNotFoundError", main.s3.get_object_lock_configuration, Bucket=bucket)


def test_versioning_stays():
    """Versioning of a bucket that locks cannot be suspended: 409 InvalidBucketState."""
    bucket = locking()
    suspended = {"Status": "Suspended"}
    refused(409, "InvalidBucketState", main.s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=suspended)
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")


def test_no_such_bucket():
    """Both on a bucket that is not there: 404 NoSuchBucket."""
    name = new_name()
    refused(404, "NoSuchBucket", main.s3.get_object_lock_configuration, Bucket=name)
    refused(404, "NoSuchBucket", set_rule, bucket=name)


def test_others_may_not_set_a_rule():
    """Another account may neither see nor set it."""
    bucket = locking()
    denied(alt.s3.get_object_lock_configuration, Bucket=bucket)
    denied(set_rule, bucket=bucket, mode="GOVERNANCE", who=alt, Days=1)


def bad_rule(text, wanted):
    bucket = locking()
    answer = signed("PUT", f"/{bucket}?object-lock", f"<ObjectLockConfiguration>{text}</ObjectLockConfiguration>".encode())
    equal((answer.status, code(answer)), (400, wanted), text)
    equal(rule(bucket), {"ObjectLockEnabled": "Enabled"})


def test_malformed_rules():
    """Unknown modes and states, both periods or none: 400 MalformedXML."""
    enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>"
    default = lambda inside: f"{enabled}<Rule><DefaultRetention>{inside}</DefaultRetention></Rule>"
    for text in (
        "",
        "<ObjectLockEnabled>Disabled</ObjectLockEnabled>",
        enabled + "<Rule/>",
        default("<Mode>GOVERNANCE</Mode>"),
        default("<Days>1</Days>"),
        default("<Mode>governance</Mode><Days>1</Days>"),
        default("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"),
        default("<Mode>GOVERNANCE</Mode><Days>many</Days>"),
    ):
        bad_rule(text, "MalformedXML")


def test_periods_that_are_none():
    """A period of nothing, or less: 400 InvalidArgument."""
    for period in ("<Days>0</Days>", "<Days>-1</Days>", "<Years>0</Years>", "<Years>-1</Years>", "<Years>101</Years>"):
        text = f"<Rule><DefaultRetention><Mode>COMPLIANCE</Mode>{period}</DefaultRetention></Rule>"
        bad_rule("<ObjectLockEnabled>Enabled</ObjectLockEnabled>" + text, "InvalidArgument")


# --- default retention


def near(until, wanted):
    assert abs((until - wanted).total_seconds()) < 120, (until, wanted)


def test_default_retention():
    """A rule of the bucket retains what is put from then on, from the time of the put."""
    bucket = locking()
    put(bucket, "before")
    set_rule(bucket, "GOVERNANCE", Days=3)
    put(bucket, "key")
    head = main.s3.head_object(Bucket=bucket, Key="key")
    equal(head["ObjectLockMode"], "GOVERNANCE")
    near(head["ObjectLockRetainUntilDate"], soon(3 * DAY))
    near(retention(bucket, "key")["RetainUntilDate"], soon(3 * DAY))
    refused(404, "NoSuchObjectLockConfiguration", main.s3.get_object_retention, Bucket=bucket, Key="before")


def test_default_retention_in_years():
    """A year has 365 days."""
    bucket = locking()
    set_rule(bucket, "GOVERNANCE", Years=2)
    put(bucket, "key")
    near(retention(bucket, "key")["RetainUntilDate"], soon(730 * DAY))


def test_default_retention_of_multipart():
    """An object of parts is retained likewise."""
    bucket = locking()
    set_rule(bucket, "GOVERNANCE", Days=1)
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    part = main.s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    main.s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload=parts)
    near(retention(bucket, "key")["RetainUntilDate"], soon())


def test_default_retention_of_copies():
    """A copy is retained by the bucket that it goes to, not as its source was."""
    source, target = locking(), locking()
    set_rule(source, "GOVERNANCE", Days=9)
    put(source, "key")
    main.s3.copy_object(Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "key"})
    refused(404, "NoSuchObjectLockConfiguration", main.s3.get_object_retention, Bucket=target, Key="copy")
    set_rule(target, "GOVERNANCE", Days=1)
    main.s3.copy_object(Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "key"})
    near(retention(target, "copy")["RetainUntilDate"], soon())


def test_what_is_said_wins_over_the_rule():
    """A put that says its own retention has that."""
    bucket = locking()
    set_rule(bucket, "GOVERNANCE", Days=3)
    put(bucket, "key", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=soon(timedelta(seconds=2)))
    equal(retention(bucket, "key")["Mode"], "COMPLIANCE")


# --- retention of a version


def test_put_with_a_retention():
    """Headers of PutObject; GET, HEAD and GetObjectRetention tell it."""
    until = soon()
    bucket, version = governed(until)
    for answer in (main.s3.head_object(Bucket=bucket, Key="key"), main.s3.get_object(Bucket=bucket, Key="key")):
        equal((answer["ObjectLockMode"], answer["ObjectLockRetainUntilDate"]), ("GOVERNANCE", until))
    equal(retention(bucket, "key", VersionId=version), {"Mode": "GOVERNANCE", "RetainUntilDate": until})


def test_multipart_with_a_retention():
    """Headers of CreateMultipartUpload."""
    bucket, until = locking(), soon()
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)["UploadId"]
    part = main.s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    main.s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload=parts)
    equal(retention(bucket, "key"), {"Mode": "GOVERNANCE", "RetainUntilDate": until})


def test_copy_with_a_retention():
    """Headers of CopyObject."""
    bucket, until = locking(), soon()
    put(bucket, "key")
    main.s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "key"}, ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until, ObjectLockLegalHoldStatus="ON")
    equal(retention(bucket, "copy"), {"Mode": "GOVERNANCE", "RetainUntilDate": until})
    equal(main.s3.head_object(Bucket=bucket, Key="copy")["ObjectLockLegalHoldStatus"], "ON")


def test_put_retention():
    """PutObjectRetention of the current version, and of one that is named; 200."""
    bucket, until = locking(), soon()
    first = put(bucket, "key", b"1")["VersionId"]
    put(bucket, "key", b"2")
    equal(status(retain(bucket, "key", "GOVERNANCE", until, VersionId=first)), 200)
    equal(retention(bucket, "key", VersionId=first), {"Mode": "GOVERNANCE", "RetainUntilDate": until})
    refused(404, "NoSuchObjectLockConfiguration", main.s3.get_object_retention, Bucket=bucket, Key="key")
    retain(bucket, "key", "GOVERNANCE", until)
    equal(retention(bucket, "key")["RetainUntilDate"], until)


def test_a_bucket_that_does_not_lock():
    """Each of these on such a bucket: 400 InvalidRequest."""
    bucket = new_bucket()
    put(bucket, "key")
    wanted = "InvalidRequest"
    refused(400, wanted, main.s3.get_object_retention, Bucket=bucket, Key="key")
    refused(400, wanted, main.s3.get_object_legal_hold, Bucket=bucket, Key="key")
    refused(400, wanted, retain, bucket=bucket, key="key", mode="GOVERNANCE", until=soon())
    refused(400, wanted, hold, bucket=bucket, key="key", status="ON")
    locks = dict(ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon())
    refused(400, wanted, main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", **locks)
    refused(400, wanted, main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", ObjectLockLegalHoldStatus="ON")
    refused(400, wanted, main.s3.create_multipart_upload, Bucket=bucket, Key="key", **locks)
    equal(read(main, bucket, "key"), b"body")


def test_what_is_not_there():
    """A key or a version that is not there: 404."""
    bucket = locking()
    refused(404, "NoSuchKey", retain, bucket=bucket, key="missing", mode="GOVERNANCE", until=soon())
    refused(404, "NoSuchKey", main.s3.get_object_retention, Bucket=bucket, Key="missing")
    refused(404, "NoSuchKey", hold, bucket=bucket, key="missing", status="ON")
    other = put(bucket, "other")["VersionId"]
    put(bucket, "key")
    refused(404, "NoSuchVersion", main.s3.get_object_retention, Bucket=bucket, Key="key", VersionId=other)


def test_a_delete_marker_has_none():
    """A delete marker is not locked: 405 MethodNotAllowed."""
    bucket, _ = governed()
    marker = main.s3.delete_object(Bucket=bucket, Key="key")["VersionId"]
    refused(405, "MethodNotAllowed", retain, bucket=bucket, key="key", mode="GOVERNANCE", until=soon(), VersionId=marker)
    refused(405, "MethodNotAllowed", hold, bucket=bucket, key="key", status="ON", VersionId=marker)
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key", VersionId=marker)), 204)


def test_headers_that_are_no_lock():
    """One header without the other, a mode that there is not, a date that is over or none: 400 InvalidArgument."""
    bucket = locking()
    until = soon().strftime("%Y-%m-%dT%H:%M:%SZ")
    mode, date = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
    for headers in (
        {mode: "GOVERNANCE"},
        {date: until},
        {mode: "governance", date: until},
        {mode: "GOVERNANCE", date: "2001-01-01T00:00:00Z"},
        {mode: "GOVERNANCE", date: "tomorrow"},
        {"x-amz-object-lock-legal-hold": "on"},
    ):
        answer = signed("PUT", f"/{bucket}/key", b"x", **headers)
        equal((answer.status, code(answer)), (400, "InvalidArgument"), headers)


def test_a_lock_wants_a_digest():
    """A PUT that locks and says no digest of its bytes: 400 InvalidRequest."""
    bucket = locking()
    until = soon().strftime("%Y-%m-%dT%H:%M:%SZ")
    headers = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": until}
    answer = signed("PUT", f"/{bucket}/key", b"x", **headers)
    equal((answer.status, code(answer)), (400, "InvalidRequest"))
    answer = signed("PUT", f"/{bucket}/key", b"x", **headers, **{"Content-MD5": "nd1OSe0uDckJR57p8C80pQ=="})
    equal((answer.status, code(answer)), (400, "BadDigest"))


def test_malformed_retention():
    """A mode that there is not, one element without the other: 400 MalformedXML; a date that is over: InvalidArgument."""
    bucket = locking()
    put(bucket, "key")
    until = f"<RetainUntilDate>{soon().isoformat()}</RetainUntilDate>"
    for text, wanted in (
        (f"<Mode>HARD</Mode>{until}", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode>", "MalformedXML"),
        (until, "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode><RetainUntilDate>soon</RetainUntilDate>", "MalformedXML"),
        ("<Mode>GOVERNANCE</Mode><RetainUntilDate>2001-01-01T00:00:00Z</RetainUntilDate>", "InvalidArgument"),
    ):
        answer = signed("PUT", f"/{bucket}/key?retention", f"<Retention>{text}</Retention>".encode())
        equal((answer.status, code(answer)), (400, wanted), text)


# --- what is forbidden


def test_a_retained_version_is_not_deleted():
    """DeleteObject of the version: 403 AccessDenied, and it is there still."""
    bucket, version = governed()
    denied(main.s3.delete_object, Bucket=bucket, Key="key", VersionId=version)
    equal(read(main, bucket, "key", VersionId=version), b"body")


def test_among_many_it_is_not_deleted_either():
    """DeleteObjects says AccessDenied of it, and deletes the rest."""
    bucket, version = governed()
    free = put(bucket, "free")["VersionId"]
    objects = [{"Key": "key", "VersionId": version}, {"Key": "free", "VersionId": free}]
    answer = main.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    equal([(row["Key"], row["Code"]) for row in answer["Errors"]], [("key", "AccessDenied")])
    equal([row["Key"] for row in answer["Deleted"]], ["free"])


def test_a_delete_marker_is_put_over_it():
    """DeleteObject without a version puts a marker; the version is there still."""
    bucket, version = governed()
    equal(main.s3.delete_object(Bucket=bucket, Key="key")["DeleteMarker"], True)
    equal(read(main, bucket, "key", VersionId=version), b"body")


def test_it_is_written_over():
    """A PUT makes another version; the retained one is there still."""
    bucket, version = governed()
    put(bucket, "key", b"new")
    equal(read(main, bucket, "key"), b"new")
    equal(read(main, bucket, "key", VersionId=version), b"body")


def test_its_bucket_stays():
    """A bucket with versions is not deleted: 409 BucketNotEmpty."""
    bucket, _ = governed()
    main.s3.delete_object(Bucket=bucket, Key="key")
    refused(409, "BucketNotEmpty", main.s3.delete_bucket, Bucket=bucket)


def test_its_tags_change():
    """A lock is about the bytes: tags may change."""
    bucket, _ = governed()
    main.s3.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})


def test_when_it_is_over():
    """A version whose retention is over is deleted as any other."""
    bucket = locking()
    until = soon(timedelta(seconds=3))
    version = put(bucket, "key", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=until)["VersionId"]
    denied(main.s3.delete_object, Bucket=bucket, Key="key", VersionId=version)
    deadline = time.monotonic() + 60
    while True:
        try:
            equal(status(main.s3.delete_object(Bucket=bucket, Key="key", VersionId=version)), 204)
            assert datetime.now(timezone.utc) >= until, "it went too early"
            return
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied" and time.monotonic() < deadline, error
            time.sleep(0.5)


# --- bypassing


def test_governance_is_bypassed():
    """With x-amz-bypass-governance-retention, by who may: the version goes."""
    bucket, version = governed()
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key", VersionId=version, BypassGovernanceRetention=True)), 204)
    refused(404, "NoSuchVersion", main.s3.get_object, Bucket=bucket, Key="key", VersionId=version)


def test_governance_is_bypassed_for_many():
    """DeleteObjects with the header too."""
    bucket, version = governed()
    answer = main.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "VersionId": version}]}, BypassGovernanceRetention=True)
    equal([row["Key"] for row in answer["Deleted"]], ["key"])


def test_compliance_is_not():
    """COMPLIANCE is bypassed by nobody."""
    bucket = locking()
    version = put(bucket, "key", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=soon())["VersionId"]
    denied(main.s3.delete_object, Bucket=bucket, Key="key", VersionId=version, BypassGovernanceRetention=True)


def test_who_may_bypass():
    """s3:BypassGovernanceRetention is asked for beside s3:DeleteObjectVersion."""
    bucket, version = governed()
    everything = [arn(bucket), arn(bucket, "*")]
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObjectVersion", everything))
    arguments = dict(Bucket=bucket, Key="key", VersionId=version)
    denied(alt.s3.delete_object, **arguments)
    denied(alt.s3.delete_object, **arguments, BypassGovernanceRetention=True)
    answer = alt.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "VersionId": version}]}, BypassGovernanceRetention=True)
    equal([row["Code"] for row in answer["Errors"]], ["AccessDenied"])
    set_policy(bucket, statement("Allow", alt.arn, ["s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"], everything))
    denied(alt.s3.delete_object, **arguments)
    equal(status(alt.s3.delete_object(**arguments, BypassGovernanceRetention=True)), 204)


# --- changing a retention


def test_longer():
    """Both modes may be made longer."""
    for mode in ("GOVERNANCE", "COMPLIANCE"):
        bucket = locking()
        put(bucket, "key", ObjectLockMode=mode, ObjectLockRetainUntilDate=soon())
        later = soon(2 * DAY)
        retain(bucket, "key", mode, later)
        equal(retention(bucket, "key"), {"Mode": mode, "RetainUntilDate": later})


def test_shorter():
    """GOVERNANCE is made shorter by bypassing it only."""
    bucket, _ = governed(soon(2 * DAY))
    earlier = soon()
    denied(retain, bucket=bucket, key="key", mode="GOVERNANCE", until=earlier)
    retain(bucket, "key", "GOVERNANCE", earlier, BypassGovernanceRetention=True)
    equal(retention(bucket, "key")["RetainUntilDate"], earlier)


def test_another_mode():
    """GOVERNANCE becomes COMPLIANCE by bypassing it only."""
    bucket, _ = governed()
    later = soon(2 * DAY)
    denied(retain, bucket=bucket, key="key", mode="COMPLIANCE", until=later)
    retain(bucket, "key", "COMPLIANCE", later, BypassGovernanceRetention=True)
    equal(retention(bucket, "key")["Mode"], "COMPLIANCE")


def test_lifted():
    """An empty Retention lifts GOVERNANCE by bypassing it only."""
    bucket, version = governed()
    denied(main.s3.put_object_retention, Bucket=bucket, Key="key", Retention={})
    main.s3.put_object_retention(Bucket=bucket, Key="key", Retention={}, BypassGovernanceRetention=True)
    refused(404, "NoSuchObjectLockConfiguration", main.s3.get_object_retention, Bucket=bucket, Key="key")
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key", VersionId=version)), 204)


def test_compliance_is_not_weakened():
    """COMPLIANCE is made neither shorter nor another mode, nor lifted, by anybody."""
    bucket = locking()
    put(bucket, "key", ObjectLockMode="COMPLIANCE", ObjectLockRetainUntilDate=soon(2 * DAY))
    bypass = dict(BypassGovernanceRetention=True)
    denied(retain, bucket=bucket, key="key", mode="COMPLIANCE", until=soon(), **bypass)
    denied(retain, bucket=bucket, key="key", mode="GOVERNANCE", until=soon(3 * DAY), **bypass)
    denied(main.s3.put_object_retention, Bucket=bucket, Key="key", Retention={}, **bypass)


def test_who_may_retain():
    """s3:PutObjectRetention and s3:GetObjectRetention are actions of their own, for headers of a PUT and of a GET too."""
    bucket = locking()
    put(bucket, "key", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon())
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObject", "s3:PutObject"], arn(bucket, "*")))
    denied(alt.s3.get_object_retention, Bucket=bucket, Key="key")
    denied(retain, bucket=bucket, key="key", mode="GOVERNANCE", until=soon(2 * DAY), who=alt)
    locks = dict(ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=soon())
    denied(alt.s3.put_object, Bucket=bucket, Key="theirs", Body=b"x", **locks)
    assert "ObjectLockMode" not in alt.s3.head_object(Bucket=bucket, Key="key")
    actions = ["s3:GetObject", "s3:PutObject", "s3:PutObjectRetention", "s3:GetObjectRetention"]
    set_policy(bucket, statement("Allow", alt.arn, actions, arn(bucket, "*")))
    put(bucket, "theirs", who=alt, **locks)
    equal(alt.s3.head_object(Bucket=bucket, Key="key")["ObjectLockMode"], "GOVERNANCE")


# --- legal hold


def test_hold():
    """A version under legal hold is not deleted, whoever asks and whatever he bypasses; without it, it is."""
    bucket = locking()
    version = put(bucket, "key")["VersionId"]
    equal(status(hold(bucket, "key", "ON")), 200)
    equal(main.s3.get_object_legal_hold(Bucket=bucket, Key="key")["LegalHold"]["Status"], "ON")
    denied(main.s3.delete_object, Bucket=bucket, Key="key", VersionId=version)
    denied(main.s3.delete_object, Bucket=bucket, Key="key", VersionId=version, BypassGovernanceRetention=True)
    hold(bucket, "key", "OFF")
    equal(main.s3.get_object_legal_hold(Bucket=bucket, Key="key")["LegalHold"]["Status"], "OFF")
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key", VersionId=version)), 204)


def test_put_with_a_hold():
    """The header of PutObject; HEAD and GET tell it."""
    bucket = locking()
    put(bucket, "key", ObjectLockLegalHoldStatus="ON")
    for answer in (main.s3.head_object(Bucket=bucket, Key="key"), main.s3.get_object(Bucket=bucket, Key="key")):
        equal(answer["ObjectLockLegalHoldStatus"], "ON")


def test_hold_and_retention():
    """They are independent of each other."""
    bucket, version = governed()
    hold(bucket, "key", "ON")
    main.s3.put_object_retention(Bucket=bucket, Key="key", Retention={}, BypassGovernanceRetention=True)
    denied(main.s3.delete_object, Bucket=bucket, Key="key", VersionId=version)
    retain(bucket, "key", "GOVERNANCE", soon())
    hold(bucket, "key", "OFF")
    denied(main.s3.delete_object, Bucket=bucket, Key="key", VersionId=version)


def test_hold_of_a_version():
    """One version is held, and the others are not."""
    bucket = locking()
    first, second = (put(bucket, "key", body)["VersionId"] for body in (b"1", b"2"))
    hold(bucket, "key", "ON", VersionId=first)
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key", VersionId=second)), 204)
    denied(main.s3.delete_object, Bucket=bucket, Key="key", VersionId=first)


def test_malformed_hold():
    """Anything but ON and OFF: 400 MalformedXML."""
    bucket = locking()
    put(bucket, "key")
    for text in ("<LegalHold/>", "<LegalHold><Status>on</Status></LegalHold>", "<Other/>"):
        answer = signed("PUT", f"/{bucket}/key?legal-hold", text.encode())
        equal((answer.status, code(answer)), (400, "MalformedXML"), text)


def test_who_may_hold():
    """s3:PutObjectLegalHold and s3:GetObjectLegalHold are actions of their own."""
    bucket = locking()
    put(bucket, "key", ObjectLockLegalHoldStatus="ON")
    set_policy(bucket, statement("Allow", alt.arn, ["s3:GetObject", "s3:PutObject"], arn(bucket, "*")))
    denied(alt.s3.get_object_legal_hold, Bucket=bucket, Key="key")
    denied(alt.s3.put_object_legal_hold, Bucket=bucket, Key="key", LegalHold={"Status": "OFF"})
    denied(alt.s3.put_object, Bucket=bucket, Key="theirs", Body=b"x", ObjectLockLegalHoldStatus="ON")
    assert "ObjectLockLegalHoldStatus" not in alt.s3.head_object(Bucket=bucket, Key="key")


def test_for_ever():
    """A date more than a hundred years ahead: 400 InvalidArgument."""
    bucket = locking()
    put(bucket, "key")
    refused(400, "InvalidArgument", retain, bucket=bucket, key="key", mode="COMPLIANCE", until=datetime(2262, 1, 1, tzinfo=timezone.utc))
