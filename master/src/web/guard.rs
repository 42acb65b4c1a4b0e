//! Who may come in: the fleet's token, and pages of other origins kept out.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::problem::Failure;

/// What is let in.
#[derive(Debug)]
pub struct Guard {
    token: Option<[u8; 32]>,
    allowed_origins: Vec<String>,
}

impl Guard {
    /// An empty token is none. Origins are compared as browsers send them: lowercase, without a path.
    pub fn new(token: Option<&SecretString>, allowed_origins: &[String]) -> Self {
        let token = token.map(ExposeSecret::expose_secret).filter(|token| !token.is_empty());
        Self {
            token: token.map(|token| Sha256::digest(token).into()),
            allowed_origins: allowed_origins.iter().map(|o| o.trim_end_matches('/').to_ascii_lowercase()).collect(),
        }
    }

    /// Whether a token is wanted at all.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether `given` is the token; compared as digests, so that the time tells nothing.
    pub fn token_fits(&self, given: Option<&str>) -> bool {
        let (Some(wanted), given) = (&self.token, given.map(Sha256::digest)) else { return true };
        given.is_some_and(|given| wanted.iter().zip(given).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0)
    }

    /// Whether the page that sends this, if a page does, may. A browser says whose page it is in `Origin`; without a token
    /// also the address is checked that the browser believes to talk to: else a foreign name that someone points at
    /// 127.0.0.1 (DNS rebinding) would be the "same host".
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), String> {
        let host = text(headers, header::HOST);
        if let Some(host) = host
            && self.token.is_none()
            && !is_loopback(host)
            && !self.allows_host(host)
        {
            return Err(format!(
                "the host '{}' is not allowed without a token: set FLOTA_TOKEN, or name it in FLOTA_ALLOWED_ORIGINS",
                host.escape_debug()
            ));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        if self.allows_origin(origin) || host.is_some_and(|host| is_same_host(origin, host)) {
            return Ok(());
        }
        Err(format!("the origin '{}' is not allowed: name it in FLOTA_ALLOWED_ORIGINS", origin.escape_debug()))
    }

    fn allows_origin(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    fn allows_host(&self, host: &str) -> bool {
        self.allowed_origins.iter().any(|allowed| is_same_host(allowed, host))
    }

    /// The origins for CORS.
    pub fn cors_origins(&self) -> Vec<HeaderValue> {
        self.allowed_origins.iter().filter_map(|origin| origin.parse().ok()).collect()
    }
}

fn is_same_host(origin: &str, host: &str) -> bool {
    let Some((scheme, origin_host)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let plain = |text: &str| text.strip_suffix(default_port).unwrap_or(text).to_ascii_lowercase();
    plain(origin_host) == plain(host)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The token in `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Checks origin and token of what is not open to everybody.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !is_guarded(path) {
        return next.run(request).await;
    }
    if let Err(detail) = guard.check_origin(request.headers()) {
        return Failure::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail).into_response();
    }
    if !guard.token_fits(bearer(request.headers())) {
        let detail = "the token is missing or wrong: send 'Authorization: Bearer' with the fleet's FLOTA_TOKEN";
        return Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response();
    }
    next.run(request).await
}

/// Turns browsers away that there is no room for, before they have cost anything. Those connected name their `sid`.
pub async fn check_room(State(app): State<Arc<super::App>>, request: Request, next: Next) -> Response {
    let uri = request.uri();
    let new = matches!(uri.path(), "/socket.io" | "/socket.io/")
        && !uri.query().unwrap_or_default().split('&').any(|pair| pair.starts_with("sid="));
    if new && !app.sessions.has_room() {
        let detail = "too many browsers are connected (FLOTA_BROWSERS_MAX)";
        let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_browsers", detail);
        return failure.retry_after(5).into_response();
    }
    next.run(request).await
}

fn is_guarded(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/") || path == "/metrics"
}

const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Headers that every answer carries.
pub async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v))).collect()
    }

    fn guard(token: Option<&str>, origins: &[&str]) -> Guard {
        let origins: Vec<_> = origins.iter().map(|&o| o.to_owned()).collect();
        Guard::new(token.map(SecretString::from).as_ref(), &origins)
    }

    #[test]
    fn the_token_fits_only_itself() {
        let guarded = guard(Some("s3cret"), &[]);
        assert!(guarded.token_fits(Some("s3cret")));
        for wrong in [None, Some(""), Some("s3cre"), Some("s3cret ")] {
            assert!(!guarded.token_fits(wrong), "{wrong:?}");
        }
        assert!(guard(None, &[]).token_fits(None));
        assert!(!guard(Some(""), &[]).has_token());
    }

    #[test]
    fn a_bearer_token_is_found_in_either_case() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])), None);
    }

    #[test]
    fn a_page_of_the_same_host_or_an_allowed_origin_may_come_in() {
        let open = guard(Some("t"), &["https://Ops.example/"]);
        assert!(open.check_origin(&headers(&[("host", "flota.lan:8888")])).is_ok());
        let same = headers(&[("host", "flota.lan:8888"), ("origin", "http://flota.lan:8888")]);
        assert!(open.check_origin(&same).is_ok());
        let default_port = headers(&[("host", "flota.lan"), ("origin", "https://flota.lan:443")]);
        assert!(open.check_origin(&default_port).is_ok());
        assert!(open.check_origin(&headers(&[("host", "x"), ("origin", "https://ops.example")])).is_ok());
        for origin in ["http://evil.example", "null", "http://flota.lan:9999"] {
            assert!(
                open.check_origin(&headers(&[("host", "flota.lan:8888"), ("origin", origin)])).is_err(),
                "{origin}"
            );
        }
    }

    #[test]
    fn without_a_token_a_foreign_name_for_this_machine_is_refused() {
        let open = guard(None, &["http://flota.lan:8888"]);
        for host in ["127.0.0.1:8888", "localhost", "[::1]:8888", "flota.localhost:1", "flota.lan:8888"] {
            assert!(open.check_origin(&headers(&[("host", host)])).is_ok(), "{host}");
        }
        let rebound = headers(&[("host", "evil.example:8888"), ("origin", "http://evil.example:8888")]);
        assert!(open.check_origin(&rebound).is_err());
    }
}
