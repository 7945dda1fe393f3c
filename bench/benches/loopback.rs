//! The floor: what loopback TCP takes to carry a message once, sending and receiving end together.
//!
//! A server carries each message twice, in and out, and pays one end of each; what it costs beyond this is its own. On one
//! thread everything stays in one core's cache and nobody is ever woken; with the ends on two threads, as between
//! processes, it is CPU time of both that is measured, not the time that passes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::{
    net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size},
    time::{ClockId, clock_gettime},
};
use std::{
    hint::black_box,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// Holds a whole message, so that one thread can be both ends.
const BUFFER: usize = 4 << 20;
const SIZES: [(&str, usize); 2] = [("4KiB", 4 << 10), ("64KiB", 64 << 10)];

fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    let (receiver, _) = listener.accept()?;
    sender.set_nodelay(true)?;
    Ok((sender, receiver))
}

fn on_one_thread(c: &mut Criterion) {
    let (mut sender, mut receiver) = pair().expect("loopback TCP");
    set_socket_send_buffer_size(&sender, BUFFER).expect("a socket option");
    set_socket_recv_buffer_size(&receiver, BUFFER).expect("a socket option");
    let mut group = c.benchmark_group("loopback/one_thread");
    for (name, size) in SIZES {
        let (message, mut taken) = (vec![b'x'; size], vec![0; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                sender.write_all(&message).expect("room for a message");
                receiver.read_exact(&mut taken).expect("the message");
                black_box(taken[0])
            });
        });
    }
    group.finish();
}

fn on_two_threads(c: &mut Criterion) {
    let mut group = c.benchmark_group("loopback/two_threads_cpu");
    for (name, size) in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| b.iter_custom(|messages| carry(messages, size).expect("loopback TCP")));
    }
    group.finish();
}

/// CPU time of both ends for so many messages.
fn carry(messages: u64, size: usize) -> std::io::Result<Duration> {
    let (mut sender, mut receiver) = pair()?;
    let message = vec![b'x'; size];
    let before = cpu();
    let taker = thread::spawn(move || {
        let mut taken = vec![0; size];
        while receiver.read(&mut taken).is_ok_and(|n| n > 0) {}
        black_box(taken[0])
    });
    for _ in 0..messages {
        sender.write_all(&message)?;
    }
    drop(sender);
    taker.join().map_err(|_| std::io::Error::other("the receiving end has died"))?;
    Ok(cpu().saturating_sub(before))
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

criterion_group!(benches, on_one_thread, on_two_threads);
criterion_main!(benches);
