//! HTTP digest authentication (RFC 7616), the only one that monerod's `--rpc-login` knows, which wants MD5.

use md5::{Digest, Md5};

/// The `Authorization` header that answers `challenge`; `None` where it is none that can be answered.
pub fn answer(challenge: &str, user: &str, password: &str, method: &str, path: &str) -> Option<String> {
    let client_nonce = format!("{:016x}", rand::random::<u64>());
    answer_with(challenge, user, password, method, path, &client_nonce)
}

fn answer_with(challenge: &str, user: &str, password: &str, method: &str, path: &str, own: &str) -> Option<String> {
    let fields = challenge.strip_prefix("Digest ")?;
    let algorithm = field(fields, "algorithm").unwrap_or("MD5");
    if !algorithm.eq_ignore_ascii_case("MD5") || !field(fields, "qop")?.split(',').any(|qop| qop.trim() == "auth") {
        return None;
    }
    if user.contains('"') {
        return None;
    }
    let (realm, nonce) = (field(fields, "realm")?, field(fields, "nonce")?);
    let secret = md5(&format!("{user}:{realm}:{password}"));
    let request = md5(&format!("{method}:{path}"));
    let response = md5(&format!("{secret}:{nonce}:00000001:{own}:auth:{request}"));
    Some(format!(
        "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{path}\", algorithm=MD5, qop=auth, \
         nc=00000001, cnonce=\"{own}\", response=\"{response}\""
    ))
}

/// The value of `name` in `name="value", …`.
fn field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = fields;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim_matches([',', ' ']).eq_ignore_ascii_case(name) {
            return Some(value.trim());
        }
        rest = next;
    }
    None
}

fn md5(text: &str) -> String {
    hex::encode(Md5::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let challenge = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=MD5, \
                         nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                         opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
        let own = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let header =
            answer_with(challenge, "Mufasa", "Circle of Life", "GET", "/dir/index.html", own).expect("it is answered");
        assert!(header.contains("response=\"8ca523f5e9506fed4657c9700eebdbec\""), "{header}");
    }

    #[test]
    fn what_can_not_be_answered_is_not() {
        for challenge in
            ["Basic realm=\"x\"", "Digest realm=\"x\"", "Digest qop=\"auth\", algorithm=SHA-256", "Digest ="]
        {
            assert_eq!(answer(challenge, "u", "p", "POST", "/"), None, "{challenge}");
        }
    }
}
