"""Object ownership: Put, Get and DeleteBucketOwnershipControls, and lists where an owner is enforced."""

from support import *


def rules(bucket):
    return main.s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]["Rules"]


def set_ownership(bucket, ownership, who=main):
    return who.s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": ownership}]})


def test_enforced_by_default():
    """A new bucket says BucketOwnerEnforced."""
    equal(rules(new_bucket()), [{"ObjectOwnership": "BucketOwnerEnforced"}])


def test_enforced_at_creation():
    """CreateBucket takes x-amz-object-ownership."""
    bucket = new_bucket(ObjectOwnership="BucketOwnerEnforced")
    equal(rules(bucket), [{"ObjectOwnership": "BucketOwnerEnforced"}])


def test_unknown_at_creation():
    """An ownership that there is not: 400 InvalidArgument."""
    refused(400, "InvalidArgument", main.s3.create_bucket, Bucket=new_name(), ObjectOwnership="Nobody")


def test_put_get_delete():
    """What was put is got; after DELETE: 404 OwnershipControlsNotFoundError; after another PUT it is there again."""
    bucket = new_bucket()
    equal(status(set_ownership(bucket, "BucketOwnerEnforced")), 200)
    equal(rules(bucket), [{"ObjectOwnership": "BucketOwnerEnforced"}])
    equal(status(main.s3.delete_bucket_ownership_controls(Bucket=bucket)), 204)
    refused(404, "OwnershipControlsNotFoundError", main.s3.get_bucket_ownership_controls, Bucket=bucket)
    set_ownership(bucket, "BucketOwnerEnforced")
    equal(rules(bucket), [{"ObjectOwnership": "BucketOwnerEnforced"}])


def test_unknown():
    """An ownership that there is not: 400 MalformedXML."""
    refused(400, "MalformedXML", set_ownership, bucket=new_bucket(), ownership="Nobody")


def test_no_such_bucket():
    """All three on a bucket that is not there: 404 NoSuchBucket."""
    name = new_name()
    refused(404, "NoSuchBucket", main.s3.get_bucket_ownership_controls, Bucket=name)
    refused(404, "NoSuchBucket", main.s3.delete_bucket_ownership_controls, Bucket=name)
    refused(404, "NoSuchBucket", set_ownership, bucket=name, ownership="BucketOwnerEnforced")


def test_others_may_not():
    """Another account may neither see nor change it."""
    bucket = new_bucket()
    denied(alt.s3.get_bucket_ownership_controls, Bucket=bucket)
    denied(alt.s3.delete_bucket_ownership_controls, Bucket=bucket)
    denied(set_ownership, bucket=bucket, ownership="BucketOwnerEnforced", who=alt)


def test_who_owns_what_others_put():
    """Where the owner is enforced, the bucket's owner owns what another account puts, and may do with it what it likes."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutObject", arn(bucket, "*")))
    put(bucket, "key", b"by alt", who=alt)
    equal(read(main, bucket, "key"), b"by alt")
    owner = main.s3.list_buckets()["Owner"]["ID"]
    equal(main.s3.get_object_acl(Bucket=bucket, Key="key")["Owner"]["ID"], owner)
    equal([row["Owner"]["ID"] for row in main.s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]], [owner])
    equal(status(main.s3.delete_object(Bucket=bucket, Key="key")), 204)


def test_acl_is_owner_only():
    """GetBucketAcl and GetObjectAcl: the owner has full control, and nobody else has anything."""
    bucket = new_bucket()
    put(bucket, "key")
    owner = main.s3.list_buckets()["Owner"]["ID"]
    for answer in (main.s3.get_bucket_acl(Bucket=bucket), main.s3.get_object_acl(Bucket=bucket, Key="key")):
        equal(answer["Owner"]["ID"], owner)
        equal([(grant["Grantee"]["ID"], grant["Permission"]) for grant in answer["Grants"]], [(owner, "FULL_CONTROL")])


def test_owner_only_acls_are_taken():
    """bucket-owner-full-control and private say what is so anyway."""
    bucket = new_bucket()
    put(bucket, "one", ACL="bucket-owner-full-control")
    put(bucket, "two", ACL="private")
    main.s3.put_object_acl(Bucket=bucket, Key="one", ACL="bucket-owner-full-control")


def test_other_acls_are_refused():
    """Lists that say anything else: 400 AccessControlListNotSupported, wherever they come."""
    bucket = new_bucket()
    put(bucket, "key")
    code = "AccessControlListNotSupported"
    refused(400, code, main.s3.put_object, Bucket=bucket, Key="key", Body=b"x", ACL="public-read")
    refused(400, code, main.s3.put_object_acl, Bucket=bucket, Key="key", ACL="public-read")
    refused(400, code, main.s3.put_bucket_acl, Bucket=bucket, ACL="public-read")
    refused(400, code, main.s3.put_bucket_acl, Bucket=bucket, GrantRead=f"id={alt.id}")
    refused(400, code, main.s3.create_multipart_upload, Bucket=bucket, Key="key", ACL="authenticated-read")
    copy = dict(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "key"})
    refused(400, code, main.s3.copy_object, ACL="public-read", **copy)
    equal(read(main, bucket, "key"), b"body")
