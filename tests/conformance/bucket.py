"""Buckets: CreateBucket, HeadBucket, DeleteBucket, ListBuckets, GetBucketLocation, tags, ACLs and versioning of a bucket."""

import base64
import hashlib
from datetime import datetime, timedelta, timezone

from support import *


def unique(length):
    """A name of that many characters, letters and digits."""
    text = "".join(uuid.uuid4().hex for _ in range(-(-length // 32)))
    return text[:length]


def creatable(name, **arguments):
    """Such a bucket is made, keeps an object, and goes."""
    main.s3.create_bucket(Bucket=name, **arguments)
    put(name, "key")
    equal(read(main, name, "key"), b"body")
    main.s3.delete_object(Bucket=name, Key="key")
    main.s3.delete_bucket(Bucket=name)


def bad_name(name):
    """Such a name is 400 InvalidBucketName, with the name. boto3 would look at it itself."""
    answer = signed("PUT", "/" + name)
    equal((answer.status, code(answer)), (400, "InvalidBucketName"), name)
    assert f"<BucketName>{name}</BucketName>".encode() in answer.data, answer.data


def missing(call, /, **arguments):
    """The call on a bucket that is not there is 404 NoSuchBucket with its name."""
    name = new_name()
    error = refused(404, "NoSuchBucket", call, Bucket=name, **arguments)
    equal(error["Error"]["BucketName"], name)


# --- names


def test_name_of_3_characters():
    """A name may be as short as 3 characters."""
    # All of 3 letters or digits are few: one that is there already is another run's.
    name = unique(3)
    if status_of_head(name) == 404:
        creatable(name)


def status_of_head(name):
    return signed("HEAD", "/" + name).status


def test_name_of_63_characters():
    """A name may be as long as 63 characters."""
    creatable(unique(63))


def test_name_of_2_characters():
    """2 characters are too few, and so is 1."""
    bad_name("ab")
    bad_name("a")


def test_name_of_64_characters():
    """64 characters are too many."""
    bad_name(unique(64))


def test_name_of_255_characters():
    """255 characters once were good and are too many."""
    bad_name(unique(255))


def test_name_with_hyphens_and_periods():
    """Hyphens and periods may stand within, hyphens side by side too."""
    creatable(f"a-b.c--d-{unique(12)}")


def test_name_of_digits():
    """A name may begin and end with a digit, and be nothing but digits."""
    creatable(str(uuid.uuid4().int)[:20])


def test_name_begins_and_ends_with_a_letter_or_digit():
    """No hyphen or period at the beginning or at the end."""
    middle = unique(12)
    for name in ("-" + middle, middle + "-", "." + middle, middle + "."):
        bad_name(name)


def test_name_with_upper_case():
    """No upper case, anywhere."""
    for name in ("A" + unique(12), unique(12) + "Z", "AN-UPPER-CASE-NAME"):
        bad_name(name)


def test_name_with_underscore():
    """No underscores."""
    bad_name("under_" + unique(12))


def test_name_with_other_characters():
    """No spaces, no stars, no letters of other alphabets."""
    for character in ("%20", "*", "%C3%A4", "%0A", "~", "!", ":", "%25", "@"):
        equal_code(signed("PUT", f"/a{character}{unique(12)}"), 400, "InvalidBucketName")


def equal_code(answer, status, wanted):
    equal((answer.status, code(answer)), (status, wanted))


def test_name_with_two_periods():
    """No two periods side by side."""
    bad_name("two.." + unique(12))


def test_name_like_an_address():
    """A name is not formatted as an IP address."""
    bad_name("192.168.5.4")
    bad_name("10.0.0.1")


def test_name_nearly_an_address():
    """What has more or fewer parts than an address is a good name."""
    digits = str(uuid.uuid4().int)
    creatable(f"10.0.0.0.{digits[:12]}")
    creatable(f"10.{digits[12:24]}.0")


def test_reserved_prefixes():
    """The prefixes that AWS keeps to itself: xn--, sthree-, amzn-s3-demo-."""
    for prefix in ("xn--", "sthree-", "sthree-configurator", "amzn-s3-demo-"):
        bad_name(prefix + unique(12))


def test_reserved_suffixes():
    """The suffixes that AWS keeps to itself: -s3alias, --ol-s3, .mrap, --x-s3, --table-s3."""
    for suffix in ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"):
        bad_name(unique(12) + suffix)


def test_reserved_words_elsewhere():
    """What is reserved at one end may stand at the other or in the middle."""
    creatable(f"a{unique(10)}-xn--{unique(5)}")
    creatable(f"s3alias-{unique(12)}")


# --- CreateBucket


def test_create():
    """CreateBucket is 200, tells the bucket's location, and has no body."""
    name = new_name()
    answer = signed("PUT", "/" + name)
    equal((answer.status, answer.headers["location"], answer.data), (200, "/" + name, b""))


def test_create_with_a_trailing_slash():
    """The path may end in a slash."""
    name = new_name()
    equal(signed("PUT", f"/{name}/").status, 200)
    main.s3.head_bucket(Bucket=name)


def test_new_is_empty():
    """A new bucket has no objects, no versions and no uploads."""
    bucket = new_bucket()
    equal(main.s3.list_objects_v2(Bucket=bucket)["KeyCount"], 0)
    answer = main.s3.list_object_versions(Bucket=bucket)
    assert "Versions" not in answer and "DeleteMarkers" not in answer, answer
    assert "Uploads" not in main.s3.list_multipart_uploads(Bucket=bucket)


def test_create_own_again():
    """One's own bucket again is 200 in us-east-1, and what is in it stays."""
    bucket = new_bucket()
    put(bucket, "key")
    main.s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    before = creation_date(bucket)
    equal(status(main.s3.create_bucket(Bucket=bucket)), 200)
    equal(read(main, bucket, "key"), b"body")
    equal(tags(bucket), {"a": "b"})
    equal(creation_date(bucket), before)


def creation_date(bucket):
    return main.s3.list_buckets(Prefix=bucket)["Buckets"][0]["CreationDate"]


def test_create_own_again_keeps_settings():
    """One's own bucket again keeps versioning and policy."""
    bucket = versioned()
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket)))
    main.s3.create_bucket(Bucket=bucket)
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Enabled")
    alt.s3.list_objects_v2(Bucket=bucket)


def test_create_own_again_elsewhere():
    """One's own bucket of another region again: 409 BucketAlreadyOwnedByYou, with its name."""
    place = {"LocationConstraint": "eu-central-1"}
    bucket = new_bucket(CreateBucketConfiguration=place)
    error = refused(409, "BucketAlreadyOwnedByYou", main.s3.create_bucket, Bucket=bucket, CreateBucketConfiguration=place)
    equal(error["Error"]["BucketName"], bucket)


def test_create_anothers():
    """Another account's bucket: 409 BucketAlreadyExists, with its name; the bucket is not touched."""
    bucket = new_bucket(owner=alt)
    put(bucket, "key", who=alt)
    error = refused(409, "BucketAlreadyExists", main.s3.create_bucket, Bucket=bucket)
    equal(error["Error"]["BucketName"], bucket)
    equal(read(alt, bucket, "key"), b"body")
    denied(main.s3.get_object, Bucket=bucket, Key="key")


def test_create_anothers_elsewhere():
    """Another account's bucket with a location constraint is taken all the same."""
    bucket = new_bucket(owner=alt)
    place = {"LocationConstraint": "eu-central-1"}
    refused(409, "BucketAlreadyExists", main.s3.create_bucket, Bucket=bucket, CreateBucketConfiguration=place)
    assert alt.s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


def test_create_anonymously():
    """Who has no key makes no bucket: 403, and none is made."""
    name = new_name()
    denied(anonymous.create_bucket, Bucket=name)
    refused(404, "NoSuchBucket", main.s3.head_bucket, Bucket=name)


def test_create_after_delete():
    """A name is free again after DeleteBucket, for another account too."""
    bucket = new_bucket()
    main.s3.delete_bucket(Bucket=bucket)
    alt.s3.create_bucket(Bucket=bucket)
    alt.s3.head_bucket(Bucket=bucket)
    denied(main.s3.head_bucket, Bucket=bucket)


def test_create_malformed():
    """A body that is no XML, or no CreateBucketConfiguration: 400 MalformedXML, and no bucket."""
    name = new_name()
    for body in (b"no XML", b"<CreateBucketConfiguration>", b"<Other/>",
                 b"<CreateBucketConfiguration><Other/></CreateBucketConfiguration>"):
        answer = signed("PUT", "/" + name, body)
        equal((answer.status, code(answer)), (400, "MalformedXML"), body)
    refused(404, "NoSuchBucket", main.s3.head_bucket, Bucket=name)


def test_create_with_a_document_type():
    """XML with a document type, which could name files or grow without end: 400 MalformedXML."""
    name = new_name()
    body = (b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><CreateBucketConfiguration><LocationConstraint>&e;'
            b"</LocationConstraint></CreateBucketConfiguration>")
    equal_code(signed("PUT", "/" + name, body), 400, "MalformedXML")
    equal(status_of_head(name), 404)


def test_create_with_an_empty_configuration():
    """A configuration that says nothing is as none."""
    for body in (b"<CreateBucketConfiguration/>",
                 b'<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></CreateBucketConfiguration>'):
        name = new_name()
        equal(signed("PUT", "/" + name, body).status, 200)
        assert main.s3.get_bucket_location(Bucket=name)["LocationConstraint"] is None


def test_create_with_a_false_digest():
    """A Content-MD5 that is not the body's: 400 BadDigest; one that is none: 400 InvalidDigest."""
    body = b"<CreateBucketConfiguration><LocationConstraint>eu-central-1</LocationConstraint></CreateBucketConfiguration>"
    name = new_name()
    other = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    equal_code(signed("PUT", "/" + name, body, Content_MD5=other), 400, "BadDigest")
    equal_code(signed("PUT", "/" + name, body, Content_MD5="none"), 400, "InvalidDigest")
    equal(status_of_head(name), 404)


def test_create_with_a_public_acl():
    """A bucket whose owner is enforced, said or by default, is not made public by its ACL: 400, and there is none."""
    for arguments in ({}, {"ObjectOwnership": "BucketOwnerEnforced"}):
        for acl in ("public-read", "public-read-write", "authenticated-read"):
            name = new_name()
            refused(400, "InvalidBucketAclWithObjectOwnership", main.s3.create_bucket, Bucket=name, ACL=acl, **arguments)
            equal(status_of_head(name), 404)


def test_create_with_a_private_acl():
    """The ACL private is what a bucket has."""
    bucket = new_bucket(ACL="private")
    equal(len(main.s3.get_bucket_acl(Bucket=bucket)["Grants"]), 1)


def test_create_with_an_unknown_acl():
    """An ACL that there is not: 400 InvalidArgument."""
    name = new_name()
    equal_code(signed("PUT", "/" + name, x_amz_acl="everybody"), 400, "InvalidArgument")
    equal(status_of_head(name), 404)


# --- locations


def test_location():
    """A bucket of us-east-1 has the empty location."""
    bucket = new_bucket()
    assert main.s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    answer = signed("GET", f"/{bucket}?location")
    equal((answer.status, answer.headers["content-type"]), (200, "application/xml"))
    assert b"<LocationConstraint" in answer.data, answer.data
    assert b"us-east-1" not in answer.data, answer.data


def test_location_constraint():
    """The location constraint is told by GetBucketLocation, HeadBucket and ListBuckets."""
    for region in ("eu-central-1", "ap-southeast-2"):
        bucket = new_bucket(CreateBucketConfiguration={"LocationConstraint": region})
        equal(main.s3.get_bucket_location(Bucket=bucket)["LocationConstraint"], region)
        equal(main.s3.head_bucket(Bucket=bucket)["BucketRegion"], region)
        equal(main.s3.list_buckets(Prefix=bucket)["Buckets"][0]["BucketRegion"], region)


def test_location_of_another_region_is_told():
    """The answer to a CreateBucket with a constraint tells the bucket's location, by its name."""
    name = new_name()
    answer = main.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    assert name in answer["Location"], answer


def test_location_constraint_that_is_none():
    """A constraint that is no region: 400 InvalidLocationConstraint, and no bucket."""
    name = new_name()
    for place in ("nowhere at all", "../..", "eu-central-1/x"):
        place = {"LocationConstraint": place}
        refused(400, "InvalidLocationConstraint", main.s3.create_bucket, Bucket=name, CreateBucketConfiguration=place)
    equal(status_of_head(name), 404)


def test_location_of_no_bucket():
    """GetBucketLocation of what is not there: 404 NoSuchBucket."""
    missing(main.s3.get_bucket_location)


def test_location_is_the_owners():
    """Another account and nobody in particular are not told, but by a policy."""
    bucket = new_bucket()
    denied(alt.s3.get_bucket_location, Bucket=bucket)
    denied(anonymous.get_bucket_location, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetBucketLocation", arn(bucket)))
    assert alt.s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


# --- HeadBucket


def test_head():
    """HeadBucket of one's own: 200 with x-amz-bucket-region, and no body."""
    answer = signed("HEAD", "/" + new_bucket())
    equal((answer.status, answer.headers["x-amz-bucket-region"], answer.data), (200, "us-east-1", b""))


def test_head_of_no_bucket():
    """HeadBucket of what is not there: 404 without a body."""
    answer = signed("HEAD", "/" + new_name())
    equal((answer.status, answer.data), (404, b""))


def test_head_of_anothers():
    """Another account's: 403 without a body; so for nobody in particular."""
    bucket = new_bucket()
    answer = signed("HEAD", "/" + bucket, who=alt)
    equal((answer.status, answer.data), (403, b""))
    equal(raw("HEAD", "/" + bucket).status, 403)


def test_head_tells_the_region_with_403():
    """Who is refused is told the region all the same, so that clients find it."""
    bucket = new_bucket(CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    equal(signed("HEAD", "/" + bucket, who=alt).headers["x-amz-bucket-region"], "eu-central-1")
    equal(raw("HEAD", "/" + bucket).headers["x-amz-bucket-region"], "eu-central-1")


def test_head_by_policy():
    """HeadBucket is allowed by s3:ListBucket."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:ListBucket", arn(bucket)))
    equal(status(alt.s3.head_bucket(Bucket=bucket)), 200)
    denied(tenant.s3.head_bucket, Bucket=bucket)


def test_head_after_delete():
    """A bucket that was removed is not there."""
    bucket = new_bucket()
    main.s3.delete_bucket(Bucket=bucket)
    refused(404, "NoSuchBucket", main.s3.head_bucket, Bucket=bucket)


# --- DeleteBucket


def test_delete():
    """An empty bucket goes: 204; once more: 404 NoSuchBucket. It is listed no more."""
    bucket = new_bucket()
    equal(status(main.s3.delete_bucket(Bucket=bucket)), 204)
    error = refused(404, "NoSuchBucket", main.s3.delete_bucket, Bucket=bucket)
    equal(error["Error"]["BucketName"], bucket)
    equal(listed(bucket), [])
    refused(404, "NoSuchBucket", main.s3.list_objects_v2, Bucket=bucket)
    refused(404, "NoSuchBucket", main.s3.put_object, Bucket=bucket, Key="key", Body=b"x")


def not_empty(bucket):
    error = refused(409, "BucketNotEmpty", main.s3.delete_bucket, Bucket=bucket)
    equal(error["Error"]["BucketName"], bucket)


def test_delete_with_an_object():
    """A bucket with an object stays: 409 BucketNotEmpty, with its name."""
    bucket = new_bucket()
    put(bucket, "key")
    not_empty(bucket)
    equal(read(main, bucket, "key"), b"body")
    main.s3.delete_object(Bucket=bucket, Key="key")
    main.s3.delete_bucket(Bucket=bucket)


def versioned():
    bucket = new_bucket()
    main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def test_delete_with_versions():
    """A bucket that shows nothing and has a former version stays."""
    bucket = versioned()
    version = put(bucket, "key")["VersionId"]
    marker = main.s3.delete_object(Bucket=bucket, Key="key")["VersionId"]
    equal(main.s3.list_objects_v2(Bucket=bucket)["KeyCount"], 0)
    not_empty(bucket)
    main.s3.delete_object(Bucket=bucket, Key="key", VersionId=marker)
    not_empty(bucket)
    main.s3.delete_object(Bucket=bucket, Key="key", VersionId=version)
    main.s3.delete_bucket(Bucket=bucket)


def test_delete_with_a_delete_marker():
    """A bucket that has nothing but a delete marker stays."""
    bucket = versioned()
    marker = main.s3.delete_object(Bucket=bucket, Key="key")["VersionId"]
    not_empty(bucket)
    main.s3.delete_object(Bucket=bucket, Key="key", VersionId=marker)
    main.s3.delete_bucket(Bucket=bucket)


def test_delete_with_an_unfinished_upload():
    """An unfinished upload keeps no bucket; a bucket of the same name has none of it."""
    bucket = new_bucket()
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    main.s3.upload_part(Bucket=bucket, Key="key", UploadId=upload, PartNumber=1, Body=b"part")
    equal(status(main.s3.delete_bucket(Bucket=bucket)), 204)
    main.s3.create_bucket(Bucket=bucket)
    assert "Uploads" not in main.s3.list_multipart_uploads(Bucket=bucket)
    refused(404, "NoSuchUpload", main.s3.list_parts, Bucket=bucket, Key="key", UploadId=upload)


def test_delete_takes_all_settings():
    """A bucket of the same name has no versioning and no tags of the former one."""
    bucket = versioned()
    main.s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    main.s3.delete_bucket(Bucket=bucket)
    main.s3.create_bucket(Bucket=bucket)
    assert "Status" not in main.s3.get_bucket_versioning(Bucket=bucket)
    refused(404, "NoSuchTagSet", main.s3.get_bucket_tagging, Bucket=bucket)


def test_delete_of_no_bucket():
    """DeleteBucket of what is not there: 404 NoSuchBucket."""
    missing(main.s3.delete_bucket)


def test_delete_of_anothers():
    """Another account's is not for one to remove, nor for nobody in particular."""
    bucket = new_bucket()
    denied(alt.s3.delete_bucket, Bucket=bucket)
    denied(anonymous.delete_bucket, Bucket=bucket)
    main.s3.head_bucket(Bucket=bucket)


def test_delete_of_anothers_that_is_not_empty():
    """Who may not remove a bucket does not learn whether it is empty."""
    bucket = new_bucket()
    put(bucket, "key")
    denied(alt.s3.delete_bucket, Bucket=bucket)


# --- ListBuckets


def listed(prefix, who=main, **arguments):
    return [row["Name"] for row in who.s3.list_buckets(Prefix=prefix, **arguments).get("Buckets", [])]


def family(count, who=main):
    """Buckets that begin alike. Made backwards, and told in order."""
    prefix = new_name()
    names = [f"{prefix}-{n}" for n in range(count)]
    for name in reversed(names):
        who.s3.create_bucket(Bucket=name)
    return prefix + "-", names


def test_list():
    """Every bucket is listed with the time at which it was made; the owner is told."""
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    bucket = new_bucket()
    answer = main.s3.list_buckets()
    row = next(row for row in answer["Buckets"] if row["Name"] == bucket)
    assert before <= row["CreationDate"] <= datetime.now(timezone.utc) + timedelta(seconds=5), row
    equal(answer["Owner"]["ID"], main.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"])


def test_list_as_xml():
    """The document is a ListAllMyBucketsResult of S3's namespace, and says not where it ends when it does."""
    answer = signed("GET", "/")
    equal((answer.status, answer.headers["content-type"]), (200, "application/xml"))
    assert b'<ListAllMyBucketsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' in answer.data, answer.data[:300]
    assert b"<ContinuationToken>" not in answer.data


def test_list_in_order():
    """Buckets are listed in the order of their names, whichever was first."""
    prefix, names = family(4)
    equal(listed(prefix), names)
    everything = [row["Name"] for row in main.s3.list_buckets()["Buckets"]]
    equal(everything, sorted(everything))


def test_list_by_prefix():
    """prefix lists those that begin so, and is told."""
    prefix, names = family(3)
    answer = main.s3.list_buckets(Prefix=prefix)
    equal(([row["Name"] for row in answer["Buckets"]], answer["Prefix"]), (names, prefix))
    equal(listed(names[1]), [names[1]])
    equal(listed(names[1] + "x"), [])


def test_list_without_a_prefix_tells_none():
    """What was not asked for is not told: no Prefix, no ContinuationToken."""
    answer = main.s3.list_buckets()
    assert not answer.get("Prefix") and "ContinuationToken" not in answer, shown(answer)


def test_list_by_pages():
    """max-buckets makes pages, and continuation-token goes on; each bucket comes once, and the last page has no token."""
    prefix, names = family(5)
    got, more, sizes = [], {}, []
    while True:
        answer = main.s3.list_buckets(Prefix=prefix, MaxBuckets=2, **more)
        got += [row["Name"] for row in answer["Buckets"]]
        sizes.append(len(answer["Buckets"]))
        if "ContinuationToken" not in answer:
            break
        more = {"ContinuationToken": answer["ContinuationToken"]}
    equal((got, sizes), (names, [2, 2, 1]))


def test_list_of_one_full_page():
    """A page that holds all there is has no token."""
    prefix, names = family(2)
    answer = main.s3.list_buckets(Prefix=prefix, MaxBuckets=2)
    equal([row["Name"] for row in answer["Buckets"]], names)
    assert "ContinuationToken" not in answer, answer


def test_list_by_pages_of_one():
    """max-buckets=1 lists one at a time."""
    prefix, names = family(3)
    answer = main.s3.list_buckets(Prefix=prefix, MaxBuckets=1)
    equal([row["Name"] for row in answer["Buckets"]], names[:1])
    assert answer["ContinuationToken"], answer


def test_list_goes_on_after_a_bucket_is_gone():
    """A token is good when the bucket it ended with is gone."""
    prefix, names = family(4)
    token = main.s3.list_buckets(Prefix=prefix, MaxBuckets=2)["ContinuationToken"]
    main.s3.delete_bucket(Bucket=names[1])
    equal(listed(prefix, ContinuationToken=token), names[2:])


def test_list_by_the_paginator():
    """boto3's paginator finds all."""
    prefix, names = family(5)
    pages = main.s3.get_paginator("list_buckets").paginate(Prefix=prefix, PaginationConfig={"PageSize": 2})
    equal([row["Name"] for page in pages for row in page["Buckets"]], names)


def test_list_everything_by_pages():
    """Pages without a prefix come to all buckets of the account too, in order and each once."""
    mine = [new_bucket(owner=tenant) for _ in range(3)]
    pages = tenant.s3.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": 100})
    got = [row["Name"] for page in pages for row in page.get("Buckets", [])]
    assert set(mine) <= set(got), (mine, got)
    equal(got, sorted(set(got)))


def test_list_max_buckets_out_of_range():
    """max-buckets is 1 to 10000: anything else is 400 InvalidArgument."""
    for count in ("0", "-1", "10001", "many"):
        answer = signed("GET", f"/?max-buckets={count}")
        equal((answer.status, code(answer)), (400, "InvalidArgument"), count)
    equal(signed("GET", "/?max-buckets=10000").status, 200)


def test_list_by_a_false_token():
    """A token that is none: 400 InvalidArgument."""
    for token in ("none", "%00", "%21"):
        answer = signed("GET", f"/?continuation-token={token}")
        equal((answer.status, code(answer)), (400, "InvalidArgument"), token)


def test_list_by_region():
    """bucket-region lists those of a region."""
    prefix, names = family(2)
    place = {"LocationConstraint": "eu-central-1"}
    far = prefix + "far"
    main.s3.create_bucket(Bucket=far, CreateBucketConfiguration=place)
    equal(listed(prefix, BucketRegion="eu-central-1"), [far])
    equal(listed(prefix, BucketRegion="us-east-1"), names)
    equal(listed(prefix), names + [far])


def test_list_tells_regions():
    """Where a parameter is given each bucket comes with its region."""
    prefix, _ = family(2)
    equal([row["BucketRegion"] for row in main.s3.list_buckets(Prefix=prefix)["Buckets"]], ["us-east-1"] * 2)


def test_list_of_another_account():
    """An account is not shown another's, whatever the prefix, nor what a policy opens to it."""
    prefix, names = family(2)
    set_policy(names[0], statement("Allow", alt.arn, "s3:*", [arn(names[0]), arn(names[0], "*")]))
    equal(listed(prefix, who=alt), [])


def test_list_anonymously():
    """Who has no key is shown nothing: 403."""
    denied(anonymous.list_buckets)


def test_list_owners_differ():
    """Each account is told its own id, the same each time."""
    ids = [who.s3.list_buckets(MaxBuckets=1)["Owner"]["ID"] for who in (main, main, alt, alt, tenant)]
    assert ids[0] == ids[1] and ids[2] == ids[3] and len(set(ids)) == 3, ids


# --- tags


def tags(bucket, who=main):
    return {row["Key"]: row["Value"] for row in who.s3.get_bucket_tagging(Bucket=bucket)["TagSet"]}


def tag_set(pairs):
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    return {"TagSet": [{"Key": name, "Value": value} for name, value in pairs]}


def set_tags(bucket, pairs, who=main):
    return who.s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(pairs))


def bad_tags(pairs, wanted="InvalidTag"):
    """Such tags are refused, and the former stay."""
    bucket = new_bucket()
    set_tags(bucket, {"former": "tag"})
    refused(400, wanted, main.s3.put_bucket_tagging, Bucket=bucket, Tagging=tag_set(pairs))
    equal(tags(bucket), {"former": "tag"})


def good_tags(pairs):
    bucket = new_bucket()
    set_tags(bucket, pairs)
    equal(tags(bucket), pairs)


def test_tags_none():
    """A bucket has no tags at first: 404 NoSuchTagSet, with its name."""
    bucket = new_bucket()
    error = refused(404, "NoSuchTagSet", main.s3.get_bucket_tagging, Bucket=bucket)
    equal(error["Error"]["BucketName"], bucket)


def test_tags_put_get_delete():
    """What was put is got; after DELETE there is none. 204, 200, 204."""
    bucket = new_bucket()
    equal(status(set_tags(bucket, {"a": "1", "b": "2"})), 204)
    equal(tags(bucket), {"a": "1", "b": "2"})
    equal(status(main.s3.delete_bucket_tagging(Bucket=bucket)), 204)
    refused(404, "NoSuchTagSet", main.s3.get_bucket_tagging, Bucket=bucket)


def test_tags_delete_none():
    """DeleteBucketTagging of a bucket without any is 204."""
    equal(status(main.s3.delete_bucket_tagging(Bucket=new_bucket())), 204)


def test_tags_are_replaced_whole():
    """A second PutBucketTagging leaves none of the first one's tags."""
    bucket = new_bucket()
    set_tags(bucket, {"a": "1", "b": "2"})
    set_tags(bucket, {"c": "3"})
    equal(tags(bucket), {"c": "3"})


def test_tags_of_no_bucket():
    """All three on a bucket that is not there: 404 NoSuchBucket."""
    missing(main.s3.get_bucket_tagging)
    missing(main.s3.delete_bucket_tagging)
    missing(main.s3.put_bucket_tagging, Tagging=tag_set({"a": "b"}))


def test_tags_fifty():
    """A bucket has up to 50 tags."""
    good_tags({f"key {n}": str(n) for n in range(50)})


def test_tags_fifty_one():
    """51 tags are 400 BadRequest, as too many tags of an object are."""
    bad_tags({f"key {n}": str(n) for n in range(51)}, "BadRequest")


def test_tags_of_the_same_key():
    """Two tags of the same key: 400 InvalidTag."""
    bad_tags([("a", "1"), ("a", "2")])
    bad_tags([("a", "1"), ("b", "1"), ("a", "1")])


def test_tags_differ_in_case():
    """Keys and values are case-sensitive."""
    good_tags({"key": "value", "Key": "VALUE", "KEY": "Value"})


def test_tag_key_of_128_characters():
    """A key has up to 128 characters; characters are counted, not bytes."""
    good_tags({"k" * 128: "v", "ä" * 128: "v"})


def test_tag_key_of_129_characters():
    """A key of 129 characters: 400 InvalidTag."""
    bad_tags({"k" * 129: "v"})


def test_tag_value_of_256_characters():
    """A value has up to 256 characters; characters are counted, not bytes."""
    good_tags({"a": "v" * 256, "b": "ä" * 256})


def test_tag_value_of_257_characters():
    """A value of 257 characters: 400 InvalidTag."""
    bad_tags({"a": "v" * 257})


def test_tag_without_a_value():
    """A value may be empty."""
    good_tags({"a": "", "b": "2"})


def test_tag_without_a_key():
    """A key may not: 400 InvalidTag."""
    bad = b"<Tagging><TagSet><Tag><Key></Key><Value>x</Value></Tag></TagSet></Tagging>"
    equal_code(signed("PUT", f"/{new_bucket()}?tagging", bad, Content_MD5=md5(bad)), 400, "InvalidTag")


def md5(body):
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def test_tag_characters():
    """Letters of all alphabets, digits, spaces and _ . : / = + - @ are good in keys and values."""
    good_tags({"a b_c.d:e/f=g+h-i@j": "a b_c.d:e/f=g+h-i@j", "Größe 1": "über", "鍵": "値", "ключ": "значение"})


def test_tag_characters_that_are_bad():
    """Others are not: 400 InvalidTag."""
    for character in "!*<&?#%{\"\t":
        bad_tags({"a" + character: "v"})
        bad_tags({"a": "v" + character})


def test_tags_of_the_system():
    """Keys that begin with aws: are AWS's: 400 InvalidTag; elsewhere in a key it is good."""
    bad_tags({"aws:key": "v"})
    good_tags({"my:aws:key": "v", "aws": "aws:value"})


def test_tags_malformed():
    """What is no Tagging document: 400 MalformedXML, and the former tags stay."""
    bucket = new_bucket()
    set_tags(bucket, {"a": "b"})
    for body in (b"no XML", b"<Tagging>", b"<Other/>", b"<Tagging/>", b"<Tagging><TagSet><Tag><Value>x</Value></Tag></TagSet></Tagging>",
                 b"<Tagging><TagSet><Tag><Key>x</Key></Tag></TagSet></Tagging>"):
        answer = signed("PUT", f"/{bucket}?tagging", body, Content_MD5=md5(body))
        equal((answer.status, code(answer)), (400, "MalformedXML"), body)
    equal(tags(bucket), {"a": "b"})


def test_tags_in_any_xml():
    """XML may have a declaration, a namespace with a prefix or none, white space, comments, CDATA and references."""
    bucket = new_bucket()
    for body in (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/">\n  <TagSet>\n    <Tag>\n'
        b"      <Key>a</Key>\n      <Value>b c</Value>\n    </Tag>\n  </TagSet>\n</Tagging>\n",
        b"<Tagging><TagSet><!-- one --><Tag><Key><![CDATA[a]]></Key><Value>b&#32;&#x63;</Value></Tag></TagSet></Tagging>",
        b'<s:Tagging xmlns:s="http://s3.amazonaws.com/doc/2006-03-01/"><s:TagSet><s:Tag><s:Key>a</s:Key><s:Value>b c</s:Value></s:Tag>'
        b"</s:TagSet></s:Tagging>",
        b"<Tagging><TagSet><Tag><Value>b c</Value><Key>a</Key></Tag></TagSet></Tagging>",
    ):
        main.s3.delete_bucket_tagging(Bucket=bucket)
        equal(signed("PUT", f"/{bucket}?tagging", body, Content_MD5=md5(body)).status, 204, body)
        equal(tags(bucket), {"a": "b c"}, body)


def test_tags_with_a_false_digest():
    """A Content-MD5 that is not the body's: 400 BadDigest, and nothing is changed."""
    bucket = new_bucket()
    body = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    equal_code(signed("PUT", f"/{bucket}?tagging", body, Content_MD5=md5(b"other")), 400, "BadDigest")
    refused(404, "NoSuchTagSet", main.s3.get_bucket_tagging, Bucket=bucket)


def test_tags_are_the_owners():
    """Another account and nobody in particular neither see nor change them."""
    bucket = new_bucket()
    set_tags(bucket, {"a": "b"})
    for s3 in (alt.s3, anonymous):
        denied(s3.get_bucket_tagging, Bucket=bucket)
        denied(s3.delete_bucket_tagging, Bucket=bucket)
        denied(s3.put_bucket_tagging, Bucket=bucket, Tagging=tag_set({"c": "d"}))
    equal(tags(bucket), {"a": "b"})


def test_tags_by_policy():
    """s3:GetBucketTagging opens reading, s3:PutBucketTagging writing and removing."""
    bucket = new_bucket()
    set_tags(bucket, {"a": "b"})
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetBucketTagging", arn(bucket)))
    equal(tags(bucket, alt), {"a": "b"})
    denied(alt.s3.delete_bucket_tagging, Bucket=bucket)
    set_policy(bucket, statement("Allow", alt.arn, "s3:PutBucketTagging", arn(bucket)))
    denied(alt.s3.get_bucket_tagging, Bucket=bucket)
    set_tags(bucket, {"c": "d"}, alt)
    equal(tags(bucket), {"c": "d"})
    alt.s3.delete_bucket_tagging(Bucket=bucket)
    refused(404, "NoSuchTagSet", main.s3.get_bucket_tagging, Bucket=bucket)


# --- ACLs


def owner_only(bucket, who=main):
    """The owner has full control, and nobody else anything."""
    answer = who.s3.get_bucket_acl(Bucket=bucket)
    owner = who.s3.list_buckets(MaxBuckets=1)["Owner"]["ID"]
    equal(answer["Owner"]["ID"], owner)
    rows = [(row["Grantee"]["Type"], row["Grantee"]["ID"], row["Permission"]) for row in answer["Grants"]]
    equal(rows, [("CanonicalUser", owner, "FULL_CONTROL")])


def policy_of(bucket, *more):
    answer = main.s3.get_bucket_acl(Bucket=bucket)
    return {"Owner": answer["Owner"], "Grants": answer["Grants"] + list(more)}


def test_acl():
    """A bucket's owner has full control and nobody else anything."""
    owner_only(new_bucket())
    owner_only(new_bucket(owner=alt), alt)


def test_acl_of_no_bucket():
    """Both on a bucket that is not there: 404 NoSuchBucket."""
    missing(main.s3.get_bucket_acl)
    missing(main.s3.put_bucket_acl, ACL="private")


def test_acl_private():
    """The ACL private is taken: it is what the bucket has."""
    bucket = new_bucket()
    equal(status(main.s3.put_bucket_acl(Bucket=bucket, ACL="private")), 200)
    owner_only(bucket)


def test_acl_as_it_is():
    """The ACL that a bucket has is taken back as it is."""
    bucket = new_bucket()
    main.s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy_of(bucket))
    owner_only(bucket)


def acl_refused(bucket, **arguments):
    refused(400, "AccessControlListNotSupported", main.s3.put_bucket_acl, Bucket=bucket, **arguments)
    owner_only(bucket)


def test_acl_public():
    """Canned ACLs that give others something: 400 AccessControlListNotSupported, and nothing changes."""
    bucket = new_bucket()
    put(bucket, "key")
    for acl in ("public-read", "public-read-write", "authenticated-read"):
        acl_refused(bucket, ACL=acl)
    denied(anonymous.list_objects_v2, Bucket=bucket)


def test_acl_by_headers():
    """Grants by headers to others: 400 AccessControlListNotSupported."""
    bucket = new_bucket()
    other = alt.s3.list_buckets(MaxBuckets=1)["Owner"]["ID"]
    acl_refused(bucket, GrantRead=f'id="{other}"')
    acl_refused(bucket, GrantFullControl=f'id="{other}"')
    acl_refused(bucket, GrantWrite='uri="http://acs.amazonaws.com/groups/global/AllUsers"')
    denied(alt.s3.list_objects_v2, Bucket=bucket)


def test_acl_by_document():
    """Grants by a document to others: 400 AccessControlListNotSupported."""
    bucket = new_bucket()
    other = alt.s3.list_buckets(MaxBuckets=1)["Owner"]["ID"]
    user = {"Grantee": {"Type": "CanonicalUser", "ID": other}, "Permission": "READ"}
    group = {"Grantee": {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"}, "Permission": "READ"}
    acl_refused(bucket, AccessControlPolicy=policy_of(bucket, user))
    acl_refused(bucket, AccessControlPolicy=policy_of(bucket, group))


def test_acl_malformed():
    """What is no AccessControlPolicy: 400 MalformedACLError or MalformedXML."""
    bucket = new_bucket()
    for body in (b"no XML", b"<Other/>", b"<AccessControlPolicy>"):
        answer = signed("PUT", f"/{bucket}?acl", body, Content_MD5=md5(body))
        assert answer.status == 400 and code(answer) in ("MalformedACLError", "MalformedXML"), (answer.status, answer.data)
    owner_only(bucket)


def test_acl_unknown():
    """A canned ACL that there is not: 400 InvalidArgument."""
    equal_code(signed("PUT", f"/{new_bucket()}?acl", x_amz_acl="everybody"), 400, "InvalidArgument")


def test_acl_is_the_owners():
    """Another account and nobody in particular neither see nor change it."""
    bucket = new_bucket()
    for s3 in (alt.s3, anonymous):
        denied(s3.get_bucket_acl, Bucket=bucket)
        denied(s3.put_bucket_acl, Bucket=bucket, ACL="private")


def test_acl_by_policy():
    """s3:GetBucketAcl opens reading it."""
    bucket = new_bucket()
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetBucketAcl", arn(bucket)))
    equal(alt.s3.get_bucket_acl(Bucket=bucket)["Owner"]["ID"], main.s3.list_buckets(MaxBuckets=1)["Owner"]["ID"])
    denied(alt.s3.put_bucket_acl, Bucket=bucket, ACL="private")


# --- versioning


def versioning(bucket, status):
    return main.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def test_versioning_none():
    """A bucket that never had versioning has no status: an empty document."""
    bucket = new_bucket()
    answer = main.s3.get_bucket_versioning(Bucket=bucket)
    assert "Status" not in answer and "MFADelete" not in answer, answer
    assert b"<VersioningConfiguration" in signed("GET", f"/{bucket}?versioning").data


def test_versioning_enabled_and_suspended():
    """Versioning is enabled, suspended, and enabled again. 200 each."""
    bucket = new_bucket()
    for wanted in ("Enabled", "Suspended", "Enabled", "Enabled"):
        equal(status(versioning(bucket, wanted)), 200)
        equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], wanted)


def test_versioning_suspended_at_once():
    """A bucket that never had it can be suspended."""
    bucket = new_bucket()
    versioning(bucket, "Suspended")
    equal(main.s3.get_bucket_versioning(Bucket=bucket)["Status"], "Suspended")


def test_versioning_of_another_status():
    """A status that there is not, or XML that is none: 400 MalformedXML, and nothing changes."""
    bucket = new_bucket()
    refused(400, "MalformedXML", versioning, bucket=bucket, status="Disabled")
    refused(400, "MalformedXML", versioning, bucket=bucket, status="enabled")
    for body in (b"no XML", b"<Other><Status>Enabled</Status></Other>"):
        equal_code(signed("PUT", f"/{bucket}?versioning", body, Content_MD5=md5(body)), 400, "MalformedXML")
    assert "Status" not in main.s3.get_bucket_versioning(Bucket=bucket)


def test_versioning_without_a_status():
    """A document without a status: 400 IllegalVersioningConfigurationException."""
    body = b"<VersioningConfiguration/>"
    equal_code(signed("PUT", f"/{new_bucket()}?versioning", body, Content_MD5=md5(body)), 400, "IllegalVersioningConfigurationException")


def test_versioning_of_no_bucket():
    """Both on a bucket that is not there: 404 NoSuchBucket."""
    missing(main.s3.get_bucket_versioning)
    missing(main.s3.put_bucket_versioning, VersioningConfiguration={"Status": "Enabled"})


def test_versioning_is_the_owners():
    """Another account and nobody in particular neither see nor change it; a policy can say otherwise."""
    bucket = new_bucket()
    for s3 in (alt.s3, anonymous):
        denied(s3.get_bucket_versioning, Bucket=bucket)
        denied(s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetBucketVersioning", arn(bucket)))
    assert "Status" not in alt.s3.get_bucket_versioning(Bucket=bucket)


# --- whose bucket it is expected to be


def owned_calls(bucket, s3):
    """Calls that look at a bucket or set it, as (call, arguments)."""
    return [
        (s3.head_bucket, {}),
        (s3.get_bucket_location, {}),
        (s3.get_bucket_acl, {}),
        (s3.put_bucket_acl, {"ACL": "private"}),
        (s3.get_bucket_versioning, {}),
        (s3.put_bucket_versioning, {"VersioningConfiguration": {"Status": "Enabled"}}),
        (s3.put_bucket_tagging, {"Tagging": tag_set({"a": "b"})}),
        (s3.get_bucket_tagging, {}),
        (s3.delete_bucket_tagging, {}),
        (s3.list_objects_v2, {}),
        (s3.delete_bucket, {}),
    ]


def test_expected_owner():
    """x-amz-expected-bucket-owner of the owner's account changes nothing."""
    bucket = new_bucket()
    for call, arguments in owned_calls(bucket, main.s3):
        call(Bucket=bucket, ExpectedBucketOwner=main.id, **arguments)


def test_expected_owner_is_another():
    """Another account's: 403 AccessDenied, and nothing is done."""
    bucket = new_bucket()
    set_tags(bucket, {"former": "tag"})
    for call, arguments in owned_calls(bucket, main.s3):
        denied(call, Bucket=bucket, ExpectedBucketOwner=alt.id, **arguments)
    equal(tags(bucket), {"former": "tag"})
    assert "Status" not in main.s3.get_bucket_versioning(Bucket=bucket)


def test_expected_owner_that_is_no_account():
    """What is no account id: 400 InvalidBucketOwnerAWSAccountID."""
    refused(400, "InvalidBucketOwnerAWSAccountID", main.s3.get_bucket_location, Bucket=new_bucket(), ExpectedBucketOwner="someone")


def test_expected_owner_of_no_bucket():
    """Where there is no bucket there is none: 404."""
    missing(main.s3.get_bucket_location, ExpectedBucketOwner=alt.id)


# --- errors


def test_error_document():
    """An error is XML with code, message, request id and host id; the request id is that of the header."""
    answer = signed("GET", f"/{new_name()}?location")
    equal((answer.status, answer.headers["content-type"]), (404, "application/xml"))
    for element in (b"<Code>", b"<Message>", b"<RequestId>", b"<HostId>", b"<BucketName>"):
        assert element in answer.data, answer.data
    assert answer.headers["x-amz-request-id"].encode() in answer.data, (answer.headers, answer.data)
    assert answer.headers["x-amz-id-2"], answer.headers


def test_unknown_key():
    """A key id that there is not: 403 InvalidAccessKeyId."""
    stranger = client(aws_access_key_id="NOSUCHKEY00000000001", aws_secret_access_key="x")
    refused(403, "InvalidAccessKeyId", stranger.list_buckets)
    refused(403, "InvalidAccessKeyId", stranger.create_bucket, Bucket=new_name())


def test_wrong_secret():
    """A secret that is not the key's: 403 SignatureDoesNotMatch."""
    liar = client(aws_access_key_id=main.key, aws_secret_access_key="x")
    refused(403, "SignatureDoesNotMatch", liar.list_buckets)
    refused(403, "SignatureDoesNotMatch", liar.create_bucket, Bucket=new_name())


def test_method_that_there_is_not():
    """A method that a bucket does not know: 405 MethodNotAllowed."""
    answer = signed("PATCH", "/" + new_bucket())
    equal_code(answer, 405, "MethodNotAllowed")
