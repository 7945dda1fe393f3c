//! DKIM: what signing a message of 4.6 KB costs, by algorithm; the rest of it (hashing, headers) is the difference to the
//! bare operation.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailrail_engine::sign::{DomainKey, Keyring, SigningKey};
use mailrail_queue::time::Wall;
use std::hint::black_box;

fn message() -> Vec<u8> {
    let mut text = b"Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: Shop <shop@example.com>\r\n\
        To: you@example.org\r\nSubject: Your order\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n\
        Message-ID: <1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
        .to_vec();
    while text.len() < 4600 {
        text.extend_from_slice(b"The quick brown fox jumps over the lazy dog, and over the next one, too.\r\n");
    }
    text
}

fn signing(c: &mut Criterion) {
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let content = message();
    let mut group = c.benchmark_group("sign");
    group.throughput(Throughput::Elements(1));
    for (name, pem) in [("rsa_2048", rsa.serialize_pem()), ("ed25519", ed25519.serialize_pem())] {
        let key = SigningKey::from_pem(pem.as_bytes()).expect("a key");
        let ring = Keyring::new(vec![DomainKey { domain: "example.com".into(), selector: "s1".into(), key }]);
        let mut out = Vec::with_capacity(2048);
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                let pieces = std::iter::once(content.as_slice());
                black_box(ring.sign("example.com", Wall(1_700_000_000_000), pieces, &mut out))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, signing);
criterion_main!(benches);
