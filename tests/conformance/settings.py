"""Settings of a bucket that are one word (request payment, acceleration), and those of which a bucket has none."""

from support import *


def set_payer(bucket, payer, who=main):
    return who.s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": payer})


def accelerate(bucket, status, who=main):
    return who.s3.put_bucket_accelerate_configuration(Bucket=bucket, AccelerateConfiguration={"Status": status})


# --- request payment


def test_the_owner_pays():
    """A new bucket says BucketOwner."""
    equal(main.s3.get_bucket_request_payment(Bucket=new_bucket())["Payer"], "BucketOwner")


def test_payer_is_kept():
    """What was put is got."""
    bucket = new_bucket()
    for payer in ("Requester", "BucketOwner"):
        equal(status(set_payer(bucket, payer)), 200)
        equal(main.s3.get_bucket_request_payment(Bucket=bucket)["Payer"], payer)


def test_unknown_payer():
    """Anybody else: 400 MalformedXML."""
    refused(400, "MalformedXML", set_payer, bucket=new_bucket(), payer="Nobody")


def test_payment_of_no_bucket():
    """Of a bucket that is not there: 404 NoSuchBucket."""
    name = new_name()
    refused(404, "NoSuchBucket", main.s3.get_bucket_request_payment, Bucket=name)
    refused(404, "NoSuchBucket", set_payer, bucket=name, payer="Requester")


def test_payment_is_the_owners():
    """Another account may neither see nor set it."""
    bucket = new_bucket()
    denied(alt.s3.get_bucket_request_payment, Bucket=bucket)
    denied(set_payer, bucket=bucket, payer="Requester", who=alt)


def paid():
    """A bucket of main's that everybody may read, and where who asks pays."""
    bucket = new_bucket()
    put(bucket, "key")
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    set_payer(bucket, "Requester")
    return bucket


def test_who_asks_says_that_he_pays():
    """Another account without x-amz-request-payer is denied; with it, it is answered and told that it was charged."""
    bucket = paid()
    denied(alt.s3.get_object, Bucket=bucket, Key="key")
    denied(alt.s3.head_object, Bucket=bucket, Key="key")
    answer = alt.s3.get_object(Bucket=bucket, Key="key", RequestPayer="requester")
    equal((answer["Body"].read(), answer["RequestCharged"]), (b"body", "requester"))


def test_the_owner_is_not_charged():
    """The owner's account is answered as ever."""
    bucket = paid()
    equal(read(main, bucket, "key"), b"body")
    assert "RequestCharged" not in main.s3.get_object(Bucket=bucket, Key="key", RequestPayer="requester")


def test_nobody_in_particular_cannot_pay():
    """Who has no key is denied, whatever he says."""
    bucket = paid()
    equal(raw("GET", f"/{bucket}/key").status, 403)
    equal(raw("GET", f"/{bucket}/key", headers={"x-amz-request-payer": "requester"}).status, 403)
    set_payer(bucket, "BucketOwner")
    equal(raw("GET", f"/{bucket}/key").status, 200)


def test_a_copys_source_is_paid_for():
    """Who copies from such a bucket says so too."""
    bucket, target = paid(), new_bucket(owner=alt)
    copy = dict(Bucket=target, Key="copy", CopySource={"Bucket": bucket, "Key": "key"})
    denied(alt.s3.copy_object, **copy)
    equal(alt.s3.copy_object(**copy, RequestPayer="requester")["RequestCharged"], "requester")


def test_a_presigned_url_pays_too():
    """Who uses a presigned URL says so in the header that was signed."""
    bucket = paid()
    url = alt.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key", "RequestPayer": "requester"})
    equal(fetch("GET", url, headers={"x-amz-request-payer": "requester"}).data, b"body")
    url = alt.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"})
    equal(fetch("GET", url).status, 403)


# --- acceleration


def test_acceleration_was_never_set():
    """A new bucket says nothing."""
    assert "Status" not in main.s3.get_bucket_accelerate_configuration(Bucket=new_bucket())


def test_acceleration_is_kept():
    """What was put is got."""
    bucket = new_bucket()
    for state in ("Enabled", "Suspended"):
        equal(status(accelerate(bucket, state)), 200)
        equal(main.s3.get_bucket_accelerate_configuration(Bucket=bucket)["Status"], state)


def test_unknown_acceleration():
    """Any other state: 400 MalformedXML."""
    refused(400, "MalformedXML", accelerate, bucket=new_bucket(), status="Fast")


def test_acceleration_wants_no_periods():
    """A bucket with a period in its name: 400 InvalidRequest."""
    name = new_name() + ".period"
    main.s3.create_bucket(Bucket=name)
    refused(400, "InvalidRequest", accelerate, bucket=name, status="Enabled")


def test_acceleration_is_the_owners():
    """Another account may neither see nor set it."""
    bucket = new_bucket()
    denied(alt.s3.get_bucket_accelerate_configuration, Bucket=bucket)
    denied(accelerate, bucket=bucket, status="Enabled", who=alt)


# --- what there is none of


def test_no_logging():
    """GetBucketLogging: an empty status."""
    assert "LoggingEnabled" not in main.s3.get_bucket_logging(Bucket=new_bucket())
    refused(404, "NoSuchBucket", main.s3.get_bucket_logging, Bucket=new_name())


def none_of(what, listed):
    """An empty list, and 404 NoSuchConfiguration of one."""
    bucket = new_bucket()
    assert not getattr(main.s3, f"list_bucket_{what}_configurations")(Bucket=bucket).get(listed)
    refused(404, "NoSuchConfiguration", getattr(main.s3, f"get_bucket_{what}_configuration"), Bucket=bucket, Id="a")


def test_no_analytics():
    """Of analytics there are none."""
    none_of("analytics", "AnalyticsConfigurationList")


def test_no_tiering():
    """Of intelligent tiering there is none."""
    none_of("intelligent_tiering", "IntelligentTieringConfigurationList")


def test_no_inventory():
    """Of inventories there are none."""
    none_of("inventory", "InventoryConfigurationList")


def test_no_metrics():
    """Of metrics there are none."""
    none_of("metrics", "MetricsConfigurationList")


def test_a_preflight_is_not_charged():
    """A preflight of a bucket where who asks pays is answered as ever: it has no identity."""
    bucket = paid()
    rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
    main.s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    asked = {"Origin": "https://www.example.com", "Access-Control-Request-Method": "GET"}
    equal(raw("OPTIONS", f"/{bucket}/key", headers=asked).status, 200)
