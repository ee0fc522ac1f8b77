"""Public access blocks: Put, Get and DeletePublicAccessBlock, and what each of the four switches does."""

from support import *

OFF = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), False)


def block(bucket, who=main, **on):
    return who.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=on)


def kept(bucket):
    return main.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]


def test_none():
    """A bucket has none at first: 404 NoSuchPublicAccessBlockConfiguration."""
    refused(404, "NoSuchPublicAccessBlockConfiguration", main.s3.get_public_access_block, Bucket=new_bucket())


def test_put_get_delete():
    """What was put is what is got; after DELETE there is none. 200, 200, 204."""
    bucket = new_bucket()
    equal(status(block(bucket, BlockPublicAcls=True, RestrictPublicBuckets=True)), 200)
    equal(kept(bucket), {**OFF, "BlockPublicAcls": True, "RestrictPublicBuckets": True})
    equal(status(main.s3.delete_public_access_block(Bucket=bucket)), 204)
    refused(404, "NoSuchPublicAccessBlockConfiguration", main.s3.get_public_access_block, Bucket=bucket)


def test_each_switch_by_itself():
    """Each of the four is kept by itself."""
    bucket = new_bucket()
    for name in OFF:
        block(bucket, **{name: True})
        equal(kept(bucket), {**OFF, name: True})


def test_delete_none():
    """DeletePublicAccessBlock of a bucket without one is 204."""
    equal(status(main.s3.delete_public_access_block(Bucket=new_bucket())), 204)


def test_no_such_bucket():
    """All three on a bucket that is not there: 404 NoSuchBucket."""
    name = new_name()
    refused(404, "NoSuchBucket", main.s3.get_public_access_block, Bucket=name)
    refused(404, "NoSuchBucket", main.s3.delete_public_access_block, Bucket=name)
    refused(404, "NoSuchBucket", main.s3.put_public_access_block, Bucket=name, PublicAccessBlockConfiguration=OFF)


def test_malformed():
    """XML that is something else: 400 MalformedXML."""
    bucket = new_bucket()
    for text, wanted in (
        ("", "MissingRequestBodyError"),
        ("<Other/>", "MalformedXML"),
        ("<PublicAccessBlockConfiguration><BlockPublicAcls>maybe</BlockPublicAcls></PublicAccessBlockConfiguration>", "MalformedXML"),
        ("<PublicAccessBlockConfiguration><BlockEverything>true</BlockEverything></PublicAccessBlockConfiguration>", "MalformedXML"),
    ):
        answer = signed("PUT", f"/{bucket}?publicAccessBlock", text.encode())
        equal((answer.status, code(answer)), (400, wanted), text)


def test_others_may_not():
    """Another account and nobody in particular may neither see nor change it."""
    bucket = new_bucket()
    for s3 in (alt.s3, anonymous):
        denied(s3.get_public_access_block, Bucket=bucket)
        denied(s3.delete_public_access_block, Bucket=bucket)
        denied(s3.put_public_access_block, Bucket=bucket, PublicAccessBlockConfiguration=OFF)


def test_goes_with_the_bucket():
    """A bucket of the same name has none of the former one's."""
    bucket = new_bucket()
    block(bucket, BlockPublicPolicy=True)
    main.s3.delete_bucket(Bucket=bucket)
    main.s3.create_bucket(Bucket=bucket)
    refused(404, "NoSuchPublicAccessBlockConfiguration", main.s3.get_public_access_block, Bucket=bucket)


def test_block_public_policy():
    """BlockPublicPolicy: a public policy is refused with 403, any other is taken, and what was there stays."""
    bucket = new_bucket()
    block(bucket, BlockPublicPolicy=True)
    public = document(statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    denied(main.s3.put_bucket_policy, Bucket=bucket, Policy=public)
    refused(404, "NoSuchBucketPolicy", main.s3.get_bucket_policy, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    put(bucket, "key")
    equal(read(alt, bucket, "key"), b"body")
    denied(main.s3.put_bucket_policy, Bucket=bucket, Policy=public)
    equal(read(alt, bucket, "key"), b"body")


def test_block_public_policy_leaves_what_is_there():
    """BlockPublicPolicy does not touch a public policy that the bucket has."""
    bucket = new_bucket()
    put(bucket, "key")
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    block(bucket, BlockPublicPolicy=True)
    equal(read(anonymous, bucket, "key"), b"body")


def test_restrict_public_buckets():
    """RestrictPublicBuckets: a public policy counts within the owner's account only; without the switch it counts again."""
    bucket = new_bucket()
    put(bucket, "key")
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    equal(read(anonymous, bucket, "key"), b"body")
    block(bucket, RestrictPublicBuckets=True)
    denied(anonymous.get_object, Bucket=bucket, Key="key")
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    equal(read(main, bucket, "key"), b"body")
    main.s3.delete_public_access_block(Bucket=bucket)
    equal(read(anonymous, bucket, "key"), b"body")


def test_restrict_leaves_policies_that_are_not_public():
    """RestrictPublicBuckets does nothing to a policy that names an account."""
    bucket = new_bucket()
    put(bucket, "key")
    block(bucket, RestrictPublicBuckets=True)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal(read(alt, bucket, "key"), b"body")


def test_a_restricted_policy_is_public_still():
    """GetBucketPolicyStatus tells of the policy, whatever the switches make of it."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    block(bucket, RestrictPublicBuckets=True)
    equal(main.s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"], True)


def test_granted_by_policy():
    """Another account may see and set it where the policy says so."""
    bucket = new_bucket()
    actions = ["s3:GetBucketPublicAccessBlock", "s3:PutBucketPublicAccessBlock"]
    set_policy(bucket, statement("Allow", alt.arn, actions, arn(bucket)))
    block(bucket, who=alt, IgnorePublicAcls=True)
    equal(alt.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]["IgnorePublicAcls"], True)
