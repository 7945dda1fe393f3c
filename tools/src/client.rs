//! The operator's end of the control socket: HTTP/1.1 with JSON over a Unix socket.
//!
//! Every request opens its own connection; a person or a script asks too seldom for anything else to pay. Blocking for
//! the caller: the commands are sequential, and the small runtime inside is nobody else's business.

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{io::ErrorKind, path::PathBuf, time::Duration};
use tokio::{net::UnixStream, runtime};

/// Answers larger than this are refused; a million queue rows fit.
const ANSWER_MAX: usize = 512 << 20;

/// Why the server gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nothing listens there.
    #[error(
        "no server at {path}: is `mailrail serve` running? Tried {path} ({why}); name another socket with --socket or \
         MAILRAIL_SOCKET"
    )]
    Absent {
        /// The socket that was tried.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("{path} may not be opened by this user: run it as the server's user or as root")]
    Denied {
        /// The socket that was tried.
        path: PathBuf,
    },
    /// No answer in time.
    #[error("the server at {path} did not answer within {seconds} s: look at its log, it may be overloaded")]
    Timeout {
        /// The socket that was tried.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("talking to the server at {path}: {why}")]
    Broken {
        /// The socket that was tried.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The server said no, and why.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The server's own words.
        message: String,
    },
    /// The answer is not what this version understands.
    #[error(
        "the server ({server}) answered what this mailrail ({}) cannot read: {why}; use the same version for both",
        env!("CARGO_PKG_VERSION")
    )]
    Unreadable {
        /// Version the server states, or `unknown version`.
        server: String,
        /// What does not fit.
        why: String,
    },
}

impl ClientError {
    /// True when there was no server to talk to, as opposed to one that said no.
    pub(crate) fn unreachable(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Unreadable { .. })
    }
}

/// A server, by its control socket.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    timeout: Duration,
    runtime: runtime::Runtime,
}

impl Client {
    /// For the server at `socket`; nothing is opened yet.
    ///
    /// # Errors
    /// The system gives no epoll instance.
    pub(crate) fn new(socket: PathBuf, timeout: Duration) -> std::io::Result<Self> {
        Ok(Self { socket, timeout, runtime: runtime::Builder::new_current_thread().enable_all().build()? })
    }

    /// GET, answer read as `T`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let (version, body) = self.request(Method::GET, path, None)?;
        self.read(version, &body)
    }

    /// PUT of a JSON document, answer read as `T`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|why| self.broken(&why))?;
        let (version, body) = self.request(Method::PUT, path, Some(body))?;
        self.read(version, &body)
    }

    /// POST of a JSON document, answer read as `T`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|why| self.broken(&why))?;
        let (version, body) = self.request(Method::POST, path, Some(body))?;
        self.read(version, &body)
    }

    /// DELETE, answer read as `T`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let (version, body) = self.request(Method::DELETE, path, None)?;
        self.read(version, &body)
    }

    fn read<T: DeserializeOwned>(&self, server: String, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|why| ClientError::Unreadable { server, why: why.to_string() })
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<(String, Bytes), ClientError> {
        self.runtime.block_on(async {
            match tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await {
                Ok(answer) => answer,
                Err(_) => {
                    Err(ClientError::Timeout { path: self.socket.clone(), seconds: self.timeout.as_secs().max(1) })
                }
            }
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(String, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|why| match why.kind() {
            ErrorKind::PermissionDenied => ClientError::Denied { path: self.socket.clone() },
            _ => ClientError::Absent { path: self.socket.clone(), why },
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|why| self.broken(&why))?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "mailrail")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|why| self.broken(&why))?;
        let (head, body) = sender.send_request(request).await.map_err(|why| self.broken(&why))?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|why| self.broken(&why))?.to_bytes();
        driver.abort();
        if !head.status.is_success() {
            return Err(ClientError::Refused { status: head.status, message: refusal(head.status, &body) });
        }
        let version = head.headers.get("x-mailrail-version").and_then(|v| v.to_str().ok());
        Ok((version.unwrap_or("unknown version").to_owned(), body))
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken { path: self.socket.clone(), why: why.to_string() }
    }
}

/// The server's words for a refusal: its JSON `message`, else what it sent, else the bare status.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        message: String,
    }
    match serde_json::from_slice::<Said>(body) {
        Ok(said) => said.message,
        Err(_) if body.is_empty() => format!("the server answered {status}"),
        Err(_) => format!("the server answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(500)])),
    }
}

/// `value` as one part of a query string or path: everything but unreserved characters percent-encoded (RFC 3986 2.3).
pub(crate) fn encoded(value: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, io::Write, os::unix::net::UnixListener, thread};

    /// A server that reads one request and answers with these head lines and this body.
    fn server(head: &str, body: &str) -> (tempfile::TempDir, Client) {
        let answer = match head {
            "" => String::new(),
            head => format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        });
        (dir, Client::new(path, Duration::from_secs(20)).unwrap())
    }

    #[test]
    fn a_missing_socket_is_unreachable_and_named() {
        let client = Client::new("/nonexistent/control.sock".into(), Duration::from_secs(1)).unwrap();
        let error = client.get::<serde_json::Value>("/").unwrap_err();
        assert!(error.unreachable());
        let said = error.to_string();
        assert!(said.contains("is `mailrail serve` running?") && said.contains("/nonexistent/control.sock"), "{said}");
    }

    #[test]
    fn a_refusal_carries_the_servers_words() {
        let (_dir, client) = server("400 Bad Request", r#"{"message":"pool 'x' is unknown"}"#);
        let error = client.get::<serde_json::Value>("/").unwrap_err();
        assert!(!error.unreachable());
        assert_eq!(error.to_string(), "pool 'x' is unknown");
    }

    #[test]
    fn an_answer_of_another_shape_names_both_versions() {
        let (_dir, client) = server("200 OK\r\nx-mailrail-version: 9.9.9", "{}");
        let error = client.get::<Vec<u8>>("/").unwrap_err();
        assert!(error.to_string().contains("9.9.9") && error.to_string().contains(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_peer_that_hangs_up_is_not_mistaken_for_an_answer() {
        let (_dir, client) = server("", "");
        assert!(client.get::<serde_json::Value>("/").unwrap_err().unreachable());
    }

    #[test]
    fn reserved_characters_are_encoded() {
        assert_eq!(encoded("a-b.c_~"), "a-b.c_~");
        assert_eq!(encoded("*.ex&=ü"), "%2A.ex%26%3D%C3%BC");
    }
}
