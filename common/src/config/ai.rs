//! Limits, budgets and prices of AI jobs, from text.

use std::collections::BTreeMap;

use super::parse::{Parsed, pairs};

const MILLION: u64 = 1_000_000;

/// `owner_requests=60,model_tokens=100000`: requests and tokens a minute by `owner`, `model` and `key`.
pub fn limits(text: &str) -> Parsed<BTreeMap<String, [Option<u64>; 2]>> {
    let mut limits: BTreeMap<String, [Option<u64>; 2]> = BTreeMap::new();
    for (name, number) in pairs(text)? {
        let (who, what) = name.split_once('_').filter(|(who, _)| ["owner", "model", "key"].contains(who))?;
        let number = number.parse().ok().filter(|n| (1..=MILLION * MILLION).contains(n))?;
        let of_who = limits.entry(who.to_owned()).or_default();
        *place(of_who, ["requests", "tokens"], what)? = Some(number);
    }
    Some(limits)
}

/// `tokens=200000,money=2.50,ann:tokens=1000000`: tokens, and money in millionths, by owner.
pub fn budget(text: &str) -> Parsed<BTreeMap<String, [Option<u64>; 2]>> {
    let mut budgets: BTreeMap<String, [Option<u64>; 2]> = BTreeMap::new();
    for (name, amount) in pairs(text)? {
        let (owner, what) = name.rsplit_once(':').unwrap_or(("", &name));
        let amount = if what == "money" { millionths(&amount)? } else { amount.parse().ok()? };
        let of_owner = budgets.entry(owner.to_owned()).or_default();
        *place(of_owner, ["tokens", "money"], what)? = Some(amount);
    }
    Some(budgets)
}

/// `gemini-3.5-pro=1.25/10`: millionths for a million tokens of questions and answers, the longest name first.
pub fn prices(text: &str) -> Parsed<Vec<(String, [u64; 2])>> {
    let mut prices = Vec::new();
    for (model, price) in pairs(text)? {
        let (input, output) = price.split_once('/')?;
        prices.push((model, [millionths(input)?, millionths(output)?]));
    }
    // An exact name before one that ends with a star, then the longest.
    prices.sort_by_key(|(model, _)| (model.ends_with('*'), std::cmp::Reverse(model.len())));
    Some(prices)
}

fn place<'a>(pair: &'a mut [Option<u64>; 2], names: [&str; 2], name: &str) -> Option<&'a mut Option<u64>> {
    let index = names.iter().position(|known| *known == name)?;
    pair.get_mut(index)
}

/// A decimal number, at most six places, in millionths.
fn millionths(text: &str) -> Parsed<u64> {
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 6 {
        return None;
    }
    let part: u64 = format!("{part:0<6}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(MILLION)?.checked_add(part).filter(|n| *n <= MILLION * MILLION * MILLION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_by_owner_model_and_key() {
        let parsed = limits("owner_requests=60, owner_tokens=100000,key_requests=15").unwrap();
        assert_eq!(parsed["owner"], [Some(60), Some(100_000)]);
        assert_eq!(parsed["key"], [Some(15), None]);
        for wrong in ["owner=1", "team_requests=1", "owner_words=1", "owner_requests=0", "owner_requests=-1"] {
            assert_eq!(limits(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn budgets_are_everybodys_or_one_owners() {
        let parsed = budget("tokens=200000,money=2.50,ann:tokens=7,a:b:money=0.000001").unwrap();
        assert_eq!(parsed[""], [Some(200_000), Some(2_500_000)]);
        assert_eq!(parsed["ann"], [Some(7), None]);
        assert_eq!(parsed["a:b"], [None, Some(1)]);
        for wrong in ["money=x", "money=1.2345678", "money=-1", "money=.5", "euros=1", "tokens=1.5"] {
            assert_eq!(budget(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn prices_are_sorted_so_that_the_nearest_name_counts() {
        let parsed = prices("gemini-*=0.1/0.4,*=0/0,gemini-3.5-*=0.3/2.5,gemini-3.5-pro=1.25/10").unwrap();
        let names: Vec<&str> = parsed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["gemini-3.5-pro", "gemini-3.5-*", "gemini-*", "*"]);
        assert_eq!(parsed[0].1, [1_250_000, 10_000_000]);
        assert_eq!(prices("m=1"), None);
    }
}
