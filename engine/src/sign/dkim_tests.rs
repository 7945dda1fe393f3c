use super::*;
use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};

const MESSAGE: &str = "Received: x\r\nFrom: A <a@news.example.com>\r\nTo: b@example.net\r\nSubject: Hello\r\n  there\r\nX-Own: y\r\nsubject: again\r\n\r\nBody  with blanks \r\n\r\n";

fn rsa() -> (SigningKey, Vec<u8>) {
    use aws_lc_rs::signature::KeyPair as _;
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der = pair.as_der().unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
    (SigningKey::from_pem(pem.as_bytes()).unwrap(), pair.public_key().as_ref().to_vec())
}

fn ed25519() -> SigningKey {
    let der = mail_auth::common::crypto::Ed25519Key::generate_pkcs8().unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
    SigningKey::from_pem(pem.as_bytes()).unwrap()
}

fn key(domain: &str, selector: &str, key: SigningKey) -> DomainKey {
    DomainKey { domain: domain.into(), selector: selector.into(), key }
}

fn tag<'a>(field: &'a str, name: &str) -> &'a str {
    let value = field.split_once(':').unwrap().1;
    value.split(';').find_map(|tag| tag.trim().strip_prefix(&format!("{name}="))).unwrap()
}

/// The bytes that a verifier hashes, put together after the text of the RFC and not by the code under test.
fn signed_bytes(field: &str, message: &str) -> String {
    let squeeze = |value: &str| value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let header = message.split_once("\r\n\r\n").unwrap().0.replace("\r\n ", " ");
    let mut fields: Vec<(String, String)> = header
        .split("\r\n")
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), squeeze(value)))
        .collect();
    let mut out = String::new();
    for name in tag(field, "h").split(':').map(str::trim) {
        if let Some(at) = fields.iter().rposition(|(known, _)| known == name) {
            let (name, value) = fields.remove(at);
            out += &format!("{name}:{value}\r\n");
        }
    }
    let (before, _) = field.trim_end().split_once("b=").filter(|(b, _)| !b.ends_with('b')).unwrap_or_else(|| {
        let at = field.rfind("\tb=").unwrap();
        (&field[..at + 1], "")
    });
    let at = before.len().min(field.rfind("\tb=").unwrap() + 1);
    out + &format!("dkim-signature:{}", squeeze(&format!("{}b=", &field.split_once(':').unwrap().1[..at - 15])))
}

fn sign(ring: &Keyring, from: &str, pieces: &[&str]) -> Vec<String> {
    let mut out = Vec::new();
    ring.sign(from, Wall(1_700_000_000_000), pieces.iter().map(|p| p.as_bytes()), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    text.split_inclusive("\r\n").fold(Vec::new(), |mut fields: Vec<String>, line| {
        if line.starts_with('\t') {
            fields.last_mut().unwrap().push_str(line)
        } else {
            fields.push(line.into())
        }
        fields
    })
}

#[test]
fn an_rsa_signature_verifies_against_bytes_put_together_independently() {
    let (private, public) = rsa();
    let ring = Keyring::new(vec![key("Example.COM", "s1", private)]);
    let field = &sign(&ring, "news.example.com", &[MESSAGE])[0];
    assert_eq!(tag(field, "h").replace("\r\n\t", ""), "from:from:subject:subject:to");
    assert_eq!((tag(field, "d"), tag(field, "s"), tag(field, "t")), ("example.com", "s1", "1700000000"));
    let body = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"Body with blanks\r\n");
    assert_eq!(tag(field, "bh"), STANDARD.encode(body));
    let signature = STANDARD.decode(tag(field, "b").replace(['\r', '\n', '\t'], "")).unwrap();
    let verifier = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
    verifier.verify(signed_bytes(field, MESSAGE).as_bytes(), &signature).unwrap();
    assert!(verifier.verify(signed_bytes(field, &MESSAGE.replace("Hello", "Hullo")).as_bytes(), &signature).is_err());
}

#[test]
fn an_ed25519_signature_is_over_the_hash_of_these_bytes() {
    let private = ed25519();
    let public = STANDARD.decode(private.dns_record().rsplit_once("p=").unwrap().1).unwrap();
    let ring = Keyring::new(vec![key("example.com", "e", private)]);
    let field = &sign(&ring, "example.com", &[MESSAGE])[0];
    assert_eq!(tag(field, "a"), "ed25519-sha256");
    let signature = STANDARD.decode(tag(field, "b").replace(['\r', '\n', '\t'], "")).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed_bytes(field, MESSAGE).as_bytes());
    UnparsedPublicKey::new(&ED25519, public).verify(hash.as_ref(), &signature).unwrap();
}

#[test]
fn several_keys_make_several_signatures_and_pieces_make_no_difference() {
    let ring = Keyring::new(vec![key("example.com", "e1", ed25519()), key("example.com", "e2", ed25519())]);
    let (head, tail) = MESSAGE.split_at(MESSAGE.find("Body").unwrap() + 6);
    let whole = sign(&ring, "example.com", &[MESSAGE]);
    assert_eq!(whole.len(), 2);
    assert_eq!(sign(&ring, "example.com", &["", head, tail]), whole);
}

#[test]
fn the_most_specific_domain_signs_and_strangers_are_not_signed_for() {
    let ring = Keyring::new(vec![key("example.com", "top", ed25519()), key("news.example.com", "sub", ed25519())]);
    let selector = |from| ring.keys_for(from).first().map(|key| key.selector.as_str());
    assert_eq!(selector("example.com"), Some("top"));
    assert_eq!(selector("shop.example.com"), Some("top"));
    assert_eq!(selector("a.news.example.com"), Some("sub"));
    assert_eq!(selector("badexample.com"), None);
    assert_eq!(selector("com"), None);
}

#[test]
fn keys_that_cannot_sign_are_refused_with_the_reason_and_never_shown() {
    let error = SigningKey::from_pem(b"hello").unwrap_err();
    assert!(matches!(error, KeyError::NotPem(_)), "{error}");
    let error = SigningKey::from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap_err();
    assert!(matches!(error, KeyError::Unusable(_)), "{error}");
    assert_eq!(format!("{:?}", ed25519()), "SigningKey(ed25519-sha256)");
}
