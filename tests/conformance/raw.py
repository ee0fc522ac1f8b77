"""Requests by hand: each part of a signature that can be wrong, presigned URLs, paths and queries in odd encodings, methods, and
what every answer has. The signer is written from AWS's description of Signature Version 4."""

import hashlib
import hmac
import html
import http.client
import ssl
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, parsedate_to_datetime
from types import SimpleNamespace
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from support import *

REGION = main.s3.meta.region_name
HOST = urlsplit(ENDPOINT).netloc
TLS = ssl.create_default_context(cafile=CA)
ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY = hashlib.sha256(b"").hexdigest()


# --- a client that changes nothing of what it is told to send


def send(method, target, headers=None, body=b"", length=True):
    """Sends exactly this. Headers are a dictionary or a list of pairs. Has `status`, `data` and `headers`."""
    host = urlsplit(ENDPOINT)
    connection = http.client.HTTPSConnection(host.hostname, host.port, timeout=30, context=TLS)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
        names = {name.lower() for name, _ in pairs}
        if "host" not in names:
            pairs.insert(0, ("Host", HOST))
        if length and "content-length" not in names:
            pairs.append(("Content-Length", str(len(body))))
        for name, value in pairs:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return SimpleNamespace(status=answer.status, data=answer.read(), headers=answer.headers)
    finally:
        connection.close()


# --- Signature Version 4


def encoded(text, safe="-_.~"):
    return quote(text, safe=safe)


def canonical_path(path):
    return encoded(unquote(path), "/-_.~")


def canonical_query(query):
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return "&".join(sorted(f"{encoded(unquote(name))}={encoded(unquote(value))}" for name, _, value in pairs))


def digest(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(secret, when, scope, canonical):
    key = ("AWS4" + secret).encode()
    for word in scope.split("/"):
        key = digest(key, word)
    text = "\n".join([ALGORITHM, when, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    return digest(key, text).hex(), text


def canonical_request(method, target, headers, names, content):
    path, _, query = target.partition("?")
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in names]
    return "\n".join([method, canonical_path(path), canonical_query(query), *lines, "", ";".join(names), content])


def stamp(moment=None):
    return (moment or datetime.now(timezone.utc)).strftime("%Y%m%dT%H%M%SZ")


def ago(**units):
    return datetime.now(timezone.utc) - timedelta(**units)


def by_hand(method, target, body=b"", who=main, moment=None, headers=None, key=None, secret=None, scope=None, content=None,
            unsigned=(), host=HOST, spell=None):
    """The headers of a signed request. `scope`: the words after the key in the credential; `unsigned`: headers that are sent but
    not signed; `spell`: makes the Authorization of key, scope, names and signature."""
    when = stamp(moment)
    content = hashlib.sha256(body).hexdigest() if content is None else content
    said = {"host": host, "x-amz-date": when, "x-amz-content-sha256": content, **(headers or {})}
    names = sorted(set(said) - set(unsigned))
    scope = scope or f"{when[:8]}/{REGION}/s3/aws4_request"
    result, _ = signature(secret or who.secret, when, scope, canonical_request(method, target, said, names, content))
    spell = spell or (lambda key, scope, names, result: f"{ALGORITHM} Credential={key}/{scope}, SignedHeaders={names}, Signature={result}")
    return {**said, "authorization": spell(key or who.key, scope, ";".join(names), result)}


def call(method, target, body=b"", **parts):
    return send(method, target, by_hand(method, target, body, **parts), body)


def presigned(method, path, seconds="300", who=main, moment=None, more="", leave_out=(), host=HOST, headers=None, **changes):
    """The target of a presigned URL. `more`: other parameters; `changes`: parameters that are to be signed with another value."""
    when = stamp(moment)
    scope = f"{when[:8]}/{REGION}/s3/aws4_request"
    said = {"host": host, **(headers or {})}
    names = sorted(said)
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{who.key}/{scope}",
        "X-Amz-Date": when,
        "X-Amz-Expires": seconds,
        "X-Amz-SignedHeaders": ";".join(names),
    }
    query.update({name.replace("_", "-"): value for name, value in changes.items()})
    pairs = [f"{name}={encoded(value)}" for name, value in query.items() if name not in leave_out]
    target = path + "?" + "&".join(([more] if more else []) + pairs)
    result, _ = signature(who.secret, when, scope, canonical_request(method, target, said, names, "UNSIGNED-PAYLOAD"))
    return target if "X-Amz-Signature" in leave_out else f"{target}&X-Amz-Signature={result}"


def one_object(key="key", body=b"body"):
    bucket = new_bucket()
    put(bucket, key, body)
    return bucket


def element(answer, name):
    """What an element of an error's document has, or None."""
    before, _, rest = answer.data.decode().partition(f"<{name}>")
    return html.unescape(rest.partition(f"</{name}>")[0]) if rest else None


def moment_in(answer, name):
    """A moment in ISO 8601 that an error's document tells."""
    return datetime.fromisoformat(element(answer, name))


def is_error(answer, wanted, error, message=None):
    equal((answer.status, code(answer)), (wanted, error), answer.data)
    if message:
        assert message in element(answer, "Message"), answer.data


# --- the Authorization header


def test_signer():
    """The suite's own signer is right: what it signs is taken, for GET, PUT, HEAD and DELETE."""
    bucket = new_bucket()
    equal(call("PUT", f"/{bucket}/key", b"body").status, 200)
    equal(call("GET", f"/{bucket}/key").data, b"body")
    equal(call("HEAD", f"/{bucket}/key").status, 200)
    equal(call("GET", f"/{bucket}?list-type=2&prefix=k").status, 200)
    equal(call("DELETE", f"/{bucket}/key").status, 204)


def test_no_authorization():
    """Without a signature one is anonymous: 403 AccessDenied."""
    is_error(send("GET", f"/{one_object()}/key"), 403, "AccessDenied")
    is_error(send("GET", "/"), 403, "AccessDenied")


def test_unknown_key():
    """An access key that nobody has: 403 InvalidAccessKeyId, with the key."""
    answer = call("GET", f"/{one_object()}/key", key="AKIAUNKNOWN000000000")
    is_error(answer, 403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
    equal(element(answer, "AWSAccessKeyId"), "AKIAUNKNOWN000000000")


def test_key_is_case_sensitive():
    """An access key in other letters is another key."""
    is_error(call("GET", "/", key=main.key.lower()), 403, "InvalidAccessKeyId")


def test_wrong_secret():
    """A signature by another secret: 403 SignatureDoesNotMatch."""
    answer = call("GET", f"/{one_object()}/key", secret="x" * 40)
    message = "The request signature we calculated does not match the signature you provided. Check your key and signing method."
    is_error(answer, 403, "SignatureDoesNotMatch", message)


def test_secret_of_another_account():
    """A signature by another account's secret: 403 SignatureDoesNotMatch."""
    is_error(call("GET", f"/{one_object()}/key", secret=alt.secret), 403, "SignatureDoesNotMatch")


def test_signature_fields():
    """SignatureDoesNotMatch tells the key, what was provided, and what the server signed."""
    target = f"/{new_bucket()}/a%20key?tagging"
    headers = by_hand("GET", target, secret="wrong")
    answer = send("GET", target, headers)
    is_error(answer, 403, "SignatureDoesNotMatch")
    equal(element(answer, "AWSAccessKeyId"), main.key)
    equal(element(answer, "SignatureProvided"), headers["authorization"].rpartition("=")[2])
    names = ["host", "x-amz-content-sha256", "x-amz-date"]
    canonical = canonical_request("GET", target, headers, names, EMPTY)
    when = headers["x-amz-date"]
    _, text = signature("", when, f"{when[:8]}/{REGION}/s3/aws4_request", canonical)
    equal(element(answer, "CanonicalRequest"), canonical)
    equal(element(answer, "StringToSign"), text)


def test_signature_fields_in_bytes():
    """SignatureDoesNotMatch tells what the server signed in bytes too: two hexadecimal digits each, with spaces between."""
    answer = call("GET", f"/{new_bucket()}/key", secret="wrong")
    is_error(answer, 403, "SignatureDoesNotMatch")
    for name in ("StringToSign", "CanonicalRequest"):
        equal(element(answer, name + "Bytes"), element(answer, name).encode().hex(" "), name)


def test_signature_with_escaped_fields():
    """What SignatureDoesNotMatch repeats of a request is escaped: the document stays well-formed."""
    target = f"/{new_bucket()}/key"
    headers = by_hand("GET", target, headers={"x-amz-meta-a": "<b>&amp;]]>"}, secret="wrong")
    answer = send("GET", target, headers)
    is_error(answer, 403, "SignatureDoesNotMatch")
    assert "x-amz-meta-a:<b>&amp;]]>" in ElementTree.fromstring(answer.data).findtext("CanonicalRequest"), answer.data


def test_tampered():
    """A request whose method, path, query or a signed header changed after it was signed: 403 SignatureDoesNotMatch."""
    bucket = one_object()
    target = f"/{bucket}/key"
    headers = by_hand("GET", target, headers={"x-amz-meta-a": "b", "range": "bytes=0-1"})
    equal(send("GET", target, headers).status, 206)
    is_error(send("DELETE", target, headers), 403, "SignatureDoesNotMatch")
    is_error(send("GET", f"/{bucket}/kez", headers), 403, "SignatureDoesNotMatch")
    is_error(send("GET", target + "?tagging", headers), 403, "SignatureDoesNotMatch")
    is_error(send("GET", target, {**headers, "x-amz-meta-a": "c"}), 403, "SignatureDoesNotMatch")
    is_error(send("GET", target, {**headers, "range": "bytes=0-2"}), 403, "SignatureDoesNotMatch")
    equal(read(main, bucket, "key"), b"body")


def test_another_host():
    """A request that was signed for another host: 403 SignatureDoesNotMatch."""
    target = f"/{one_object()}/key"
    headers = by_hand("GET", target, host="elsewhere.example")
    is_error(send("GET", target, {**headers, "host": HOST}), 403, "SignatureDoesNotMatch")


def test_signed_header_missing():
    """A header that is named as signed and does not come: 403."""
    target = f"/{one_object()}/key"
    headers = by_hand("GET", target, headers={"x-amz-meta-a": "b"})
    del headers["x-amz-meta-a"]
    answer = send("GET", target, headers)
    equal(answer.status, 403)
    assert code(answer) in ("SignatureDoesNotMatch", "AccessDenied"), answer.data


def test_unsigned_amz_header():
    """An x-amz- header that is not signed: 403 AccessDenied, which names it."""
    bucket = one_object()
    answer = call("PUT", f"/{bucket}/key", b"new", headers={"x-amz-tagging": "a=b"}, unsigned=["x-amz-tagging"])
    is_error(answer, 403, "AccessDenied", "There were headers present in the request which were not signed")
    equal(element(answer, "HeadersNotSigned"), "x-amz-tagging")
    equal(read(main, bucket, "key"), b"body")


def test_unsigned_host():
    """The host must be signed: else the request is refused."""
    answer = call("GET", f"/{one_object()}/key", unsigned=["host"])
    assert (answer.status, code(answer)) in (
        (403, "AccessDenied"), (403, "SignatureDoesNotMatch"), (400, "AuthorizationHeaderMalformed")), answer.data


def test_unsigned_plain_header():
    """Other headers need not be signed."""
    target = f"/{one_object()}/key"
    equal(call("GET", target, headers={"range": "bytes=0-1", "user-agent": "me"}, unsigned=["range", "user-agent"]).data, b"bo")


def test_header_spaces():
    """Spaces around a header's value do not count, and several within are as one."""
    target = f"/{new_bucket()}/key"
    headers = by_hand("PUT", target, b"body", headers={"x-amz-meta-a": "one  two   three"})
    equal(send("PUT", target, {**headers, "x-amz-meta-a": "  one  two   three  "}, b"body").status, 200)


def test_header_names_in_any_case():
    """Names of headers are the same in any case."""
    target = f"/{one_object()}/key"
    equal(send("GET", target, {name.upper(): value for name, value in by_hand("GET", target).items()}).status, 200)


def test_no_content_sha256():
    """Without x-amz-content-sha256: 400 InvalidRequest."""
    target = f"/{one_object()}/key"
    headers = by_hand("GET", target, unsigned=["x-amz-content-sha256"])
    del headers["x-amz-content-sha256"]
    is_error(send("GET", target, headers), 400, "InvalidRequest", "x-amz-content-sha256")


# --- dates


def test_skewed():
    """A date more than 15 minutes off, either way: 403 RequestTimeTooSkewed, with both times and the limit."""
    for moment in (ago(minutes=16), ago(minutes=-16), ago(days=400)):
        answer = call("GET", f"/{new_bucket()}", moment=moment)
        is_error(answer, 403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
        equal(element(answer, "MaxAllowedSkewMilliseconds"), "900000")
        equal(element(answer, "RequestTime"), stamp(moment))
        assert abs(moment_in(answer, "ServerTime") - datetime.now(timezone.utc)) < timedelta(minutes=2), answer.data


def test_not_skewed():
    """A date within 15 minutes is taken, either way."""
    bucket = new_bucket()
    for moment in (ago(minutes=14), ago(minutes=-14)):
        equal(call("GET", f"/{bucket}", moment=moment).status, 200)


def test_no_date():
    """Without a date: 403 AccessDenied, which asks for a Date or x-amz-date header."""
    headers = by_hand("GET", "/", unsigned=["x-amz-date"])
    del headers["x-amz-date"]
    is_error(send("GET", "/", headers), 403, "AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")


def test_malformed_date():
    """A date that is none: 403 AccessDenied."""
    for date in ("yesterday", "", "2026-01-01T00:00:00Z", "20261301T000000Z"):
        is_error(send("GET", "/", {**by_hand("GET", "/"), "x-amz-date": date}), 403, "AccessDenied")


def test_date_header():
    """The Date header does where there is no x-amz-date."""
    moment = ago()
    when, scope = stamp(moment), f"{stamp(moment)[:8]}/{REGION}/s3/aws4_request"
    said = {"host": HOST, "date": format_datetime(moment, usegmt=True), "x-amz-content-sha256": EMPTY}
    result, _ = signature(main.secret, when, scope, canonical_request("GET", "/", said, sorted(said), EMPTY))
    said["authorization"] = f"{ALGORITHM} Credential={main.key}/{scope}, SignedHeaders={';'.join(sorted(said))}, Signature={result}"
    equal(send("GET", "/", said).status, 200)


def test_amz_date_over_date():
    """x-amz-date counts where both are there."""
    equal(call("GET", "/", headers={"date": format_datetime(ago(days=300), usegmt=True)}).status, 200)


def test_date_of_scope():
    """A credential whose day is not that of the date: 400 AuthorizationHeaderMalformed."""
    answer = call("GET", "/", scope=f"{stamp(ago(days=1))[:8]}/{REGION}/s3/aws4_request")
    is_error(answer, 400, "AuthorizationHeaderMalformed", "The authorization header is malformed")


# --- malformed headers


def malformed(spell):
    is_error(call("GET", "/", spell=spell), 400, "AuthorizationHeaderMalformed")


def test_no_credential():
    """An Authorization without Credential: 400 AuthorizationHeaderMalformed."""
    malformed(lambda key, scope, names, result: f"{ALGORITHM} SignedHeaders={names}, Signature={result}")


def test_no_signed_headers():
    """An Authorization without SignedHeaders: 400 AuthorizationHeaderMalformed."""
    malformed(lambda key, scope, names, result: f"{ALGORITHM} Credential={key}/{scope}, Signature={result}")


def test_no_signature():
    """An Authorization without Signature: 400 AuthorizationHeaderMalformed."""
    malformed(lambda key, scope, names, result: f"{ALGORITHM} Credential={key}/{scope}, SignedHeaders={names}")


def test_no_parts():
    """An Authorization of the algorithm alone: 400 AuthorizationHeaderMalformed."""
    malformed(lambda key, scope, names, result: ALGORITHM + " ")


def test_short_credential():
    """A Credential of too few words: 400 AuthorizationHeaderMalformed."""
    malformed(lambda key, scope, names, result: f"{ALGORITHM} Credential={key}, SignedHeaders={names}, Signature={result}")
    malformed(lambda key, scope, names, result: f"{ALGORITHM} Credential={key}/{scope[:8]}, SignedHeaders={names}, Signature={result}")


def test_other_service():
    """A credential for another service: 400 AuthorizationHeaderMalformed."""
    is_error(call("GET", "/", scope=f"{stamp()[:8]}/{REGION}/ec2/aws4_request"), 400, "AuthorizationHeaderMalformed")


def test_other_terminator():
    """A credential that does not end in aws4_request: 400 AuthorizationHeaderMalformed."""
    is_error(call("GET", "/", scope=f"{stamp()[:8]}/{REGION}/s3/aws5_request"), 400, "AuthorizationHeaderMalformed")


def test_spelling():
    """The parts of an Authorization may be without spaces after the commas."""
    def tight(key, scope, names, result):
        return f"{ALGORITHM} Credential={key}/{scope},SignedHeaders={names},Signature={result}"

    equal(call("GET", "/", spell=tight).status, 200)


def test_other_schemes():
    """An Authorization of an unknown kind: 400 InvalidRequest, or InvalidArgument, which AWS answers too."""
    for text in ("Bearer abc", "Basic YTpi", "nonsense"):
        answer = send("GET", "/", {"authorization": text, "x-amz-date": stamp()})
        assert (answer.status, code(answer)) in ((400, "InvalidRequest"), (400, "InvalidArgument")), answer.data


def test_version_2():
    """Signature Version 2 is refused: 400 InvalidRequest, which asks for AWS4-HMAC-SHA256."""
    headers = {"authorization": f"AWS {main.key}:c2lnbmF0dXJl", "date": format_datetime(ago(), usegmt=True)}
    message = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
    is_error(send("GET", "/", headers), 400, "InvalidRequest", message)


def test_session_token():
    """A session token that nobody gave: 400 InvalidToken."""
    is_error(call("GET", "/", headers={"x-amz-security-token": "token"}), 400, "InvalidToken")


def test_signature_spelled_otherwise():
    """A signature in capitals, cut short or too long is refused."""
    def spelled(change):
        return lambda key, scope, names, result: f"{ALGORITHM} Credential={key}/{scope}, SignedHeaders={names}, Signature={change(result)}"

    for change in (str.upper, lambda result: result[:-1], lambda result: result + "0"):
        answer = call("GET", "/", spell=spelled(change))
        assert (answer.status, code(answer)) in ((403, "SignatureDoesNotMatch"), (400, "AuthorizationHeaderMalformed")), answer.data


# --- presigned URLs


def test_presigned_get():
    """A presigned GET is the object."""
    bucket = one_object()
    equal(send("GET", presigned("GET", f"/{bucket}/key")).data, b"body")


def test_presigned_put():
    """A presigned PUT takes any body."""
    bucket = new_bucket()
    equal(send("PUT", presigned("PUT", f"/{bucket}/key"), body=b"by url").status, 200)
    equal(read(main, bucket, "key"), b"by url")


def test_presigned_head():
    """A presigned HEAD is the object's headers."""
    answer = send("HEAD", presigned("HEAD", f"/{one_object()}/key"))
    equal((answer.status, answer.data, answer.headers["content-length"]), (200, b"", "4"))


def test_presigned_delete():
    """A presigned DELETE deletes."""
    bucket = one_object()
    equal(send("DELETE", presigned("DELETE", f"/{bucket}/key")).status, 204)
    refused(404, "NoSuchKey", main.s3.head_object, Bucket=bucket, Key="key")


def test_presigned_list():
    """A presigned listing with its own parameters."""
    answer = send("GET", presigned("GET", f"/{one_object()}", more="list-type=2&prefix=k"))
    equal((answer.status, element(answer, "KeyCount")), (200, "1"))


def test_presigned_by_boto3():
    """What boto3 presigns is taken."""
    url = main.s3.generate_presigned_url("get_object", Params={"Bucket": one_object(), "Key": "key"}, ExpiresIn=60)
    equal(fetch("GET", url).data, b"body")


def test_presigned_part():
    """A presigned part with its two parameters."""
    bucket = new_bucket()
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    answer = send("PUT", presigned("PUT", f"/{bucket}/key", more=f"partNumber=1&uploadId={upload}"), body=b"part")
    equal(answer.status, 200, answer.data)
    assert answer.headers["etag"]


def test_presigned_response_headers():
    """response-content-type and response-content-disposition are obeyed when they are signed."""
    more = "response-content-disposition=attachment%3B%20filename%3Da.txt&response-content-type=text%2Fx-mine"
    answer = send("GET", presigned("GET", f"/{one_object()}/key", more=more))
    equal((answer.headers["content-disposition"], answer.headers["content-type"]), ("attachment; filename=a.txt", "text/x-mine"))


def test_anonymous_response_headers():
    """response-* parameters want a signature: the anonymous get 400 InvalidRequest."""
    bucket = one_object()
    set_policy(bucket, statement("Allow", "*", "s3:GetObject", arn(bucket, "*")))
    is_error(send("GET", f"/{bucket}/key?response-content-type=text%2Fhtml"), 400, "InvalidRequest")


def test_presigned_signed_header():
    """A header that was presigned must come, as it was."""
    bucket = new_bucket()
    target = presigned("PUT", f"/{bucket}/key", headers={"content-type": "text/x-mine"})
    equal(send("PUT", target, {"content-type": "text/x-mine"}, b"body").status, 200)
    is_error(send("PUT", target, {"content-type": "text/x-other"}, b"body"), 403, "SignatureDoesNotMatch")
    equal(send("PUT", target, {}, b"body").status, 403)


def test_presigned_unsigned_amz_header():
    """An x-amz- header beside a presigned URL that does not sign it: 403 AccessDenied."""
    target = presigned("PUT", f"/{new_bucket()}/key")
    answer = send("PUT", target, {"x-amz-tagging": "a=b"}, b"body")
    is_error(answer, 403, "AccessDenied", "There were headers present in the request which were not signed")


def test_presigned_expired():
    """After its time a presigned URL is 403 AccessDenied "Request has expired", with the times."""
    target = presigned("GET", f"/{one_object()}/key", "60", moment=ago(minutes=2))
    answer = send("GET", target)
    is_error(answer, 403, "AccessDenied", "Request has expired")
    equal(element(answer, "X-Amz-Expires"), "60")
    late = moment_in(answer, "ServerTime") - moment_in(answer, "Expires")
    assert timedelta(seconds=50) < late < timedelta(seconds=120), late


def test_presigned_old_and_valid():
    """A presigned URL is good for as long as it says, also days after it was made."""
    target = presigned("GET", f"/{one_object()}/key", str(7 * 86400), moment=ago(days=6))
    equal(send("GET", target).status, 200)


def test_presigned_of_the_future():
    """A presigned URL whose date is more than 15 minutes ahead: 403 AccessDenied "Request is not yet valid"."""
    target = presigned("GET", f"/{one_object()}/key", moment=ago(minutes=-20))
    is_error(send("GET", target), 403, "AccessDenied", "Request is not yet valid")


def bad_query(message=None, **parts):
    answer = send("GET", presigned("GET", f"/{one_object()}/key", **parts))
    is_error(answer, 400, "AuthorizationQueryParametersError", message)


def test_presigned_for_a_week():
    """X-Amz-Expires of 604800 is taken, a second more is 400 AuthorizationQueryParametersError."""
    equal(send("GET", presigned("GET", f"/{one_object()}/key", "604800")).status, 200)
    bad_query("X-Amz-Expires must be less than a week", seconds="604801")


def test_presigned_for_ages():
    """X-Amz-Expires of more digits than a number has: 400 AuthorizationQueryParametersError."""
    bad_query(seconds="9" * 40)


def test_presigned_negative():
    """A negative X-Amz-Expires: 400 AuthorizationQueryParametersError."""
    bad_query("X-Amz-Expires must be non-negative", seconds="-1")


def test_presigned_no_number():
    """An X-Amz-Expires that is no number: 400 AuthorizationQueryParametersError."""
    bad_query(seconds="")
    for seconds in ("soon", "1.5", "0x10"):
        bad_query("X-Amz-Expires should be a number", seconds=seconds)


def test_presigned_missing_parameters():
    """A presigned URL without one of its parameters: 400 AuthorizationQueryParametersError."""
    for name in ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"):
        bad_query("Query-string authentication version 4 requires", leave_out=[name])


def test_presigned_without_algorithm():
    """Without X-Amz-Algorithm it is no valid presigned URL: it is refused."""
    answer = send("GET", presigned("GET", f"/{one_object()}/key", leave_out=["X-Amz-Algorithm"]))
    assert (answer.status, code(answer)) in ((400, "AuthorizationQueryParametersError"), (403, "AccessDenied")), answer.data


def test_presigned_other_algorithm():
    """Another X-Amz-Algorithm: 400 AuthorizationQueryParametersError."""
    bad_query("X-Amz-Algorithm only supports", X_Amz_Algorithm="AWS4-HMAC-MD5")


def test_presigned_malformed_date():
    """An X-Amz-Date of another form: 400 AuthorizationQueryParametersError."""
    for date in ("yesterday", "2026-01-01T00:00:00Z", "20261301T000000Z"):
        bad_query("X-Amz-Date must be in the ISO8601 Long Format", X_Amz_Date=date)


def test_presigned_malformed_credential():
    """An X-Amz-Credential that is not of five words: 400 AuthorizationQueryParametersError."""
    for credential in (main.key, f"{main.key}/{stamp()[:8]}", f"{main.key}/today/{REGION}/s3/aws4_request"):
        bad_query(X_Amz_Credential=credential)


def test_presigned_other_service():
    """An X-Amz-Credential for another service or end: 400 AuthorizationQueryParametersError."""
    for scope in (f"{stamp()[:8]}/{REGION}/ec2/aws4_request", f"{stamp()[:8]}/{REGION}/s3/aws5_request"):
        bad_query(X_Amz_Credential=f"{main.key}/{scope}")


def test_presigned_date_of_scope():
    """An X-Amz-Credential whose day is not that of X-Amz-Date: 400 AuthorizationQueryParametersError."""
    bad_query(X_Amz_Credential=f"{main.key}/{stamp(ago(days=1))[:8]}/{REGION}/s3/aws4_request")


def test_presigned_unknown_key():
    """A presigned URL of a key that nobody has: 403 InvalidAccessKeyId."""
    credential = f"AKIAUNKNOWN000000000/{stamp()[:8]}/{REGION}/s3/aws4_request"
    is_error(send("GET", presigned("GET", f"/{one_object()}/key", X_Amz_Credential=credential)), 403, "InvalidAccessKeyId")


def test_presigned_tampered():
    """A presigned URL for another method, path, query or time: 403 SignatureDoesNotMatch."""
    bucket = one_object()
    put(bucket, "other")
    target = presigned("GET", f"/{bucket}/key", more="response-content-type=text%2Fx-a")
    equal(send("GET", target).status, 200)
    is_error(send("DELETE", target), 403, "SignatureDoesNotMatch")
    is_error(send("GET", target.replace("/key?", "/other?")), 403, "SignatureDoesNotMatch")
    is_error(send("GET", target.replace("x-a&", "x-b&")), 403, "SignatureDoesNotMatch")
    is_error(send("GET", target.replace("Expires=300", "Expires=3000")), 403, "SignatureDoesNotMatch")
    is_error(send("GET", target + "&tagging"), 403, "SignatureDoesNotMatch")
    is_error(send("GET", target.replace("response-content-type=text%2Fx-a&", "")), 403, "SignatureDoesNotMatch")


def test_presigned_other_host():
    """A URL that was presigned for another host: 403 SignatureDoesNotMatch."""
    is_error(send("GET", presigned("GET", f"/{one_object()}/key", host="elsewhere.example")), 403, "SignatureDoesNotMatch")


def test_presigned_fields():
    """SignatureDoesNotMatch of a presigned URL tells the key and what was provided."""
    target = presigned("GET", f"/{one_object()}/key")
    answer = send("GET", target[:-4] + "0000")
    is_error(answer, 403, "SignatureDoesNotMatch")
    equal((element(answer, "AWSAccessKeyId"), element(answer, "SignatureProvided")), (main.key, target.rpartition("=")[2][:-4] + "0000"))


def test_presigned_by_others():
    """A presigned URL may do what who presigned it may, and no more."""
    bucket = one_object()
    is_error(send("GET", presigned("GET", f"/{bucket}/key", who=alt)), 403, "AccessDenied")
    set_policy(bucket, statement("Allow", alt.arn, "s3:GetObject", arn(bucket, "*")))
    equal(send("GET", presigned("GET", f"/{bucket}/key", who=alt)).data, b"body")
    is_error(send("PUT", presigned("PUT", f"/{bucket}/key", who=alt), body=b"x"), 403, "AccessDenied")


def test_header_and_query():
    """A presigned URL and an Authorization header at once: 400 InvalidArgument."""
    target = presigned("GET", f"/{one_object()}/key")
    answer = send("GET", target, by_hand("GET", target))
    is_error(answer, 400, "InvalidArgument", "Only one auth mechanism allowed")
    equal(element(answer, "ArgumentName"), "Authorization")


def test_presigned_order():
    """The order of the parameters does not matter."""
    path, _, query = presigned("GET", f"/{one_object()}/key").partition("?")
    equal(send("GET", path + "?" + "&".join(reversed(query.split("&")))).status, 200)


# --- paths


def same_key(key, *spellings):
    """All spellings of the path are of one object."""
    bucket = new_bucket()
    for spelling in spellings:
        body = spelling.encode()
        equal(call("PUT", f"/{bucket}/{spelling}", body).status, 200, spelling)
        equal([one["Key"] for one in main.s3.list_objects_v2(Bucket=bucket)["Contents"]], [key], spelling)
        for other in spellings:
            equal(call("GET", f"/{bucket}/{other}").data, body, other)


def test_path_percent():
    """Letters may be percent-encoded, in small or large hexadecimal digits."""
    same_key("key/ö", "key/%C3%B6", "key/%c3%b6", "%6bey/%C3%B6", "%6B%65%79/%c3%B6")


def test_path_slash():
    """%2F is a slash."""
    same_key("a/b", "a/b", "a%2Fb", "a%2fb")


def test_path_plus():
    """A plus sign in a path is a plus sign."""
    same_key("a+b", "a+b", "a%2Bb")
    same_key("a b", "a%20b")


def test_path_reserved():
    """The reserved characters may stand in a path as they are."""
    same_key("!$&'()*,;:=@", "!$&'()*,;:=@", "%21%24%26%27%28%29%2A%2C%3B%3A%3D%40")


def test_path_question():
    """Encoded question marks, number signs and percent signs belong to the key."""
    same_key("a?b#c%20", "a%3Fb%23c%2520")


def test_path_slashes():
    """Slashes that are doubled, leading or trailing are parts of the key."""
    bucket = new_bucket()
    keys = ["a/b", "a//b", "/a/b", "//a/b", "a/b/", "a/b//"]
    for key in keys:
        equal(call("PUT", f"/{bucket}/{key}", key.encode()).status, 200, key)
    equal({one["Key"] for one in main.s3.list_objects_v2(Bucket=bucket)["Contents"]}, set(keys))
    for key in keys:
        equal(call("GET", f"/{bucket}/{key}").data, key.encode())


def test_path_dots():
    """Dots in a path are parts of the key, not directories."""
    bucket = new_bucket()
    keys = ["a/./b", "a/../b", "a/..", "...", "a/b"]
    for key in keys:
        equal(call("PUT", f"/{bucket}/{key}", key.encode()).status, 200, key)
    for key in keys:
        equal(call("GET", f"/{bucket}/{key}").data, key.encode())
    equal({one["Key"] for one in main.s3.list_objects_v2(Bucket=bucket)["Contents"]}, set(keys))


def test_path_trailing_slash_of_a_bucket():
    """A bucket's path may end in a slash."""
    bucket = one_object()
    for target in (f"/{bucket}", f"/{bucket}/", f"/{bucket}/?list-type=2", f"/{bucket}?list-type=2"):
        answer = call("GET", target)
        equal((answer.status, element(answer, "Key")), (200, "key"), target)


def test_path_not_utf8():
    """A path that is not UTF-8 once it is decoded: 400 InvalidURI."""
    target = f"/{new_bucket()}/%ff%fe"
    headers = by_hand("PUT", target)
    is_error(send("PUT", target, headers), 400, "InvalidURI", "Couldn't parse the specified URI.")


def test_path_bad_percent():
    """A percent sign without two hexadecimal digits: 400 InvalidURI."""
    bucket = new_bucket()
    for key in ("%zz", "a%", "a%2"):
        target = f"/{bucket}/{key}"
        is_error(send("PUT", target, by_hand("PUT", target)), 400, "InvalidURI")


def test_key_too_long():
    """A key of 1,024 bytes is taken, one more is 400 KeyTooLongError. Bytes, not characters."""
    bucket = new_bucket()
    equal(call("PUT", f"/{bucket}/{'k' * 1024}").status, 200)
    equal(call("PUT", f"/{bucket}/{'%C3%A9' * 512}").status, 200)
    answer = call("PUT", f"/{bucket}/{'k' * 1025}")
    is_error(answer, 400, "KeyTooLongError", "Your key is too long")
    equal((element(answer, "Size"), element(answer, "MaxSizeAllowed")), ("1025", "1024"))
    is_error(call("PUT", f"/{bucket}/{'%C3%A9' * 513}"), 400, "KeyTooLongError")


def test_bucket_names():
    """A bucket with a name that none may have: 400 InvalidBucketName, with the name."""
    for name in ("ab", "a" * 64, "Capital-letters", "under_score", "-hyphen", "hyphen-", "two..dots", "192.168.1.1", "xn--name"):
        answer = call("PUT", f"/{name}")
        is_error(answer, 400, "InvalidBucketName", "The specified bucket is not valid.")
        equal(element(answer, "BucketName"), name)


# --- queries


def listed(bucket, query):
    answer = call("GET", f"/{bucket}?list-type=2&{query}")
    equal(answer.status, 200, answer.data)
    return element(answer, "KeyCount")


def test_query_encodings():
    """A parameter's value may be encoded in any way that means the same."""
    bucket = one_object("a b/ö+")
    for query in ("prefix=a%20b%2F%C3%B6%2B", "prefix=a%20b/%c3%b6%2b", "prefix=%61%20b%2F"):
        equal(listed(bucket, query), "1", query)
    equal(listed(bucket, "prefix=a%2Bb"), "0")


def test_query_equals():
    """A value may have equal signs in it."""
    bucket = one_object("a=b=c")
    equal(listed(bucket, "prefix=a%3Db%3Dc"), "1")
    equal(listed(bucket, "prefix=a%3Dc"), "0")


def test_query_empty_parts():
    """Empty parts between ampersands are nothing."""
    bucket = one_object()
    equal(call("GET", f"/{bucket}?&list-type=2&&prefix=k&").status, 200)


def test_query_question():
    """A second question mark belongs to the value."""
    bucket = one_object("a?b")
    equal(listed(bucket, "prefix=a%3Fb"), "1")


def test_query_not_signed():
    """A parameter that was added after the signature: 403 SignatureDoesNotMatch."""
    bucket = one_object()
    target = f"/{bucket}?list-type=2"
    is_error(send("GET", target + "&prefix=k", by_hand("GET", target)), 403, "SignatureDoesNotMatch")


def test_query_order():
    """Parameters are sorted for the signature: as sent they may stand in any order, also of small and large letters."""
    bucket = one_object()
    equal(call("GET", f"/{bucket}?prefix=k&list-type=2&Zebra=1&apple=2&max-keys=5").status, 200)


def test_unknown_parameter():
    """An unknown parameter is ignored."""
    bucket = one_object()
    equal(call("GET", f"/{bucket}/key?nonsense=1").data, b"body")
    equal(element(call("GET", f"/{bucket}?nonsense"), "Key"), "key")


def test_sub_resource_with_value():
    """A sub-resource may have an equal sign and nothing after it."""
    bucket = one_object()
    equal(call("GET", f"/{bucket}?location=").status, 200)
    assert "<Tagging" in call("GET", f"/{bucket}/key?tagging=").data.decode()


def test_bad_numbers():
    """Numbers that are none, or are out of range: 400 InvalidArgument."""
    bucket = one_object()
    for query in ("max-keys=x", "max-keys=-1", "list-type=2&max-keys=x", "uploads&max-uploads=-1"):
        is_error(call("GET", f"/{bucket}?{query}"), 400, "InvalidArgument")
    for number in ("0", "10001", "x", "-1"):
        is_error(call("PUT", f"/{bucket}/key?partNumber={number}&uploadId=x", b"x"), 400, "InvalidArgument")


# --- methods


def test_method_not_allowed():
    """A method that an object, a bucket or the service has not: 405 MethodNotAllowed with Allow, the method and the kind of resource."""
    bucket = one_object()
    for method, target, kind in (("PATCH", f"/{bucket}/key", "OBJECT"), ("FOO", f"/{bucket}", "BUCKET"), ("DELETE", "/", "SERVICE")):
        answer = call(method, target)
        is_error(answer, 405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
        equal((element(answer, "Method"), element(answer, "ResourceType")), (method, kind))
        allowed = {word.strip() for word in answer.headers["allow"].split(",")}
        assert "GET" in allowed and method not in allowed, answer.headers


def test_method_of_sub_resources():
    """A sub-resource has methods of its own: 405 with those."""
    bucket = one_object()
    for method, target, allowed in (
        ("POST", f"/{bucket}/key?tagging", {"GET", "PUT", "DELETE"}),
        ("DELETE", f"/{bucket}?location", {"GET"}),
        ("GET", f"/{bucket}?delete", {"POST"}),
        ("GET", f"/{bucket}/key?uploads", {"POST"}),
    ):
        answer = call(method, target)
        is_error(answer, 405, "MethodNotAllowed")
        equal({word.strip() for word in answer.headers["allow"].split(",")}, allowed, target)


def test_post_to_an_object():
    """POST to an object without a sub-resource: 405 MethodNotAllowed."""
    is_error(call("POST", f"/{one_object()}/key", b"x"), 405, "MethodNotAllowed")


def test_method_in_small_letters():
    """Methods are case-sensitive: "get" is no GET."""
    answer = call("get", f"/{one_object()}/key")
    assert answer.status in (400, 405, 501), answer.status


# --- what every answer has


def test_error_document():
    """An error is XML with Code, Message, Resource, RequestId and HostId; the ids are those of the headers."""
    bucket = new_bucket()
    answer = call("GET", f"/{bucket}/none")
    is_error(answer, 404, "NoSuchKey", "The specified key does not exist.")
    equal((element(answer, "Key"), element(answer, "Resource")), ("none", f"/{bucket}/none"))
    equal(element(answer, "RequestId"), answer.headers["x-amz-request-id"])
    equal(element(answer, "HostId"), answer.headers["x-amz-id-2"])
    equal(answer.headers["content-type"], "application/xml")
    assert answer.data.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n<Error>'), answer.data


def test_error_of_a_bucket():
    """NoSuchBucket names the bucket."""
    name = new_name()
    answer = call("GET", f"/{name}/key")
    is_error(answer, 404, "NoSuchBucket", "The specified bucket does not exist")
    equal(element(answer, "BucketName"), name)


def test_error_escapes():
    """What an error repeats of the request is escaped."""
    answer = call("GET", f"/{new_bucket()}/%3Ca%3E%26%22b")
    is_error(answer, 404, "NoSuchKey")
    equal(ElementTree.fromstring(answer.data).findtext("Key"), '<a>&"b')


def test_ids():
    """Every answer has x-amz-request-id, x-amz-id-2, Date and Server; request ids differ."""
    bucket = new_bucket()
    seen = []
    for method, target, wanted in (
        ("PUT", f"/{bucket}/key", 200), ("GET", f"/{bucket}/key", 200), ("HEAD", f"/{bucket}/key", 200), ("DELETE", f"/{bucket}/key", 204),
        ("GET", f"/{bucket}/none", 404), ("HEAD", f"/{bucket}/none", 404), ("PATCH", f"/{bucket}", 405), ("GET", "/", 200),
    ):
        answer = call(method, target)
        equal(answer.status, wanted, (method, target))
        for name in ("x-amz-request-id", "x-amz-id-2", "date", "server"):
            assert answer.headers.get(name), (method, target, name, dict(answer.headers))
        age = datetime.now(timezone.utc) - parsedate_to_datetime(answer.headers["date"])
        assert abs(age) < timedelta(minutes=2), age
        seen.append(answer.headers["x-amz-request-id"])
    equal(len(set(seen)), len(seen))


def test_head_errors():
    """Errors of HEAD have no body: of a missing object or bucket, of a wrong signature, of a stranger."""
    bucket = new_bucket()
    equal(send("HEAD", f"/{bucket}/none").status, 403)
    for target, parts, wanted in (
        (f"/{bucket}/none", {}, 404), (f"/{new_name()}", {}, 404),
        (f"/{bucket}", {"secret": "wrong"}, 403), (f"/{bucket}", {"who": alt}, 403),
        (f"/{bucket}/none", {"key": "AKIAUNKNOWN000000000"}, 403),
    ):
        answer = call("HEAD", target, **parts)
        equal((answer.status, answer.data), (wanted, b""), target)
        assert answer.headers["x-amz-request-id"]


def test_no_content_has_no_body():
    """A 204 has neither a body nor a Content-Type."""
    answer = call("DELETE", f"/{one_object()}/key")
    equal((answer.status, answer.data, answer.headers.get("content-type")), (204, b"", None))


# --- bodies


def test_no_content_length():
    """A PUT of an object without Content-Length: 411 MissingContentLength."""
    target = f"/{new_bucket()}/key"
    answer = send("PUT", target, by_hand("PUT", target), length=False)
    is_error(answer, 411, "MissingContentLength", "You must provide the Content-Length HTTP header.")


def test_no_content_length_of_a_part():
    """A part without Content-Length: 411 MissingContentLength."""
    bucket = new_bucket()
    upload = main.s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    target = f"/{bucket}/key?partNumber=1&uploadId={upload}"
    is_error(send("PUT", target, by_hand("PUT", target), length=False), 411, "MissingContentLength")


def test_no_content_length_where_none_is_needed():
    """GET, HEAD, DELETE and a copy need no Content-Length."""
    bucket = one_object()
    for method in ("GET", "HEAD", "DELETE"):
        target = f"/{bucket}/key"
        assert send(method, target, by_hand(method, target), length=False).status in (200, 204), method


def test_too_large():
    """A PUT of more than 5 GiB is refused by its Content-Length: 400 EntityTooLarge, before any body is sent."""
    target = f"/{new_bucket()}/key"
    headers = by_hand("PUT", target, content="UNSIGNED-PAYLOAD")
    answer = send("PUT", target, {**headers, "content-length": str((5 << 30) + 1)})
    is_error(answer, 400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed")


def test_expect():
    """With Expect: 100-continue a refusal comes at once, without the body."""
    target = f"/{new_bucket()}/key"
    headers = by_hand("PUT", target, content="UNSIGNED-PAYLOAD", secret="wrong")
    is_error(send("PUT", target, {**headers, "expect": "100-continue", "content-length": "100000"}), 403, "SignatureDoesNotMatch")


def test_expect_that_is_met():
    """With Expect: 100-continue a PUT that is right is taken."""
    bucket = new_bucket()
    target = f"/{bucket}/key"
    equal(send("PUT", target, {**by_hand("PUT", target, b"body"), "expect": "100-continue"}, b"body").status, 200)
    equal(read(main, bucket, "key"), b"body")


def test_metadata_too_large():
    """User metadata of more than 2 KB: 400 MetadataTooLarge."""
    bucket = new_bucket()
    equal(call("PUT", f"/{bucket}/key", headers={"x-amz-meta-a": "x" * 2000}).status, 200)
    answer = call("PUT", f"/{bucket}/key", headers={"x-amz-meta-a": "x" * 2100})
    is_error(answer, 400, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
