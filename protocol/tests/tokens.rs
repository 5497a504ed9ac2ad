//! Attacks on tokens, one row each: what is presented, and as what it is refused.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use portway_protocol::key::{PublicKey, SigningKey};
use portway_protocol::limits::MAX_TOKEN;
use portway_protocol::reason::Reason;
use portway_protocol::secret::Secret;
use portway_protocol::token::machine::MachineClaims;
use portway_protocol::token::user::UserClaims;
use portway_protocol::token::{TokenError, TrustedKeys};
use serde_json::{Value, json};

/// Time of every check, seconds since 1970.
const NOW: u64 = 1500;

/// As what a token is presented.
#[derive(Debug, Clone, Copy)]
enum As {
    Machine,
    User,
}

struct Row {
    name: String,
    token: String,
    presented: As,
    refused: &'static str,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([seed; 32]))
}

/// Key of the cluster, and another one that is trusted as well.
fn trusted() -> [SigningKey; 2] {
    [key(1), key(4)]
}

fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "JWT", "kid": key(1).public().id().as_str()})
}

fn claims(kind: As) -> Value {
    let cnf = json!({"ed25519": key(2).public()});
    match kind {
        As::Machine => json!({
            "iss": "home", "aud": "home", "sub": "nas", "node_id": "nas", "cluster_id": "home",
            "iat": 1000, "exp": 2000, "jti": "1", "cnf": cnf,
        }),
        As::User => json!({
            "iss": "home", "aud": ["lab"], "sub": "ann", "services": [{"name": "lab", "methods": ["GET"]}],
            "iat": 1000, "exp": 2000, "jti": "AQEBAQEBAQEB", "cnf": cnf,
        }),
    }
}

/// The same with one member changed.
fn with(mut object: Value, member: &str, value: Value) -> Value {
    object[member] = value;
    object
}

fn without(mut object: Value, member: &str) -> Value {
    object.as_object_mut().unwrap().remove(member).unwrap();
    object
}

/// The text of an object with a member twice: ours, and this.
fn twice(object: &Value, member: &str, value: &Value) -> String {
    let text = object.to_string();
    format!("{},\"{member}\":{value}}}", text.strip_suffix('}').unwrap())
}

fn encode(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// The signing input of two texts.
fn input(header: impl ToString, claims: impl ToString) -> String {
    format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    )
}

/// Signed by the cluster key, whatever it says.
fn sign(input: &str) -> String {
    format!(
        "{input}.{}",
        encode(key(1).sign(input.as_bytes()).as_bytes())
    )
}

fn signed(header: impl ToString, claims: impl ToString) -> String {
    sign(&input(header, claims))
}

fn hmac(input: &str, secret: &[u8]) -> String {
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let tag = ring::hmac::sign(&secret, input.as_bytes());
    format!("{input}.{}", encode(tag))
}

#[allow(clippy::unwrap_in_result, reason = "names in tests are valid")]
fn verify(token: &str, presented: As) -> Result<(), TokenError> {
    let keys = TrustedKeys::new(trusted().iter().map(SigningKey::public));
    let cluster = "home".parse().unwrap();
    match presented {
        As::Machine => MachineClaims::verify(token, &cluster, &keys, NOW).map(drop),
        As::User => {
            UserClaims::verify(token, &cluster, &"lab".parse().unwrap(), &keys, NOW).map(drop)
        }
    }
}

/// Short name of an error, for the table.
fn name(error: &TokenError) -> String {
    match error {
        TokenError::TooLong => "too long".into(),
        TokenError::Malformed(what) => format!("malformed {what}"),
        TokenError::UnknownKey => "unknown key".into(),
        TokenError::BadSignature => "bad signature".into(),
        TokenError::Expired { .. } => "expired".into(),
        TokenError::FromTheFuture { .. } => "from the future".into(),
        TokenError::WrongParty { claim, .. } => format!("wrong {claim}"),
    }
}

fn row(name: impl ToString, token: String, refused: &'static str) -> Row {
    Row {
        name: name.to_string(),
        token,
        presented: As::User,
        refused,
    }
}

/// What the header says steers nothing.
fn headers() -> Vec<Row> {
    let user = claims(As::User);
    let mut rows = Vec::new();
    for alg in [
        "none", "None", "NONE", "nOnE", "", " EdDSA", "eddsa", "EDDSA", "Ed25519", "HS256",
        "HS512", "RS256", "PS256", "ES256", "ES256K", "RSA1_5", "dir",
    ] {
        let token = signed(with(header(), "alg", json!(alg)), &user);
        rows.push(row(
            format!("alg {alg:?}, signed"),
            token,
            "malformed header",
        ));
    }
    let none = input(with(header(), "alg", json!("none")), &user);
    let (public, text) = (key(1).public(), key(1).public().to_string());
    let hs256 = input(with(header(), "alg", json!("HS256")), &user);
    let rs256 = input(with(header(), "alg", json!("RS256")), &user);
    let eddsa = input(header(), &user);
    rows.extend([
        row(
            "alg none, no signature",
            format!("{none}."),
            "malformed header",
        ),
        row(
            "alg none, two parts",
            none,
            "malformed three parts expected",
        ),
        row(
            "HS256 with the public key's bytes as secret",
            hmac(&hs256, public.as_bytes()),
            "malformed header",
        ),
        row(
            "HS256 with the public key's text as secret",
            hmac(&hs256, text.as_bytes()),
            "malformed header",
        ),
        row(
            "RS256 with an HMAC by the public key",
            hmac(&rs256, public.as_bytes()),
            "malformed header",
        ),
        row(
            "EdDSA with an HMAC by the public key",
            hmac(&eddsa, public.as_bytes()),
            "malformed signature encoding",
        ),
    ]);
    for (what, kid, refused) in [
        ("a path", "../../../../dev/null", "unknown key"),
        ("SQL", "x' UNION SELECT 'key' --", "unknown key"),
        ("a command", "key|id", "unknown key"),
        ("a URL", "http://127.0.0.1/key", "unknown key"),
        ("a NUL", "\0", "unknown key"),
        ("empty", "", "unknown key"),
        ("long", &"k".repeat(2048), "unknown key"),
        (
            "cut short",
            &key(1).public().id().as_str()[..11],
            "unknown key",
        ),
        ("the whole key", &text, "unknown key"),
        (
            "of a key that is not trusted",
            key(9).public().id().as_str(),
            "unknown key",
        ),
        (
            "of another trusted key",
            key(4).public().id().as_str(),
            "bad signature",
        ),
    ] {
        let token = signed(with(header(), "kid", json!(kid)), &user);
        rows.push(row(format!("kid: {what}"), token, refused));
    }
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": key(9).public()});
    for (member, value) in [
        ("jku", json!("http://127.0.0.1/keys")),
        ("x5u", json!("http://127.0.0.1/chain")),
        ("jwk", jwk),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("cty", json!("JWT")),
        ("iss", json!("home")),
        ("unknown", json!(1)),
    ] {
        let token = signed(with(header(), member, value.clone()), &user);
        rows.push(row(
            format!("header with {member} {value}"),
            token,
            "malformed header",
        ));
    }
    for member in ["alg", "typ", "kid"] {
        let token = signed(without(header(), member), &user);
        rows.push(row(
            format!("header without {member}"),
            token,
            "malformed header",
        ));
        let same = twice(&header(), member, &header()[member]);
        rows.push(row(
            format!("header with {member} twice"),
            signed(same, &user),
            "malformed header",
        ));
        for value in [
            json!(["EdDSA"]),
            json!({}),
            json!(1),
            json!(null),
            json!(true),
        ] {
            let token = signed(with(header(), member, value.clone()), &user);
            rows.push(row(
                format!("header with {member} {value}"),
                token,
                "malformed header",
            ));
        }
    }
    for (what, text) in [
        ("typ jwt", with(header(), "typ", json!("jwt")).to_string()),
        ("typ JOSE", with(header(), "typ", json!("JOSE")).to_string()),
        (
            "header is an array of its values",
            json!([header()["alg"], "JWT", header()["kid"]]).to_string(),
        ),
        ("header is empty", String::new()),
        ("header is null", "null".into()),
        ("header is a text", "\"EdDSA\"".into()),
        ("header is followed by another", format!("{0}{0}", header())),
        (
            "header is cut short",
            header().to_string().trim_end_matches('}').into(),
        ),
    ] {
        rows.push(row(what, signed(text, &user), "malformed header"));
    }
    rows
}

/// Every claim is there once, and of its own type.
fn claim_types(kind: As) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: String, claims: String| {
        rows.push(Row {
            name: format!("{kind:?}: {name}"),
            token: signed(header(), claims),
            presented: kind,
            refused: "malformed claims",
        });
    };
    let good = claims(kind);
    for (claim, value) in good.as_object().unwrap() {
        add(
            format!("without {claim}"),
            without(good.clone(), claim).to_string(),
        );
        add(format!("{claim} twice"), twice(&good, claim, value));
        let others = [
            json!("x y"),
            json!(1.5),
            json!(-1),
            json!(["x y"]),
            json!([]),
            json!([[]]),
            json!({"a": 1}),
            json!({}),
            json!(null),
            json!(true),
        ];
        for other in others {
            // Some claims are any text; a list may be empty (and then allows nothing).
            let is_text = other.is_string() && value.is_string() && !is_name(kind, claim);
            let is_list = other == json!([]) && value.is_array();
            if !is_text && !is_list {
                add(
                    format!("{claim} {other}"),
                    with(good.clone(), claim, other).to_string(),
                );
            }
        }
    }
    for time in ["iat", "exp"] {
        for text in ["\"1000\"", "1e3", "18446744073709551616", "[1000]"] {
            let claims = good.to_string().replace(
                &format!("\"{time}\":{}", good[time]),
                &format!("\"{time}\":{text}"),
            );
            add(format!("{time} {text}"), claims);
        }
    }
    let cnf = [
        json!({"ed25519": key(2).public(), "jkt": "x"}),
        json!({"kid": "x"}),
        json!([key(2).public()]),
        json!({"ed25519": encode([0; 32])}),
        json!({"ed25519": encode([1; 31])}),
    ];
    for cnf in cnf {
        add(
            format!("cnf {cnf}"),
            with(good.clone(), "cnf", cnf).to_string(),
        );
    }
    add(
        "an unknown claim".into(),
        with(good.clone(), "admin", json!(true)).to_string(),
    );
    add(
        "nbf".into(),
        with(good.clone(), "nbf", json!(1000)).to_string(),
    );
    let values: Vec<&Value> = good.as_object().unwrap().values().collect();
    add("an array of their values".into(), json!(values).to_string());
    add("no object".into(), "1".into());
    add("empty".into(), String::new());
    add("two objects".into(), format!("{good}{good}"));
    rows
}

/// Whether a claim of text must be a name.
fn is_name(kind: As, claim: &str) -> bool {
    match kind {
        As::Machine => claim != "jti",
        As::User => claim != "sub",
    }
}

/// Struct claims do not pass as arrays of their values; nor does `null` as "absent".
fn permissions() -> Vec<Row> {
    [
        json!([["lab", ["GET"], null]]),
        json!([{"name": "lab", "methods": null}]),
        json!([{"name": "lab", "methods": "GET"}]),
        json!([{"name": "lab", "methods": [1]}]),
        json!([{"name": "lab", "paths": {}}]),
        json!([{"name": "lab", "role": "admin"}]),
        json!([{"name": "../lab"}]),
        json!(["lab"]),
    ]
    .map(|services| {
        let token = signed(
            header(),
            with(claims(As::User), "services", services.clone()),
        );
        row(format!("services {services}"), token, "malformed claims")
    })
    .into()
}

/// A token is for one cluster, one service, one time and one purpose.
fn parties_and_times() -> Vec<Row> {
    let rows = [
        (As::Machine, "iss", json!("office"), "wrong iss"),
        (As::Machine, "aud", json!("office"), "wrong aud"),
        (
            As::Machine,
            "cluster_id",
            json!("office"),
            "wrong cluster_id",
        ),
        (As::Machine, "sub", json!("pi"), "wrong sub"),
        (As::Machine, "node_id", json!("pi"), "wrong sub"),
        (As::Machine, "exp", json!(NOW - 30), "expired"),
        (As::Machine, "exp", json!(0), "expired"),
        (As::Machine, "iat", json!(NOW + 31), "from the future"),
        (As::Machine, "iat", json!(u64::MAX), "from the future"),
        (As::User, "iss", json!("office"), "wrong iss"),
        (As::User, "aud", json!(["nas"]), "wrong aud"),
        (As::User, "aud", json!([]), "wrong aud"),
        (As::User, "exp", json!(NOW - 30), "expired"),
        (As::User, "exp", json!(0), "expired"),
        (As::User, "iat", json!(NOW + 31), "from the future"),
        (As::User, "iat", json!(u64::MAX), "from the future"),
    ];
    let changed = rows.map(|(kind, claim, value, refused)| Row {
        name: format!("{kind:?}: {claim} {value}"),
        token: signed(header(), with(claims(kind), claim, value)),
        presented: kind,
        refused,
    });
    let swapped = [(As::Machine, As::User), (As::User, As::Machine)].map(|(is, as_)| Row {
        name: format!("{is:?} as {as_:?}"),
        token: signed(header(), claims(is)),
        presented: as_,
        refused: "malformed claims",
    });
    changed.into_iter().chain(swapped).collect()
}

/// One encoding, one signature, nothing around it.
fn encodings_and_signatures() -> Vec<Row> {
    let good = signed(header(), claims(As::User));
    let (input, signature) = good.rsplit_once('.').unwrap();
    let (head, body) = input.split_once('.').unwrap();
    let bytes: [u8; 64] = URL_SAFE_NO_PAD
        .decode(signature)
        .unwrap()
        .try_into()
        .unwrap();
    let other = |bytes: &[u8]| format!("{input}.{}", encode(bytes));
    let by = |key: &SigningKey| other(key.sign(input.as_bytes()).as_bytes());
    let cnf = by(&key(2));
    let padded = URL_SAFE.encode(claims(As::User).to_string() + " ");
    assert!(padded.ends_with('='), "this row needs padding");
    let long = with(claims(As::User), "sub", json!("a".repeat(MAX_TOKEN)));
    let mut one_bit = bytes;
    one_bit[63] ^= 1;
    let mut halves = bytes;
    halves.rotate_left(32);
    vec![
        row("nothing", String::new(), "malformed three parts expected"),
        row("one part", head.into(), "malformed three parts expected"),
        row("two parts", input.into(), "malformed three parts expected"),
        row("dots alone", "..".into(), "malformed header"),
        row("a dot before", format!(".{good}"), "malformed header"),
        row(
            "a dot after",
            format!("{good}."),
            "malformed signature encoding",
        ),
        row(
            "a part more",
            format!("{good}.{signature}"),
            "bad signature",
        ),
        row(
            "an empty part between",
            format!("{head}..{body}.{signature}"),
            "bad signature",
        ),
        row(
            "a part more, signed",
            sign(&format!("{input}.e30")),
            "malformed claims",
        ),
        row("a space before", format!(" {good}"), "malformed header"),
        row(
            "a line's end after",
            format!("{good}\n"),
            "malformed signature encoding",
        ),
        row(
            "a space within",
            format!("{head}. {body}.{signature}"),
            "bad signature",
        ),
        row(
            "a NUL after",
            format!("{good}\0"),
            "malformed signature encoding",
        ),
        row(
            "bytes after the signature",
            other(&[&bytes[..], &[0]].concat()),
            "malformed signature encoding",
        ),
        row(
            "padding of the signature",
            format!("{good}=="),
            "malformed signature encoding",
        ),
        row(
            "padding of the header",
            sign(&format!("{head}=.{body}")),
            "malformed header",
        ),
        row(
            "padding of the claims",
            sign(&format!("{head}.{padded}")),
            "malformed claims",
        ),
        row(
            "the other alphabet",
            sign(&format!("{head}.{}", STANDARD_NO_PAD.encode("\"???>>>\""))),
            "malformed claims",
        ),
        row(
            "bits that belong to no byte",
            non_canonical(&good),
            "malformed signature encoding",
        ),
        row(
            "claims that are no UTF-8",
            sign(&format!("{head}.{}", encode([0xff, 0xfe]))),
            "malformed claims",
        ),
        row("longer than 4 KiB", signed(header(), long), "too long"),
        row(
            "4 KiB and a byte of nothing",
            ".".repeat(MAX_TOKEN + 1),
            "too long",
        ),
        row(
            "no signature",
            format!("{input}."),
            "malformed signature encoding",
        ),
        row("a zero signature", other(&[0; 64]), "bad signature"),
        row(
            "a short zero signature",
            other(&[0; 63]),
            "malformed signature encoding",
        ),
        row(
            "R is the neutral point, S is zero",
            other(&neutral()),
            "bad signature",
        ),
        row(
            "S plus the order of the group",
            other(&malleated(bytes)),
            "bad signature",
        ),
        row("one bit of S", other(&one_bit), "bad signature"),
        row("R and S exchanged", other(&halves), "bad signature"),
        row(
            "signed by another trusted key",
            by(&key(4)),
            "bad signature",
        ),
        row("signed by the key of cnf", cnf, "bad signature"),
        row(
            "the signature of another token",
            format!(
                "{input}.{}",
                signed(header(), claims(As::Machine))
                    .rsplit_once('.')
                    .unwrap()
                    .1
            ),
            "bad signature",
        ),
    ]
}

/// The last character of a signature carries four bits that decode to nothing.
fn non_canonical(token: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = token.split_at(token.len() - 1);
    let value = ALPHABET
        .iter()
        .position(|c| [*c] == last.as_bytes())
        .unwrap();
    assert_eq!(value % 16, 0, "the canonical form leaves them zero");
    format!("{rest}{}", char::from(ALPHABET[value + 1]))
}

/// A signature of any message under a small-order key, where those are let in.
fn neutral() -> [u8; 64] {
    let mut signature = [0; 64];
    signature[0] = 1;
    signature
}

/// The same signature with S + L (RFC 8032 §5.1: L = 2^252 + 27742317777372353535851937790883648493).
fn malleated(mut signature: [u8; 64]) -> [u8; 64] {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (s, l) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*s) + u16::from(l) + carry;
        *s = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    signature
}

fn rows() -> Vec<Row> {
    [
        headers(),
        claim_types(As::Machine),
        claim_types(As::User),
        permissions(),
        parties_and_times(),
        encodings_and_signatures(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn a_good_token_is_accepted() {
    for kind in [As::Machine, As::User] {
        assert_eq!(verify(&signed(header(), claims(kind)), kind), Ok(()));
    }
}

#[test]
fn every_attack_is_refused_for_its_own_reason() {
    let rows = rows();
    assert!(rows.len() > 200, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        match verify(&row.token, row.presented) {
            Ok(()) => wrong.push(format!("{}: ACCEPTED", row.name)),
            Err(error) => {
                if name(&error) != row.refused {
                    wrong.push(format!(
                        "{}: {} (expected {})",
                        row.name,
                        name(&error),
                        row.refused
                    ));
                }
                let expired = row.refused == "expired";
                let reason = if expired {
                    Reason::TokenExpired
                } else {
                    Reason::TokenInvalid
                };
                assert_eq!(error.reason(), reason, "{}", row.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The examples of the specifications: good signatures, and none of them a token of ours.
#[test]
fn tokens_of_other_kinds_are_refused() {
    // RFC 8037 appendix A.4: Ed25519, and its signature is good.
    let ed25519 = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let key: PublicKey = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        .parse()
        .unwrap();
    let (input, signature) = ed25519.rsplit_once('.').unwrap();
    let signature = serde_json::from_value(json!(signature)).unwrap();
    assert_eq!(key.verify(input.as_bytes(), &signature), Ok(()));
    // RFC 7515 appendices A.1 (HS256) and A.5 (none).
    let hs256 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let none = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";
    let keys = TrustedKeys::new([key]);
    let cluster = "home".parse().unwrap();
    for token in [ed25519, hs256, none] {
        assert_eq!(
            MachineClaims::verify(token, &cluster, &keys, NOW),
            Err(TokenError::Malformed("header"))
        );
    }
}
