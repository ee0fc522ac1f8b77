"""Cross-origin rules: Put, Get and DeleteBucketCors, preflights, and what other answers tell a browser."""

from support import *

RULE = {"AllowedMethods": ["GET", "PUT"], "AllowedOrigins": ["https://*.example.com"]}


def set_rules(bucket, *rules, who=main):
    return who.s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": list(rules)})


def with_rules(*rules):
    bucket = new_bucket()
    set_rules(bucket, *rules)
    return bucket


def preflight(bucket, key="", origin="https://www.example.com", method="GET", headers=None, query=""):
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    path = f"/{bucket}" + (f"/{key}" if key else "") + query
    return raw("OPTIONS", path, headers={name: value for name, value in asked.items() if value is not None})


def told(answer):
    """What an answer tells of access control: without the prefix."""
    prefix = "access-control-"
    return {name.lower()[len(prefix):]: value for name, value in answer.headers.items() if name.lower().startswith(prefix)}


# --- the rules


def test_none():
    """A bucket has no rules at first: 404 NoSuchCORSConfiguration."""
    refused(404, "NoSuchCORSConfiguration", main.s3.get_bucket_cors, Bucket=new_bucket())


def test_put_get_delete():
    """What was put is got, element by element; after DELETE there is none. 200, 200, 204."""
    bucket = new_bucket()
    full = {"ID": "all of it", "AllowedHeaders": ["*"], "AllowedMethods": ["GET", "PUT", "POST", "DELETE", "HEAD"],
            "AllowedOrigins": ["http://one.example", "https://*.two.example"], "ExposeHeaders": ["ETag", "x-amz-request-id"],
            "MaxAgeSeconds": 3000}
    equal(status(set_rules(bucket, full, RULE)), 200)
    equal(main.s3.get_bucket_cors(Bucket=bucket)["CORSRules"], [full, RULE])
    equal(status(main.s3.delete_bucket_cors(Bucket=bucket)), 204)
    refused(404, "NoSuchCORSConfiguration", main.s3.get_bucket_cors, Bucket=bucket)


def test_put_replaces():
    """A second PutBucketCors replaces the first."""
    bucket = with_rules(RULE)
    other = {"AllowedMethods": ["HEAD"], "AllowedOrigins": ["*"]}
    set_rules(bucket, other)
    equal(main.s3.get_bucket_cors(Bucket=bucket)["CORSRules"], [other])


def test_delete_none():
    """DeleteBucketCors of a bucket without rules is 204."""
    equal(status(main.s3.delete_bucket_cors(Bucket=new_bucket())), 204)


def test_no_such_bucket():
    """All three on a bucket that is not there: 404 NoSuchBucket."""
    name = new_name()
    refused(404, "NoSuchBucket", main.s3.get_bucket_cors, Bucket=name)
    refused(404, "NoSuchBucket", main.s3.delete_bucket_cors, Bucket=name)
    refused(404, "NoSuchBucket", main.s3.put_bucket_cors, Bucket=name, CORSConfiguration={"CORSRules": [RULE]})


def test_others_may_not():
    """Another account may neither see nor change them; where the policy says so, it may."""
    bucket = with_rules(RULE)
    denied(alt.s3.get_bucket_cors, Bucket=bucket)
    denied(alt.s3.delete_bucket_cors, Bucket=bucket)
    denied(alt.s3.put_bucket_cors, Bucket=bucket, CORSConfiguration={"CORSRules": [RULE]})
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetBucketCORS", arn(bucket)))
    equal(alt.s3.get_bucket_cors(Bucket=bucket)["CORSRules"], [RULE])


def invalid(**changes):
    error = refused(400, "InvalidRequest", main.s3.put_bucket_cors, Bucket=new_bucket(), CORSConfiguration={"CORSRules": [{**RULE, **changes}]})
    return error["Error"]["Message"]


def test_unknown_method():
    """A method that no rule may allow: 400 InvalidRequest, which names it."""
    assert "PATCH" in invalid(AllowedMethods=["PATCH"])
    assert "get" in invalid(AllowedMethods=["get"])
    assert "OPTIONS" in invalid(AllowedMethods=["OPTIONS"])


def test_two_wildcards():
    """An origin or a header has one wildcard at most: 400 InvalidRequest."""
    assert "https://*.*" in invalid(AllowedOrigins=["https://*.*"])
    assert "x-*-*" in invalid(AllowedHeaders=["x-*-*"])


def test_wildcard_in_exposed():
    """An exposed header has none: 400 InvalidRequest."""
    assert "x-*" in invalid(ExposeHeaders=["x-*"])


def test_long_id():
    """An ID of more than 255 characters: 400 InvalidRequest."""
    invalid(ID="i" * 256)
    with_rules({**RULE, "ID": "i" * 255})


def test_malformed():
    """No rules, a rule without an origin or a method, something else: 400 MalformedXML."""
    bucket = new_bucket()
    rule = "<AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
    for inside in ("", "<CORSRule/>", "<CORSRule><AllowedOrigin>*</AllowedOrigin></CORSRule>", f"<CORSRule>{rule}<Other/></CORSRule>"):
        answer = signed("PUT", f"/{bucket}?cors", f"<CORSConfiguration>{inside}</CORSConfiguration>".encode())
        equal((answer.status, code(answer)), (400, "MalformedXML"), inside)
    refused(404, "NoSuchCORSConfiguration", main.s3.get_bucket_cors, Bucket=bucket)


def test_a_hundred_rules():
    """100 rules are taken, 101 are 400 MalformedXML."""
    bucket = with_rules(*[RULE] * 100)
    refused(400, "MalformedXML", main.s3.put_bucket_cors, Bucket=bucket, CORSConfiguration={"CORSRules": [RULE] * 101})
    equal(len(main.s3.get_bucket_cors(Bucket=bucket)["CORSRules"]), 100)


# --- preflights


def test_preflight():
    """A request that a rule allows: 200, its origin, the rule's methods, credentials, Vary, and no body."""
    answer = preflight(with_rules(RULE), "key")
    equal((answer.status, answer.data), (200, b""))
    equal(told(answer), {"allow-origin": "https://www.example.com", "allow-methods": "GET, PUT", "allow-credentials": "true"})
    assert "Origin" in answer.headers["vary"], answer.headers


def test_preflight_of_a_bucket():
    """A preflight for the bucket itself is answered likewise."""
    equal(preflight(with_rules(RULE)).status, 200)


def test_preflight_of_a_sub_resource():
    """A preflight for a sub-resource too: it names the request that is to come."""
    bucket = with_rules(RULE)
    equal(preflight(bucket, "key", method="PUT", query="?partNumber=1&uploadId=x").status, 200)
    equal(preflight(bucket, query="?list-type=2&prefix=x").status, 200)


def test_preflight_of_everybody():
    """A rule for every origin answers *, without credentials."""
    answer = preflight(with_rules({**RULE, "AllowedOrigins": ["*"]}), "key")
    equal(told(answer), {"allow-origin": "*", "allow-methods": "GET, PUT"})


def test_preflight_needs_no_rights():
    """It is answered to everybody, whether the object is there and may be read or not."""
    bucket = with_rules(RULE)
    put(bucket, "secret")
    equal(preflight(bucket, "secret").status, 200)
    equal(raw("GET", f"/{bucket}/secret").status, 403)


def forbidden(answer, kind="OBJECT"):
    equal((answer.status, code(answer)), (403, "AccessForbidden"))
    assert f"<ResourceType>{kind}</ResourceType>".encode() in answer.data, answer.data
    equal(told(answer), {})


def test_preflight_without_rules():
    """A bucket without rules: 403 AccessForbidden, "CORS is not enabled for this bucket"."""
    answer = preflight(new_bucket(), "key")
    forbidden(answer)
    assert b"CORS is not enabled" in answer.data, answer.data


def test_preflight_of_no_bucket():
    """A bucket that is not there: 403 AccessForbidden."""
    forbidden(preflight(new_name()), "BUCKET")


def test_preflight_of_another_origin():
    """An origin that no rule names: 403 AccessForbidden. Scheme, host and port all count."""
    bucket = with_rules(RULE)
    for origin in ("http://www.example.com", "https://example.com", "https://www.example.com:8443", "https://www.example.org", "null"):
        forbidden(preflight(bucket, "key", origin=origin))


def test_preflight_of_another_method():
    """A method that no rule allows: 403 AccessForbidden; no method of S3's: 400 BadRequest."""
    bucket = with_rules(RULE)
    forbidden(preflight(bucket, "key", method="DELETE"))
    for method in ("PATCH", "get"):
        answer = preflight(bucket, "key", method=method)
        equal((answer.status, code(answer)), (400, "BadRequest"), method)


def test_preflight_without_a_method_or_an_origin():
    """Without Origin, or without Access-Control-Request-Method: 400 BadRequest."""
    bucket = with_rules(RULE)
    for answer in (preflight(bucket, "key", method=None), preflight(bucket, "key", origin=None)):
        equal((answer.status, code(answer)), (400, "BadRequest"))


def test_preflight_of_headers():
    """All headers that are asked for must be allowed, whatever their case; they are named in the answer."""
    bucket = with_rules({**RULE, "AllowedHeaders": ["Content-Type", "x-amz-*"]})
    answer = preflight(bucket, "key", method="PUT", headers="content-type, X-Amz-Date,x-amz-meta-a")
    equal(told(answer)["allow-headers"], "content-type, x-amz-date, x-amz-meta-a")
    forbidden(preflight(bucket, "key", method="PUT", headers="content-type,authorization"))


def test_preflight_of_headers_without_any_allowed():
    """A rule that names no header allows none."""
    forbidden(preflight(with_rules(RULE), "key", headers="x-amz-date"))


def test_preflight_tells_all_of_the_rule():
    """Exposed headers and the age come along."""
    answer = preflight(with_rules({**RULE, "ExposeHeaders": ["ETag", "x-amz-id-2"], "MaxAgeSeconds": 600}), "key")
    equal((told(answer)["expose-headers"], told(answer)["max-age"]), ("ETag, x-amz-id-2", "600"))


def test_the_first_rule_that_allows_it():
    """Rules are looked at in order, and the first one that allows the request answers."""
    bucket = with_rules({**RULE, "AllowedMethods": ["GET"], "MaxAgeSeconds": 1}, {**RULE, "AllowedMethods": ["GET", "PUT"], "MaxAgeSeconds": 2})
    equal(told(preflight(bucket, "key", method="GET"))["max-age"], "1")
    equal(told(preflight(bucket, "key", method="PUT"))["max-age"], "2")


# --- other answers


def test_get_with_an_origin():
    """The answer to a request of a page that a rule allows tells so."""
    bucket = with_rules({**RULE, "ExposeHeaders": ["ETag"]})
    put(bucket, "key")
    answer = signed("GET", f"/{bucket}/key", origin="https://www.example.com")
    equal((answer.status, answer.data), (200, b"body"))
    equal(told(answer)["allow-origin"], "https://www.example.com")
    equal(told(answer)["expose-headers"], "ETag")
    assert "Origin" in answer.headers["vary"], answer.headers


def test_put_with_an_origin():
    """So does that to a PUT."""
    answer = signed("PUT", f"/{with_rules(RULE)}/key", b"x", origin="https://www.example.com")
    equal((answer.status, told(answer)["allow-origin"]), (200, "https://www.example.com"))


def test_errors_tell_too():
    """An error tells a page that may read it so: 403 and 404."""
    bucket = with_rules(RULE)
    answer = raw("GET", f"/{bucket}/key", headers={"Origin": "https://www.example.com"})
    equal((answer.status, told(answer)["allow-origin"]), (403, "https://www.example.com"))
    answer = signed("GET", f"/{bucket}/missing", origin="https://www.example.com")
    equal((answer.status, told(answer)["allow-origin"]), (404, "https://www.example.com"))


def test_other_origins_are_answered_and_told_nothing():
    """A page that no rule allows gets its answer, without a word that lets a browser hand it over."""
    bucket = with_rules(RULE)
    put(bucket, "key")
    for arguments in ({"origin": "https://www.example.org"}, {}):
        answer = signed("GET", f"/{bucket}/key", **arguments)
        equal((answer.status, answer.data, told(answer)), (200, b"body", {}))


def test_another_method_is_told_nothing():
    """A method that the rule does not allow is told nothing either."""
    bucket = with_rules(RULE)
    put(bucket, "key")
    answer = signed("DELETE", f"/{bucket}/key", origin="https://www.example.com")
    equal((answer.status, told(answer)), (204, {}))
