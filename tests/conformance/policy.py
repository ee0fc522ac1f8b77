"""Bucket policies: PutBucketPolicy, GetBucketPolicy, DeleteBucketPolicy, GetBucketPolicyStatus, and what they allow and deny."""

from datetime import datetime, timedelta, timezone

from support import *

EVERYBODY = {"AWS": "*"}


def shared(key="key", body=b"body", **arguments):
    """A bucket of main's with one object."""
    bucket = new_bucket()
    put(bucket, key, body, **arguments)
    return bucket


# --- the document


def test_none():
    """A bucket has no policy at first: 404 NoSuchBucketPolicy, with the bucket's name."""
    bucket = new_bucket()
    error = refused(404, "NoSuchBucketPolicy", main.s3.get_bucket_policy, Bucket=bucket)
    equal(error["Error"]["BucketName"], bucket)


def test_put_get_delete():
    """What was put is what is got, byte for byte; after DELETE there is none. 204, 200, 204."""
    bucket = new_bucket()
    text = document(statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket, "*"))).replace(",", " ,\n")
    equal(status(main.s3.put_bucket_policy(Bucket=bucket, Policy=text)), 204)
    answer = main.s3.get_bucket_policy(Bucket=bucket)
    equal(answer["Policy"], text)
    equal(answer["ResponseMetadata"]["HTTPHeaders"]["content-type"], "application/json")
    equal(status(main.s3.delete_bucket_policy(Bucket=bucket)), 204)
    refused(404, "NoSuchBucketPolicy", main.s3.get_bucket_policy, Bucket=bucket)


def test_delete_none():
    """DeleteBucketPolicy of a bucket without one is 204."""
    equal(status(main.s3.delete_bucket_policy(Bucket=new_bucket())), 204)


def test_put_replaces():
    """A second PutBucketPolicy replaces the first."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    set_policy(bucket, statement("Allow", tenant.arn, "s3:GetObject", arn(bucket, "*")))
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    equal(read(tenant, bucket, "key"), b"body")


def test_no_such_bucket():
    """All four operations on a bucket that is not there: 404 NoSuchBucket."""
    name = new_name()
    refused(404, "NoSuchBucket", main.s3.get_bucket_policy, Bucket=name)
    refused(404, "NoSuchBucket", main.s3.get_bucket_policy_status, Bucket=name)
    refused(404, "NoSuchBucket", main.s3.delete_bucket_policy, Bucket=name)
    text = document(statement("Allow", EVERYBODY, "s3:GetObject", arn(name, "*")))
    refused(404, "NoSuchBucket", main.s3.put_bucket_policy, Bucket=name, Policy=text)


def malformed(text, bucket=None):
    refused(400, "MalformedPolicy", main.s3.put_bucket_policy, Bucket=bucket or new_bucket(), Policy=text)


def test_not_json():
    """Text that is no JSON: 400 MalformedPolicy."""
    malformed("{")


def test_not_an_object():
    """JSON that is no object: 400 MalformedPolicy."""
    malformed("[]")


def test_empty_statement():
    """A policy without statements: 400 MalformedPolicy."""
    malformed('{"Version": "2012-10-17", "Statement": []}')


def test_unknown_version():
    """Only the two versions of the policy language are taken."""
    malformed('{"Version": "2020-10-17", "Statement": []}')


def test_unknown_effect():
    """An effect is Allow or Deny."""
    bucket = new_bucket()
    malformed(document(statement("Perhaps", EVERYBODY, "s3:GetObject", arn(bucket, "*"))), bucket)


def test_no_principal():
    """A bucket's policy says whom it is about."""
    bucket = new_bucket()
    one = statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket, "*"))
    del one["Principal"]
    malformed(document(one), bucket)


def test_principal_wildcard_in_an_arn():
    """A wildcard is no part of a principal's ARN."""
    bucket = new_bucket()
    malformed(document(statement("Allow", f"arn:aws:iam::{alt.id}:user/*", "s3:GetObject", arn(bucket, "*"))), bucket)


def test_no_action():
    """A statement has an Action or a NotAction."""
    bucket = new_bucket()
    one = statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket, "*"))
    del one["Action"]
    malformed(document(one), bucket)


def test_action_and_not_action():
    """A statement has not both."""
    bucket = new_bucket()
    malformed(document(statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket, "*"), NotAction="s3:PutObject")), bucket)


def test_resource_of_another_bucket():
    """A resource outside of the bucket: 400 MalformedPolicy, "Policy has invalid resource"."""
    bucket, other = new_bucket(), new_bucket()
    text = document(statement("Allow", EVERYBODY, "s3:GetObject", arn(other, "*")))
    error = refused(400, "MalformedPolicy", main.s3.put_bucket_policy, Bucket=bucket, Policy=text)
    assert "invalid resource" in error["Error"]["Message"], error


def test_resource_of_a_longer_name():
    """A bucket whose name begins alike is another bucket."""
    bucket = new_bucket()
    malformed(document(statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket + "x", "*"))), bucket)


def test_unknown_condition_operator():
    """An operator that there is not: 400 MalformedPolicy."""
    bucket = new_bucket()
    condition = {"StringResembles": {"s3:prefix": "x"}}
    malformed(document(statement("Allow", EVERYBODY, "s3:ListBucket", arn(bucket), Condition=condition)), bucket)


def test_unknown_element():
    """An element that there is not: 400 MalformedPolicy."""
    bucket = new_bucket()
    malformed(document(statement("Allow", EVERYBODY, "s3:ListBucket", arn(bucket), Conditions={})), bucket)


def test_too_long():
    """A policy of more than 20 KB: 400 MalformedPolicy."""
    bucket = new_bucket()
    malformed(document(statement("Allow", EVERYBODY, "s3:GetObject", [arn(bucket, "k" * 900 + str(n)) for n in range(30)])), bucket)


def test_malformed_keeps_the_former():
    """A policy that is refused leaves the one before."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    malformed("{", bucket)
    equal(read(alt, bucket, "key"), b"body")


def test_goes_with_the_bucket():
    """A bucket of the same name has none of the former one's policy."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:*", [arn(bucket), arn(bucket, "*")]))
    main.s3.delete_bucket(Bucket=bucket)
    main.s3.create_bucket(Bucket=bucket)
    refused(404, "NoSuchBucketPolicy", main.s3.get_bucket_policy, Bucket=bucket)
    denied(alt.s3.list_objects_v2, Bucket=bucket)


# --- whose business it is


def test_others_may_not():
    """Another account may neither see nor change a policy: 403."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", tenant.arn, "s3:GetObject", arn(bucket, "*")))
    denied(alt.s3.get_bucket_policy, Bucket=bucket)
    denied(alt.s3.get_bucket_policy_status, Bucket=bucket)
    denied(alt.s3.delete_bucket_policy, Bucket=bucket)
    denied(alt.s3.put_bucket_policy, Bucket=bucket, Policy=document(statement("Allow", alt.arn, "s3:*", arn(bucket, "*"))))
    denied(anonymous.get_bucket_policy, Bucket=bucket)


def test_not_of_the_owners_account():
    """Who is granted the action and is not of the owner's account is answered 405 MethodNotAllowed."""
    bucket = new_bucket()
    actions = ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"]
    set_policy(bucket, statement("Allow", alt.arn, actions, arn(bucket)))
    refused(405, "MethodNotAllowed", alt.s3.get_bucket_policy, Bucket=bucket)
    refused(405, "MethodNotAllowed", alt.s3.delete_bucket_policy, Bucket=bucket)
    text = document(statement("Allow", alt.arn, "s3:*", arn(bucket, "*")))
    refused(405, "MethodNotAllowed", alt.s3.put_bucket_policy, Bucket=bucket, Policy=text)


def test_no_lock_out():
    """Who denies everything to everybody can still see, replace and remove the policy, by the account's own key."""
    bucket = shared()
    set_policy(bucket, statement("Deny", EVERYBODY, "s3:*", [arn(bucket), arn(bucket, "*")]))
    denied(main.s3.get_object, Bucket=bucket, Key="key")
    denied(main.s3.list_objects_v2, Bucket=bucket)
    main.s3.get_bucket_policy(Bucket=bucket)
    main.s3.delete_bucket_policy(Bucket=bucket)
    equal(read(main, bucket, "key"), b"body")


# --- who is named


def test_without_a_policy_others_are_denied():
    """Another account and nobody in particular get nothing of a bucket that says nothing."""
    bucket = shared()
    for s3 in (alt.s3, anonymous):
        denied(s3.get_object, Bucket=bucket, Key="key")
        denied(s3.head_object, Bucket=bucket, Key="key")
        denied(s3.put_object, Bucket=bucket, Key="key", Body=b"x")
        denied(s3.delete_object, Bucket=bucket, Key="key")
        denied(s3.list_objects_v2, Bucket=bucket)
        denied(s3.head_bucket, Bucket=bucket)
    equal(read(main, bucket, "key"), b"body")


def test_account_by_arn():
    """An account is named by the ARN of its root."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal(read(alt, bucket, "key"), b"body")
    denied(tenant.s3.get_object, Bucket=bucket, Key="key")
    denied(anonymous.get_object, Bucket=bucket, Key="key")


def test_account_by_id():
    """An account is named by its id alone too."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.id, "s3:GetObject", arn(bucket, "*")))
    equal(read(alt, bucket, "key"), b"body")
    denied(tenant.s3.get_object, Bucket=bucket, Key="key")


def test_several_accounts():
    """A list of principals names each of them."""
    bucket = shared()
    set_policy(bucket, statement("Allow", [alt.id, tenant.arn], "s3:GetObject", arn(bucket, "*")))
    equal((read(alt, bucket, "key"), read(tenant, bucket, "key")), (b"body", b"body"))
    denied(anonymous.get_object, Bucket=bucket, Key="key")


def test_star_is_everybody():
    """`"Principal": "*"` is everybody, with and without a key."""
    bucket = shared()
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    for who in (alt, tenant, anonymous):
        equal(read(who, bucket, "key"), b"body")


def test_aws_star_is_everybody():
    """`{"AWS": "*"}` is everybody too, without a key as well."""
    bucket = shared()
    set_policy(bucket, statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket, "*")))
    equal(read(anonymous, bucket, "key"), b"body")


def test_not_principal_in_a_denial():
    """A denial with NotPrincipal is about all but who is named."""
    bucket = shared()
    deny = {"Effect": "Deny", "NotPrincipal": {"AWS": [main.arn, alt.arn]}, "Action": "s3:*", "Resource": arn(bucket, "*")}
    set_policy(bucket, statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket, "*")), deny)
    equal(read(alt, bucket, "key"), b"body")
    denied(tenant.s3.get_object, Bucket=bucket, Key="key")
    denied(anonymous.get_object, Bucket=bucket, Key="key")


def test_service_principals_are_nobody():
    """A service that there is not here is taken, and names nobody."""
    bucket = shared()
    set_policy(bucket, statement("Allow", {"Service": "logging.s3.amazonaws.com"}, "s3:*", arn(bucket, "*")))
    denied(alt.s3.get_object, Bucket=bucket, Key="key")


# --- actions and resources


def test_only_the_action_that_is_named():
    """To read is not to write, to list or to delete."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    denied(alt.s3.put_object, Bucket=bucket, Key="key", Body=b"x")
    denied(alt.s3.delete_object, Bucket=bucket, Key="key")
    denied(alt.s3.list_objects_v2, Bucket=bucket)
    denied(alt.s3.get_object_tagging, Bucket=bucket, Key="key")


def test_head_is_get():
    """HeadObject is allowed by s3:GetObject."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal(alt.s3.head_object(Bucket=bucket, Key="key")["ContentLength"], 4)


def test_put():
    """s3:PutObject lets another account write; the bucket's owner owns what it wrote, and reads it."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    put(bucket, "theirs", b"by alt", who=alt)
    equal(read(main, bucket, "theirs"), b"by alt")
    denied(alt.s3.get_object, Bucket=bucket, Key="theirs")


def test_multipart_is_put():
    """A multipart upload from beginning to end is allowed by s3:PutObject."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    upload = alt.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    part = alt.s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    alt.s3.complete_multipart_upload(Bucket=bucket, Key="key", UploadId=upload, MultipartUpload=parts)
    equal(read(main, bucket, "key"), b"part")


def test_abort_and_list_parts():
    """AbortMultipartUpload and ListParts have actions of their own."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    upload = alt.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    denied(alt.s3.list_parts, Bucket=bucket, Key="key", UploadId=upload)
    denied(alt.s3.abort_multipart_upload, Bucket=bucket, Key="key", UploadId=upload)
    actions = ["s3:ListMultipartUploadParts", "s3:AbortMultipartUpload"]
    set_policy(bucket, statement("Allow", alt.arn, actions, arn(bucket, "*")))
    equal(alt.s3.list_parts(Bucket=bucket, Key="key", UploadId=upload).get("Parts", []), [])
    equal(status(alt.s3.abort_multipart_upload(Bucket=bucket, Key="key", UploadId=upload)), 204)


def test_delete():
    """s3:DeleteObject lets another account delete, one key or many."""
    bucket = shared()
    put(bucket, "second")
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObject", arn(bucket, "*")))
    equal(status(alt.s3.delete_object(Bucket=bucket, Key="key")), 204)
    answer = alt.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "second"}]})
    equal([row["Key"] for row in answer["Deleted"]], ["second"])
    equal(main.s3.list_objects_v2(Bucket=bucket)["KeyCount"], 0)


def test_delete_many_is_decided_key_by_key():
    """DeleteObjects deletes what it may, and says of the rest AccessDenied."""
    bucket = new_bucket()
    for key in ("mine/1", "yours/1", "yours/2"):
        put(bucket, key)
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObject", arn(bucket, "yours/*")))
    keys = [{"Key": key} for key in ("mine/1", "yours/1", "yours/2")]
    answer = alt.s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})
    equal(sorted(row["Key"] for row in answer["Deleted"]), ["yours/1", "yours/2"])
    equal([(row["Key"], row["Code"]) for row in answer["Errors"]], [("mine/1", "AccessDenied")])


def test_list():
    """s3:ListBucket is about the bucket, not about what is in it."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket, "*")))
    denied(alt.s3.list_objects_v2, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket)))
    equal([row["Key"] for row in alt.s3.list_objects_v2(Bucket=bucket)["Contents"]], ["key"])
    equal([row["Key"] for row in alt.s3.list_objects(Bucket=bucket)["Contents"]], ["key"])
    equal(status(alt.s3.head_bucket(Bucket=bucket)), 200)
    denied(alt.s3.list_object_versions, Bucket=bucket)


def test_anybody_lists():
    """Who has no key lists what is open to everybody."""
    bucket = shared()
    set_policy(bucket, statement("Allow", "*", "s3:ListBucket", arn(bucket)))
    equal([row["Key"] for row in anonymous.list_objects_v2(Bucket=bucket)["Contents"]], ["key"])


def test_anybody_writes_and_deletes():
    """Who has no key writes and deletes where that is open to everybody."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", "*", ["s3:PutObject", "s3:DeleteObject"], arn(bucket, "*")))
    equal(status(anonymous.put_object(Bucket=bucket, Key="key", Body=b"by anybody")), 200)
    equal(read(main, bucket, "key"), b"by anybody")
    equal(status(anonymous.delete_object(Bucket=bucket, Key="key")), 204)


def test_location_and_other_settings():
    """Each setting of a bucket has an action of its own."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetBucketLocation", arn(bucket)))
    equal(status(alt.s3.get_bucket_location(Bucket=bucket)), 200)
    denied(alt.s3.get_bucket_versioning, Bucket=bucket)
    denied(alt.s3.get_bucket_tagging, Bucket=bucket)
    denied(alt.s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def test_prefix_of_keys():
    """A resource with a prefix is about the keys that begin so."""
    bucket = shared("public/key")
    put(bucket, "private/key")
    set_policy(bucket, statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket, "public/*")))
    equal(read(anonymous, bucket, "public/key"), b"body")
    denied(anonymous.get_object, Bucket=bucket, Key="private/key")
    denied(anonymous.get_object, Bucket=bucket, Key="public")


def test_wildcards_in_keys():
    """`?` is one character, `*` any, slashes too."""
    bucket = new_bucket()
    for key in ("a1.txt", "a12.txt", "b/1/x.txt"):
        put(bucket, key)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", [arn(bucket, "a?.txt"), arn(bucket, "b*.txt")]))
    equal(read(alt, bucket, "a1.txt"), b"body")
    equal(read(alt, bucket, "b/1/x.txt"), b"body")
    denied(alt.s3.get_object, Bucket=bucket, Key="a12.txt")


def test_not_resource():
    """NotResource is about all but what is named."""
    bucket = shared("a")
    put(bucket, "b")
    one = {"Effect": "Allow", "Principal": {"AWS": alt.arn}, "Action": "s3:GetObject", "NotResource": arn(bucket, "a")}
    set_policy(bucket, one)
    denied(alt.s3.get_object, Bucket=bucket, Key="a")
    equal(read(alt, bucket, "b"), b"body")


def test_not_action():
    """NotAction in a denial is about all but what is named."""
    bucket = shared()
    everything = [arn(bucket), arn(bucket, "*")]
    deny = {"Effect": "Deny", "Principal": {"AWS": alt.arn}, "NotAction": "s3:GetObject", "Resource": everything}
    set_policy(bucket, statement("Allow", alt.arn, "s3:*", everything), deny)
    equal(read(alt, bucket, "key"), b"body")
    denied(alt.s3.put_object, Bucket=bucket, Key="key", Body=b"x")
    denied(alt.s3.list_objects_v2, Bucket=bucket)


def test_action_wildcards_and_case():
    """Actions have wildcards, and their case does not matter."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "S3:getobj*", arn(bucket, "*")))
    equal(read(alt, bucket, "key"), b"body")
    equal(alt.s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"], [])
    denied(alt.s3.put_object_tagging, Bucket=bucket, Key="key", Tagging={"TagSet": []})


def test_versions_have_actions_of_their_own():
    """s3:GetObject is about the current version; s3:GetObjectVersion about those that are named."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = put(bucket, "key", b"old")["VersionId"]
    put(bucket, "key", b"new")
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal(read(alt, bucket, "key"), b"new")
    denied(alt.s3.get_object, Bucket=bucket, Key="key", VersionId=version)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectVersion", arn(bucket, "*")))
    equal(read(alt, bucket, "key", VersionId=version), b"old")
    denied(alt.s3.get_object, Bucket=bucket, Key="key")


def test_deleting_a_version():
    """To delete a version is s3:DeleteObjectVersion."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = put(bucket, "key")["VersionId"]
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObject", arn(bucket, "*")))
    denied(alt.s3.delete_object, Bucket=bucket, Key="key", VersionId=version)
    equal(alt.s3.delete_object(Bucket=bucket, Key="key")["DeleteMarker"], True)
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteObjectVersion", arn(bucket, "*")))
    equal(alt.s3.delete_object(Bucket=bucket, Key="key", VersionId=version)["VersionId"], version)


def test_list_versions():
    """ListObjectVersions is s3:ListBucketVersions."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucketVersions", arn(bucket)))
    equal(len(alt.s3.list_object_versions(Bucket=bucket)["Versions"]), 1)
    denied(alt.s3.list_objects_v2, Bucket=bucket)


def test_list_uploads():
    """ListMultipartUploads is s3:ListBucketMultipartUploads."""
    bucket = new_bucket()
    main.s3.create_multipart_upload(Bucket=bucket, Key="key")
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucketMultipartUploads", arn(bucket)))
    equal(len(alt.s3.list_multipart_uploads(Bucket=bucket)["Uploads"]), 1)


# --- denial


def test_denial_wins():
    """A denial wins over a permission, in whatever order they stand."""
    bucket = shared()
    allow = statement("Allow", EVERYBODY, "s3:GetObject", arn(bucket, "*"))
    deny = statement("Deny", alt.arn, "s3:GetObject", arn(bucket, "*"))
    for statements in ((allow, deny), (deny, allow)):
        set_policy(bucket, *statements)
        denied(alt.s3.get_object, Bucket=bucket, Key="key")
        equal(read(tenant, bucket, "key"), b"body")


def test_denial_binds_the_owner():
    """What a policy denies to everybody is denied to the owner too."""
    bucket = shared()
    set_policy(bucket, statement("Deny", EVERYBODY, "s3:DeleteObject", arn(bucket, "*")))
    denied(main.s3.delete_object, Bucket=bucket, Key="key")
    answer = main.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key"}]})
    equal([row["Code"] for row in answer["Errors"]], ["AccessDenied"])
    equal(read(main, bucket, "key"), b"body")


def test_what_is_not_there():
    """A key that is not there is 404 to who may list, and 403 to who may not."""
    bucket = shared()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    denied(alt.s3.get_object, Bucket=bucket, Key="missing")
    both = [statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")), statement("Allow", alt.arn, "s3:ListBucket", arn(bucket))]
    set_policy(bucket, *both)
    refused(404, "NoSuchKey", alt.s3.get_object, Bucket=bucket, Key="missing")


# --- copies


def test_copy_needs_both_sides():
    """CopyObject is s3:GetObject of the source and s3:PutObject of the target."""
    source, target = shared(), new_bucket()
    copy = dict(Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "key"})
    denied(alt.s3.copy_object, **copy)
    set_policy(source, statement("Allow", alt.arn, "s3:GetObject", arn(source, "*")))
    denied(alt.s3.copy_object, **copy)
    set_policy(target, statement("Allow", alt.arn, "s3:PutObject", arn(target, "*")))
    alt.s3.copy_object(**copy)
    equal(read(main, target, "copy"), b"body")
    main.s3.delete_bucket_policy(Bucket=source)
    denied(alt.s3.copy_object, **copy)


def test_copy_between_accounts():
    """Another account copies what it may read into a bucket of its own."""
    source, target = shared(), new_bucket(owner=alt)
    denied(alt.s3.copy_object, Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "key"})
    set_policy(source, statement("Allow", alt.arn, "s3:GetObject", arn(source, "*")))
    alt.s3.copy_object(Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "key"})
    equal(read(alt, target, "copy"), b"body")
    denied(main.s3.get_object, Bucket=target, Key="copy")


def test_part_copy_needs_both_sides():
    """UploadPartCopy reads its source as CopyObject does."""
    source, target = shared(), new_bucket(owner=alt)
    upload = alt.s3.create_multipart_upload(Bucket=target, Key="key")["UploadId"]
    part = dict(Bucket=target, Key="key", UploadId=upload, PartNumber=1, CopySource={"Bucket": source, "Key": "key"})
    denied(alt.s3.upload_part_copy, **part)
    set_policy(source, statement("Allow", alt.arn, "s3:GetObject", arn(source, "*")))
    assert alt.s3.upload_part_copy(**part)["CopyPartResult"]["ETag"]


# --- conditions


def allowed_if(condition, action="s3:GetObject", resource="*", effect="Allow", **arguments):
    """A bucket that alt may use so far as a condition holds."""
    bucket = shared(**arguments)
    on = arn(bucket) if resource is None else arn(bucket, resource)
    conditional = statement(effect, alt.arn, action, on, Condition=condition)
    others = [statement("Allow", alt.arn, action, on)] if effect == "Deny" else []
    set_policy(bucket, conditional, *others)
    return bucket


def test_string_equals_prefix():
    """s3:prefix: a listing of that prefix and no other."""
    bucket = allowed_if({"StringEquals": {"s3:prefix": "a/"}}, "s3:ListBucket", None)
    equal(alt.s3.list_objects_v2(Bucket=bucket, Prefix="a/")["KeyCount"], 0)
    denied(alt.s3.list_objects_v2, Bucket=bucket, Prefix="b/")
    denied(alt.s3.list_objects_v2, Bucket=bucket)


def test_string_like_prefix():
    """s3:prefix with a wildcard."""
    bucket = allowed_if({"StringLike": {"s3:prefix": ["a/*", "b"]}}, "s3:ListBucket", None)
    for prefix in ("a/", "a/b/c", "b"):
        alt.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
    for prefix in ("", "a", "b/"):
        denied(alt.s3.list_objects_v2, Bucket=bucket, Prefix=prefix)


def test_delimiter():
    """s3:delimiter."""
    bucket = allowed_if({"StringEquals": {"s3:delimiter": "/"}}, "s3:ListBucket", None)
    alt.s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    denied(alt.s3.list_objects_v2, Bucket=bucket)


def test_max_keys():
    """s3:max-keys with a number's operator."""
    bucket = allowed_if({"NumericLessThanEquals": {"s3:max-keys": "10"}}, "s3:ListBucket", None)
    alt.s3.list_objects_v2(Bucket=bucket, MaxKeys=10)
    denied(alt.s3.list_objects_v2, Bucket=bucket, MaxKeys=11)


def test_source_ip():
    """aws:SourceIp: the address that the client comes from."""
    bucket = allowed_if({"IpAddress": {"aws:SourceIp": ["127.0.0.0/8", "::1/128"]}})
    equal(read(alt, bucket, "key"), b"body")
    bucket = allowed_if({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})
    denied(alt.s3.get_object, Bucket=bucket, Key="key")


def test_not_ip_address():
    """A denial to all but a network."""
    bucket = allowed_if({"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, effect="Deny")
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    bucket = allowed_if({"NotIpAddress": {"aws:SourceIp": ["127.0.0.0/8", "::1/128"]}}, effect="Deny")
    equal(read(alt, bucket, "key"), b"body")


def test_source_ip_is_not_what_a_header_says():
    """X-Forwarded-For of a client is not believed."""
    bucket = shared()
    condition = {"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*"), Condition=condition))
    equal(raw("GET", f"/{bucket}/key", headers={"X-Forwarded-For": "192.0.2.1"}).status, 403)


def test_secure_transport():
    """aws:SecureTransport is true over TLS."""
    bucket = allowed_if({"Bool": {"aws:SecureTransport": "false"}}, effect="Deny")
    equal(read(alt, bucket, "key"), b"body")
    bucket = allowed_if({"Bool": {"aws:SecureTransport": "true"}}, effect="Deny")
    denied(alt.s3.get_object, Bucket=bucket, Key="key")


def test_current_time():
    """aws:CurrentTime with a date's operators."""
    soon = (datetime.now(timezone.utc) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    bucket = allowed_if({"DateLessThan": {"aws:CurrentTime": soon}})
    equal(read(alt, bucket, "key"), b"body")
    bucket = allowed_if({"DateGreaterThan": {"aws:CurrentTime": soon}})
    denied(alt.s3.get_object, Bucket=bucket, Key="key")


def test_epoch_time():
    """aws:EpochTime as a number."""
    bucket = allowed_if({"NumericGreaterThan": {"aws:EpochTime": "1700000000"}})
    equal(read(alt, bucket, "key"), b"body")


def test_referer():
    """aws:Referer is the Referer header."""
    bucket = shared()
    condition = {"StringLike": {"aws:Referer": "https://example.com/*"}}
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*"), Condition=condition))
    equal(raw("GET", f"/{bucket}/key", headers={"Referer": "https://example.com/page"}).status, 200)
    equal(raw("GET", f"/{bucket}/key", headers={"Referer": "https://elsewhere.example/"}).status, 403)
    equal(raw("GET", f"/{bucket}/key").status, 403)


def test_user_agent():
    """aws:UserAgent is the User-Agent header."""
    bucket = shared()
    condition = {"StringEquals": {"aws:UserAgent": "allowed/1"}}
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*"), Condition=condition))
    equal(raw("GET", f"/{bucket}/key", headers={"User-Agent": "allowed/1"}).status, 200)
    equal(raw("GET", f"/{bucket}/key", headers={"User-Agent": "allowed/2"}).status, 403)


def test_principal_account():
    """aws:PrincipalAccount is the account that asks; nobody in particular has none."""
    bucket = shared()
    condition = {"StringEquals": {"aws:PrincipalAccount": alt.id}}
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*"), Condition=condition))
    equal(read(alt, bucket, "key"), b"body")
    denied(tenant.s3.get_object, Bucket=bucket, Key="key")
    denied(anonymous.get_object, Bucket=bucket, Key="key")


def test_null():
    """Null is true where the request has no such key."""
    bucket = allowed_if({"Null": {"s3:prefix": "true"}}, "s3:ListBucket", None)
    alt.s3.list_objects_v2(Bucket=bucket)
    denied(alt.s3.list_objects_v2, Bucket=bucket, Prefix="a")


def test_if_exists():
    """…IfExists holds where the request has no such key."""
    bucket = allowed_if({"StringEqualsIfExists": {"s3:prefix": "a"}}, "s3:ListBucket", None)
    alt.s3.list_objects_v2(Bucket=bucket)
    alt.s3.list_objects_v2(Bucket=bucket, Prefix="a")
    denied(alt.s3.list_objects_v2, Bucket=bucket, Prefix="b")


def test_several_conditions():
    """All operators, and all keys of each, must hold; any of several values will do."""
    condition = {"StringEquals": {"s3:prefix": ["a", "b"], "s3:delimiter": "/"}, "NumericEquals": {"s3:max-keys": "5"}}
    bucket = allowed_if(condition, "s3:ListBucket", None)
    for prefix in ("a", "b"):
        alt.s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/", MaxKeys=5)
    denied(alt.s3.list_objects_v2, Bucket=bucket, Prefix="a", Delimiter="/", MaxKeys=6)
    denied(alt.s3.list_objects_v2, Bucket=bucket, Prefix="a", MaxKeys=5)
    denied(alt.s3.list_objects_v2, Bucket=bucket, Prefix="c", Delimiter="/", MaxKeys=5)


def test_acl_header():
    """s3:x-amz-acl: writing is allowed with that canned ACL only."""
    bucket = allowed_if({"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}}, "s3:PutObject")
    put(bucket, "with", who=alt, ACL="bucket-owner-full-control")
    denied(alt.s3.put_object, Bucket=bucket, Key="without", Body=b"x")
    denied(alt.s3.put_object, Bucket=bucket, Key="other", Body=b"x", ACL="private")


def test_storage_class_header():
    """s3:x-amz-storage-class."""
    bucket = allowed_if({"StringEquals": {"s3:x-amz-storage-class": "STANDARD_IA"}}, "s3:PutObject")
    put(bucket, "with", who=alt, StorageClass="STANDARD_IA")
    denied(alt.s3.put_object, Bucket=bucket, Key="without", Body=b"x")


def test_copy_source_header():
    """s3:x-amz-copy-source: only copies of that key."""
    source = shared("public/key")
    put(source, "private/key")
    target = new_bucket()
    set_policy(source, statement("Allow", alt.arn, "s3:GetObject", arn(source, "*")))
    condition = {"StringLike": {"s3:x-amz-copy-source": f"{source}/public/*"}}
    set_policy(target, statement("Allow", alt.arn, "s3:PutObject", arn(target, "*"), Condition=condition))
    alt.s3.copy_object(Bucket=target, Key="copy", CopySource=f"{source}/public/key")
    denied(alt.s3.copy_object, Bucket=target, Key="copy", CopySource=f"{source}/private/key")
    denied(alt.s3.put_object, Bucket=target, Key="copy", Body=b"x")


def test_request_object_tag():
    """s3:RequestObjectTag/…: the tags that come along with what is written."""
    actions = ["s3:PutObject", "s3:PutObjectTagging"]
    bucket = allowed_if({"StringEquals": {"s3:RequestObjectTag/team": "blue"}}, actions)
    put(bucket, "with", who=alt, Tagging="team=blue&x=y")
    denied(alt.s3.put_object, Bucket=bucket, Key="k", Body=b"x", Tagging="team=red")
    denied(alt.s3.put_object, Bucket=bucket, Key="k", Body=b"x")


def test_request_object_tag_keys():
    """s3:RequestObjectTagKeys with ForAllValues: no other tags than these."""
    condition = {"ForAllValues:StringLike": {"s3:RequestObjectTagKeys": ["team", "env"]}}
    bucket = allowed_if(condition, ["s3:PutObject", "s3:PutObjectTagging"])
    put(bucket, "with", who=alt, Tagging="team=blue&env=x")
    denied(alt.s3.put_object, Bucket=bucket, Key="k", Body=b"x", Tagging="team=blue&other=y")


def test_existing_object_tag():
    """s3:ExistingObjectTag/…: reading depends on the tags that the object has, as they are now."""
    bucket = allowed_if({"StringEquals": {"s3:ExistingObjectTag/security": "public"}}, ["s3:GetObject", "s3:GetObjectTagging"])
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    main.s3.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": [{"Key": "security", "Value": "public"}]})
    equal(read(alt, bucket, "key"), b"body")
    equal(len(alt.s3.get_object_tagging(Bucket=bucket, Key="key")["TagSet"]), 1)
    main.s3.put_object_tagging(Bucket=bucket, Key="key", Tagging={"TagSet": [{"Key": "security", "Value": "none"}]})
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    denied(alt.s3.head_object, Bucket=bucket, Key="key")


def test_existing_object_tag_of_what_is_deleted():
    """Who may not read is told nothing of a key that is deleted, nor of its delete marker."""
    bucket = allowed_if({"StringEquals": {"s3:ExistingObjectTag/security": "public"}}, ["s3:GetObject", "s3:GetObjectVersion"])
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    marker = main.s3.delete_object(Bucket=bucket, Key="key")["VersionId"]
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    denied(alt.s3.get_object, Bucket=bucket, Key="key", VersionId=marker)
    denied(anonymous.get_object, Bucket=bucket, Key="key")


def test_existing_object_tag_denies():
    """A denial by a tag of the object binds its owner."""
    bucket = shared(Tagging="secret=yes")
    put(bucket, "plain")
    condition = {"StringEquals": {"s3:ExistingObjectTag/secret": "yes"}}
    set_policy(bucket, statement("Deny", "*", "s3:GetObject", arn(bucket, "*"), Condition=condition))
    denied(main.s3.get_object, Bucket=bucket, Key="key")
    equal(read(main, bucket, "plain"), b"body")


def test_existing_object_tag_of_a_copys_source():
    """A copy reads its source under the same condition, by the source's tags."""
    source, target = shared(Tagging="security=public"), new_bucket(owner=alt)
    put(source, "private")
    condition = {"StringEquals": {"s3:ExistingObjectTag/security": "public"}}
    actions = ["s3:GetObject", "s3:GetObjectTagging"]
    set_policy(source, statement("Allow", alt.arn, actions, arn(source, "*"), Condition=condition))
    alt.s3.copy_object(Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "key"})
    denied(alt.s3.copy_object, Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "private"})


def test_version_id_key():
    """s3:VersionId: one version and no other."""
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first, second = (put(bucket, "key", body)["VersionId"] for body in (b"1", b"2"))
    condition = {"StringEquals": {"s3:VersionId": first}}
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObjectVersion", arn(bucket, "*"), Condition=condition))
    equal(read(alt, bucket, "key", VersionId=first), b"1")
    denied(alt.s3.get_object, Bucket=bucket, Key="key", VersionId=second)


def test_if_none_match_is_demanded():
    """s3:if-none-match: writes that could replace something are denied."""
    bucket = new_bucket()
    condition = {"Null": {"s3:if-none-match": "true"}}
    set_policy(bucket, statement("Deny", "*", "s3:PutObject", arn(bucket, "*"), Condition=condition))
    denied(main.s3.put_object, Bucket=bucket, Key="key", Body=b"x")
    put(bucket, "key", IfNoneMatch="*")
    refused(412, "PreconditionFailed", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", IfNoneMatch="*")


def test_signature_version_and_auth_type():
    """s3:signatureversion and s3:authType: how the request was signed."""
    bucket = shared()
    condition = {"StringEquals": {"s3:signatureversion": "AWS4-HMAC-SHA256", "s3:authType": "REST-QUERY-STRING"}}
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*"), Condition=condition))
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    url = alt.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"}, ExpiresIn=60)
    equal(fetch("GET", url).data, b"body")


def test_variables():
    """A variable in a resource stands for what the request has."""
    bucket = shared(f"home/{alt.id}/key")
    put(bucket, f"home/{tenant.id}/key")
    home = arn(bucket, "home/${aws:PrincipalAccount}/*")
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", home))
    equal(read(alt, bucket, f"home/{alt.id}/key"), b"body")
    denied(alt.s3.get_object, Bucket=bucket, Key=f"home/{tenant.id}/key")
    denied(anonymous.get_object, Bucket=bucket, Key=f"home/{alt.id}/key")


def test_variables_are_no_wildcards():
    """Nothing that a client says becomes a wildcard."""
    bucket = shared("home/*/key")
    put(bucket, "home/x/key")
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "home/${aws:Referer}/key")))
    equal(raw("GET", f"/{bucket}/home/x/key", headers={"Referer": "*"}).status, 403)
    equal(raw("GET", f"/{bucket}/home/x/key", headers={"Referer": "x"}).status, 200)


# --- presigned URLs


def test_presigned_is_decided_when_used():
    """A presigned URL opens what its signer may when it is used, not when it was signed."""
    bucket = shared()
    url = alt.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"}, ExpiresIn=60)
    equal(fetch("GET", url).status, 403)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal(fetch("GET", url).data, b"body")
    main.s3.delete_bucket_policy(Bucket=bucket)
    equal(fetch("GET", url).status, 403)


# --- is it public


def is_public(bucket):
    return main.s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]


def test_status_of_none():
    """GetBucketPolicyStatus of a bucket without a policy: 404 NoSuchBucketPolicy."""
    refused(404, "NoSuchBucketPolicy", main.s3.get_bucket_policy_status, Bucket=new_bucket())


def test_status_public():
    """Who allows everybody something is public."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    equal(is_public(bucket), True)


def test_status_of_one_account():
    """Who allows an account something is not."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:*", arn(bucket, "*")))
    equal(is_public(bucket), False)


def test_status_of_a_denial():
    """Who denies everybody something is not."""
    bucket = new_bucket()
    set_policy(bucket, statement("Deny", "*", "s3:*", arn(bucket, "*")))
    equal(is_public(bucket), False)


def test_status_of_a_network():
    """Everybody of a network is not the public; everybody of half the Internet is."""
    bucket = new_bucket()
    for network, public in (("10.0.0.0/8", False), ("0.0.0.0/1", True)):
        condition = {"IpAddress": {"aws:SourceIp": network}}
        set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*"), Condition=condition))
        equal(is_public(bucket), public, network)


def test_status_of_a_fixed_value():
    """A fixed value of aws:SourceVpc makes it private, a wildcard does not, nor does a key that says not who asks."""
    bucket = new_bucket()
    for condition, public in (
        ({"StringEquals": {"aws:SourceVpc": "vpc-91237329"}}, False),
        ({"StringLike": {"aws:SourceVpc": "vpc-*"}}, True),
        ({"StringEquals": {"aws:Referer": "secret"}}, True),
    ):
        set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*"), Condition=condition))
        equal(is_public(bucket), public, condition)


# --- buckets of several accounts


def test_list_buckets_shows_ones_own():
    """ListBuckets shows an account its own buckets."""
    mine, theirs = new_bucket(), new_bucket(owner=alt)
    names = [row["Name"] for row in main.s3.list_buckets()["Buckets"]]
    assert mine in names and theirs not in names, names
    names = [row["Name"] for row in alt.s3.list_buckets()["Buckets"]]
    assert theirs in names and mine not in names, names


def test_a_name_is_taken_for_all():
    """A bucket of another account: 409 BucketAlreadyExists; one's own: BucketAlreadyOwnedByYou or 200 (us-east-1)."""
    bucket = new_bucket()
    refused(409, "BucketAlreadyExists", alt.s3.create_bucket, Bucket=bucket)


def test_nobody_makes_buckets():
    """Who has no key makes no bucket, and lists none."""
    denied(anonymous.create_bucket, Bucket=new_name())
    denied(anonymous.list_buckets)


def test_others_do_not_delete_a_bucket():
    """DeleteBucket across accounts needs the policy to allow it."""
    bucket = new_bucket()
    denied(alt.s3.delete_bucket, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:DeleteBucket", arn(bucket)))
    equal(status(alt.s3.delete_bucket(Bucket=bucket)), 204)


def test_owner_is_the_account():
    """The owner that listings and ACLs tell is the bucket's account."""
    bucket = new_bucket(owner=alt)
    put(bucket, "key", who=alt)
    owner = alt.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"]
    assert owner != main.s3.list_buckets()["Owner"]["ID"], owner
    equal(owner, alt.s3.list_buckets()["Owner"]["ID"])
    listed = alt.s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    equal([row["Owner"]["ID"] for row in listed], [owner])


# --- what goes along, and what takes long


def test_copied_tags_are_read_and_written():
    """A copy that takes tags along asks for s3:GetObjectTagging there and s3:PutObjectTagging here; with REPLACE it does not."""
    source, target = shared(Tagging="scan=clean"), new_bucket()
    set_policy(source, statement("Allow", alt.arn, "s3:GetObject", arn(source, "*")))
    set_policy(target, statement("Allow", alt.arn, "s3:PutObject", arn(target, "*")))
    copy = dict(Bucket=target, Key="copy", CopySource={"Bucket": source, "Key": "key"})
    denied(alt.s3.copy_object, **copy)
    set_policy(source, statement("Allow", alt.arn, ["s3:GetObject", "s3:GetObjectTagging"], arn(source, "*")))
    denied(alt.s3.copy_object, **copy)
    alt.s3.copy_object(TaggingDirective="REPLACE", **copy)
    set_policy(target, statement("Allow", alt.arn, ["s3:PutObject", "s3:PutObjectTagging"], arn(target, "*")))
    alt.s3.copy_object(**copy)
    equal(main.s3.get_object_tagging(Bucket=target, Key="copy")["TagSet"], [{"Key": "scan", "Value": "clean"}])


def test_request_object_tag_of_a_body():
    """s3:RequestObjectTag/… of PutObjectTagging is about the tags in its body, not about a header."""
    bucket = allowed_if({"StringEquals": {"s3:RequestObjectTag/team": "blue"}}, "s3:PutObjectTagging")
    tag = lambda value: f"<Tagging><TagSet><Tag><Key>team</Key><Value>{value}</Value></Tag></TagSet></Tagging>".encode()
    equal(signed("PUT", f"/{bucket}/key?tagging", tag("blue"), who=alt).status, 200)
    equal(signed("PUT", f"/{bucket}/key?tagging", tag("red"), who=alt).status, 403)
    equal(signed("PUT", f"/{bucket}/key?tagging", tag("red"), who=alt, x_amz_tagging="team=blue").status, 403)


def test_request_object_tag_in_any_case():
    """A denial by a tag holds for a tag whose name differs in its case only, wherever it stands, and beside what is not ASCII."""
    bucket = new_bucket()
    allow = statement("Allow", alt.arn, ["s3:PutObject", "s3:PutObjectTagging"], arn(bucket, "*"))
    condition = {"StringEquals": {"s3:RequestObjectTag/class": "public"}}
    set_policy(bucket, allow, statement("Deny", "*", "s3:PutObject", arn(bucket, "*"), Condition=condition))
    put(bucket, "key", who=alt, Tagging="class=ok")
    for tagging in ("class=public", "CLASS=ok&class=public", "x=%C3%A9&Class=public"):
        denied(alt.s3.put_object, Bucket=bucket, Key="key", Body=b"x", Tagging=tagging)


def test_version_id_key_of_sources_and_of_many():
    """s3:VersionId holds for the source of a copy and for each of many keys that are deleted."""
    bucket, target = new_bucket(), new_bucket(owner=alt)
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first, second = (put(bucket, "key", body)["VersionId"] for body in (b"1", b"2"))
    actions = ["s3:GetObjectVersion", "s3:DeleteObjectVersion"]
    condition = {"StringEquals": {"s3:VersionId": first}}
    set_policy(bucket, statement("Allow", alt.arn, actions, arn(bucket, "*")), statement("Deny", alt.arn, actions, arn(bucket, "*"), Condition=condition))
    copy = dict(Bucket=target, Key="copy")
    denied(alt.s3.copy_object, CopySource={"Bucket": bucket, "Key": "key", "VersionId": first}, **copy)
    alt.s3.copy_object(CopySource={"Bucket": bucket, "Key": "key", "VersionId": second}, **copy)
    objects = [{"Key": "key", "VersionId": version} for version in (first, second)]
    answer = alt.s3.delete_objects(Bucket=bucket, Delete={"Objects": objects})
    equal([row["VersionId"] for row in answer["Deleted"]], [second])
    equal([row["VersionId"] for row in answer["Errors"]], [first])


def test_if_match_wants_the_tags_too():
    """A denial to read by a tag denies to compare as well: PUT, DELETE, and a key of DeleteObjects."""
    bucket = shared(Tagging="class=secret")
    etag = main.s3.head_object(Bucket=bucket, Key="key")["ETag"]
    condition = {"StringEquals": {"s3:ExistingObjectTag/class": "secret"}}
    everything = statement("Allow", alt.arn, "s3:*", arn(bucket, "*"))
    set_policy(bucket, everything, statement("Deny", alt.arn, "s3:GetObject", arn(bucket, "*"), Condition=condition))
    denied(alt.s3.put_object, Bucket=bucket, Key="key", Body=b"x", IfMatch=etag)
    denied(alt.s3.delete_object, Bucket=bucket, Key="key", IfMatch=etag)
    answer = alt.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "ETag": etag}]})
    equal([row["Code"] for row in answer["Errors"]], ["AccessDenied"])
    equal(read(main, bucket, "key"), b"body")


def test_keys_that_are_not_known():
    """A policy that asks for what locks are to be is refused, since it would not be asked: 400 MalformedPolicy."""
    bucket = new_bucket()
    condition = {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "30"}}
    malformed(document(statement("Deny", "*", "s3:PutObject", arn(bucket, "*"), Condition=condition)), bucket)


def test_prefixes_are_not_copied_past_a_denial():
    """A prefix is not copied where a policy denies anything, for its keys are not asked one by one."""
    bucket = shared("from/key")
    set_policy(bucket, statement("Deny", alt.arn, "s3:GetObject", arn(bucket, "from/secret/*")))
    headers = {"x-amz-copy-source": f"{bucket}/from/", "x-predastore-copy-prefix": "true"}
    equal(signed("PUT", f"/{bucket}/to/", **headers).status, 403)
    main.s3.delete_bucket_policy(Bucket=bucket)
    equal(signed("PUT", f"/{bucket}/to/", **headers).status, 200)
    equal(read(main, bucket, "to/key"), b"body")
