//! From a value's text to its type. An error completes "must be …" only where the table's text does not say enough.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use flota_proto::Class;
use url::{Host, Url};

use super::{Broker, LogFormat, RandomxMode, SimpleWorkers, StoreUrl, Verify};

/// `None`: not allowed, and the table says what is.
pub type Parsed<T> = Option<T>;

pub fn address(text: &str) -> Parsed<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.parse().ok()?));
    }
    text.parse().ok()
}

pub fn host_port(text: &str) -> Parsed<String> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    Host::parse(host).ok()?;
    (port > 0).then(|| text.to_owned())
}

pub fn grpc_url(text: &str) -> Parsed<String> {
    if !text.contains("://") {
        return host_port(text);
    }
    host_port(text.strip_prefix("http://")?.trim_end_matches('/'))
}

pub fn http_url(text: &str) -> Parsed<Url> {
    let url = Url::parse(text).ok()?;
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host() && !has_account(&url);
    (fits && url.fragment().is_none()).then_some(url)
}

pub fn broker(text: &str) -> Parsed<Broker> {
    if text == "embedded" {
        return Some(Broker::Embedded);
    }
    let url = Url::parse(text.strip_suffix('/').unwrap_or(text)).ok()?;
    let fits = matches!(url.scheme(), "mqtt" | "mqtts")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && !has_account(&url)
        && url.path().is_empty()
        && url.query().is_none()
        && url.port() != Some(0);
    fits.then_some(Broker::At(url))
}

fn has_account(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

pub fn origins(text: &str) -> Parsed<Vec<String>> {
    split(text).map(origin).collect()
}

fn origin(text: &str) -> Parsed<String> {
    if text == "*" {
        return Some(text.to_owned());
    }
    let url = http_url(text)?;
    (url.origin().ascii_serialization() == text.to_lowercase()).then(|| text.to_lowercase())
}

pub fn store(text: &str) -> Parsed<StoreUrl> {
    let path = text.strip_prefix("sqlite:")?;
    Some(StoreUrl::Sqlite((!path.is_empty()).then(|| PathBuf::from(path))))
}

/// A number with a unit, or `off`.
pub fn age(text: &str) -> Parsed<Option<Duration>> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 7 * 86_400_000)];
    Some(quantity(text, &units)?.map(Duration::from_millis))
}

/// A number of bytes with a unit, or `off`.
pub fn size(text: &str) -> Parsed<Option<u64>> {
    quantity(text, &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)])
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Parsed<Option<u64>> {
    if text == "off" {
        return Some(None);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let (_, factor) = units.iter().find(|(unit, _)| *unit == text[digits..].trim_start())?;
    number.checked_mul(*factor).filter(|n| *n > 0).map(Some)
}

/// A number of bytes with a unit, within `range`.
pub fn bytes(range: RangeInclusive<usize>) -> impl Fn(&str) -> Parsed<usize> {
    move |text| size(text)??.try_into().ok().filter(|bytes| range.contains(bytes))
}

/// A whole number within `range`.
pub fn number(range: RangeInclusive<usize>) -> impl Fn(&str) -> Parsed<usize> {
    move |text| text.parse().ok().filter(|number| range.contains(number))
}

pub fn simple_workers(text: &str) -> Parsed<SimpleWorkers> {
    match text {
        "off" => Some(SimpleWorkers::Off),
        "keyless" => Some(SimpleWorkers::Keyless),
        "trusted" => Some(SimpleWorkers::Trusted),
        _ => None,
    }
}

pub fn verify(text: &str) -> Parsed<Verify> {
    match text {
        "off" => Some(Verify::Off),
        "samples" => Some(Verify::Samples),
        "strict" => Some(Verify::Strict),
        _ => None,
    }
}

pub fn randomx_mode(text: &str) -> Parsed<RandomxMode> {
    match text {
        "auto" => Some(RandomxMode::Auto),
        "light" => Some(RandomxMode::Light),
        "fast" => Some(RandomxMode::Fast),
        _ => None,
    }
}

/// Whether it is `pause`.
pub fn run_or_pause(text: &str) -> Parsed<bool> {
    match text {
        "run" => Some(false),
        "pause" => Some(true),
        _ => None,
    }
}

/// `0,2-5`
pub fn cpus(text: &str) -> Parsed<Vec<usize>> {
    const CPUS_MAX: usize = 4096;
    let mut cpus = Vec::new();
    for part in split(text) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let range: RangeInclusive<usize> = from.trim().parse().ok()?..=to.trim().parse().ok()?;
        if range.is_empty() || *range.end() >= CPUS_MAX {
            return None;
        }
        cpus.extend(range);
    }
    Some(cpus)
}

/// `22:00-06:00`, as minutes of the day.
pub fn hours(text: &str) -> Parsed<(u16, u16)> {
    let minute = |time: &str| {
        let (hour, minute) = time.trim().split_once(':')?;
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour <= 24 && minute < 60 && hour * 60 + minute <= 24 * 60).then_some(hour * 60 + minute)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    (from != to).then_some((from, to))
}

pub fn peers(text: &str) -> Parsed<Vec<String>> {
    split(text).map(host_port).collect()
}

pub fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

pub fn log_filter(text: &str) -> Parsed<String> {
    let known = |level: &str| matches!(level, "off" | "error" | "warn" | "info" | "debug" | "trace");
    // A lone word is taken for a module by the library: a mistyped level would silence everything.
    if !text.contains(['=', ',']) && !known(text) {
        return None;
    }
    // The library counts in the trimmed part and cuts the one before it: with blanks it takes the wrong words, or panics inside a letter.
    let text = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
    tracing_subscriber::EnvFilter::builder().parse(&text).ok().map(|_| text)
}

pub fn threads(text: &str) -> Parsed<u32> {
    text.parse().ok().filter(|n| (1..=4096).contains(n))
}

/// Whom questions are put to.
pub fn chain(text: &str) -> Parsed<Vec<flota_proto::chain::Link>> {
    let links: Vec<_> = split(text).map(|link| link.parse().ok()).collect::<Option<_>>()?;
    (1..=flota_proto::chain::LINKS_MAX).contains(&links.len()).then_some(links)
}

/// `small=MODEL,large=MODEL`
pub fn model_classes(text: &str) -> Parsed<BTreeMap<String, String>> {
    let classes = pairs(text)?;
    let fits = |(class, model): (&String, &String)| {
        matches!(class.as_str(), "small" | "large") && (1..=200).contains(&model.len())
    };
    classes.iter().all(fits).then_some(classes)
}

/// A whole number in `range`.
pub fn whole(range: std::ops::RangeInclusive<u64>) -> impl Fn(&str) -> Parsed<u64> {
    move |text| text.parse().ok().filter(|number| range.contains(number))
}

/// A few letters.
pub fn currency(text: &str) -> Parsed<String> {
    ((1..=8).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphabetic())).then(|| text.to_owned())
}

/// 32 bytes as hex.
pub fn seal_key(text: &str) -> Parsed<()> {
    (text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(())
}

/// `CLASS=NUMBER,…` over `defaults`.
pub fn classes(text: &str, defaults: &BTreeMap<Class, u32>) -> Parsed<BTreeMap<Class, u32>> {
    let mut given = BTreeMap::new();
    for (name, number) in pairs(text)? {
        let class = Class::ALL.into_iter().find(|class| class.as_str() == name)?;
        let number: u32 = number.parse().ok().filter(|n| *n <= 100_000)?;
        given.insert(class, number);
    }
    let mut all = defaults.clone();
    all.extend(given);
    Some(all)
}

pub fn labels(text: &str) -> Parsed<BTreeMap<String, String>> {
    let pairs = pairs(text)?;
    let fits = |text: &str| text.len() <= 128 && !text.chars().any(char::is_control);
    pairs.iter().all(|(name, value)| fits(name) && fits(value)).then_some(pairs)
}

pub fn pairs(text: &str) -> Parsed<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    for pair in split(text) {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || pairs.insert(name.to_owned(), value.to_owned()).is_some() {
            return None;
        }
    }
    Some(pairs)
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

pub fn text(max: usize) -> impl Fn(&str) -> Parsed<String> {
    move |text| ((1..=max).contains(&text.len()) && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

pub fn path(text: &str) -> Parsed<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
}

/// May stand in an `Authorization` header.
pub fn token(text: &str) -> Parsed<()> {
    ((1..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())).then_some(())
}

pub fn password(text: &str) -> Parsed<()> {
    ((1..=512).contains(&text.len()) && !text.chars().any(char::is_control)).then_some(())
}

/// Whether only this machine can reach what listens at `address`.
pub fn loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

/// Where a client on this machine reaches what listens at `address`.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_and_hours_are_read_as_people_write_them() {
        assert_eq!(cpus("0,2-4"), Some(vec![0, 2, 3, 4]));
        assert_eq!((cpus("4-2"), cpus("a"), cpus("1,99999")), (None, None, None));
        assert_eq!(hours("22:00-06:30"), Some((1320, 390)));
        assert_eq!(hours("00:00-24:00"), Some((0, 1440)));
        assert_eq!(
            (hours("22-6"), hours("25:00-01:00"), hours("07:60-08:00"), hours("08:00-08:00")),
            (None, None, None, None)
        );
    }

    #[test]
    fn ages_and_sizes_have_units() {
        assert_eq!(age("7d"), Some(Some(Duration::from_secs(7 * 86_400))));
        assert_eq!(age("250ms"), Some(Some(Duration::from_millis(250))));
        assert_eq!(age("off"), Some(None));
        assert_eq!(size("10GiB"), Some(Some(10 << 30)));
        assert_eq!(size("512 MiB"), Some(Some(512 << 20)));
        for bad in ["", "7", "d", "-1d", "0d", "1.5h", "7 days", "99999999999999999999d", "18446744073709551615w"] {
            assert_eq!(age(bad), None, "{bad}");
        }
        for bad in ["10GB", "10", "0B", "99999999999TiB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn addresses_are_numbers_or_localhost() {
        assert_eq!(address("localhost:80"), Some("127.0.0.1:80".parse().unwrap()));
        assert_eq!(address("[::1]:0"), Some("[::1]:0".parse().unwrap()));
        for bad in ["8888", "127.0.0.1", "example.org:80", "127.0.0.1:65536", "localhost:"] {
            assert_eq!(address(bad), None, "{bad}");
        }
        assert_eq!(host_port("master:50051").as_deref(), Some("master:50051"));
        assert_eq!(host_port("[::1]:50051").as_deref(), Some("[::1]:50051"));
        for bad in ["master", "master:0", ":1", "ma ster:1", "::1:50051:x"] {
            assert_eq!(host_port(bad), None, "{bad}");
        }
    }

    #[test]
    fn brokers_are_embedded_or_at_an_address_without_an_account() {
        assert_eq!(broker("embedded"), Some(Broker::Embedded));
        assert!(matches!(broker("mqtt://broker"), Some(Broker::At(_))));
        let url =
            |text| broker(text).map(|broker| matches!(broker, Broker::At(url) if url.as_str() == "mqtts://b:8883"));
        assert_eq!((url("mqtts://b:8883"), url("mqtts://b:8883/")), (Some(true), Some(true)));
        for bad in ["broker:1883", "http://broker", "mqtt://ana:pw@broker", "mqtt://", "mqtt://b/topic", "mqtt://b:0"] {
            assert_eq!(broker(bad), None, "{bad}");
        }
    }

    #[test]
    fn origins_are_exact() {
        assert_eq!(origins("https://a.org, http://b:8080"), Some(vec!["https://a.org".into(), "http://b:8080".into()]));
        assert_eq!(origins("*"), Some(vec!["*".into()]));
        for bad in ["a.org", "https://a.org/path", "https://a.org/", "https://a.org:443"] {
            assert_eq!(origins(bad), None, "{bad}");
        }
    }

    #[test]
    fn slots_add_to_the_defaults_and_refuse_unknown_classes() {
        let defaults = BTreeMap::from([(Class::Randomx, 1), (Class::Ai, 64)]);
        let slots = classes("ai=2, echo=0", &defaults).unwrap();
        assert_eq!(slots, BTreeMap::from([(Class::Randomx, 1), (Class::Ai, 2), (Class::Echo, 0)]));
        for bad in ["gpu=1", "ai", "ai=", "ai=-1", "ai=1,ai=2", "ai=100001"] {
            assert_eq!(classes(bad, &defaults), None, "{bad}");
        }
    }

    #[test]
    fn a_mistyped_log_level_is_refused() {
        assert!(log_filter("debug").is_some());
        assert!(log_filter("warn,flota=trace").is_some());
        assert_eq!(log_filter("inf"), None);
        assert_eq!(log_filter("flota=loud"), None);
        assert_eq!(log_filter(" warn, flota=trace ").as_deref(), Some("warn,flota=trace"));
        assert!(log_filter("warn,\t\t\t\tab\u{1bb}=D").is_none());
    }

    #[test]
    fn an_unspecified_address_is_reached_on_loopback() {
        assert_eq!(reachable("0.0.0.0:8888".parse().unwrap()), "127.0.0.1:8888".parse().unwrap());
        assert_eq!(reachable("[::]:1".parse().unwrap()), "[::1]:1".parse().unwrap());
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()), "10.0.0.1:1".parse().unwrap());
        assert!(loopback("::ffff:127.0.0.1".parse().unwrap()) && !loopback("0.0.0.0".parse().unwrap()));
    }
}
