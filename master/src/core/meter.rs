//! Limits and money of AI jobs: how often and how much may be asked a minute (by owner, by model, by key), and what an owner may
//! use a day. One place decides, so that ten workers don't make ten limits.
//!
//! A limit is a bucket that holds a minute's worth and refills steadily (the generic cell rate algorithm of ITU-T I.371): who comes
//! too early is given the time at which its turn is, and has it then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use flota_proto::Timestamp;
use flota_proto::rest::JobError;

use super::job::Seq;
use crate::ledger::{self, AiLimits, Budget, Spent};

/// A minute in microseconds, of which buckets count.
const MINUTE: u64 = 60_000_000;
/// Buckets kept; full ones are forgotten beyond it.
const BUCKETS_MAX: usize = 20_000;
/// What an answer is taken to cost where nobody bounds it.
const OUTPUT_TOKENS: u64 = 1_024;

/// Whose bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Owner(Arc<str>),
    Model(String),
    /// A key by its digest; `None` is the fleet's.
    Key(Option<u64>),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Requests,
    Tokens,
}

/// A question that wants to be asked.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// Its job.
    pub seq: Seq,
    /// Whose it is.
    pub owner: &'a Arc<str>,
    /// The model that is asked for.
    pub model: Option<&'a str>,
    /// The digest of its own key.
    pub key: Option<u64>,
    /// It brings a key of its own, which pays where that is what answers.
    pub own_key: bool,
    /// What it holds, in tokens as estimated.
    pub tokens: u64,
    /// What its answer may hold at most, where that is said.
    pub output_tokens_max: Option<u64>,
}

/// What is said to a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now.
    Go,
    /// Not before.
    Wait(Timestamp, JobError),
    /// Not at all.
    Refuse(JobError),
}

#[derive(Clone, Debug)]
struct Reserved {
    owner: Arc<str>,
    /// Of the owner's budget nothing is set aside: it may be asked with its own key only.
    own_key_only: bool,
    tokens: u64,
    micros: u64,
    buckets: Vec<(Of, u64)>,
}

/// What a question may use.
#[derive(Clone, Copy, Debug)]
struct Cost {
    tokens: u64,
    micros: u64,
}

/// All limits and what was used of them.
#[derive(Debug, Default)]
pub struct Meter {
    limits: AiLimits,
    /// When each bucket is full again, in microseconds.
    full_at: BTreeMap<(Of, What), u64>,
    day: u32,
    spent: HashMap<Arc<str>, Spent>,
    reserved: HashMap<Seq, Reserved>,
}

impl Meter {
    /// With these limits, where of `day` this was spent before.
    pub fn new(limits: AiLimits, day: u32, spent: Vec<(String, Spent)>) -> Self {
        let spent = spent.into_iter().map(|(owner, spent)| (Arc::from(owner), spent)).collect();
        Self { limits, day, spent, ..Self::default() }
    }

    /// The prices.
    pub fn limits(&self) -> &AiLimits {
        &self.limits
    }

    /// Whether anything is limited: nothing else costs anything.
    pub fn limits_any(&self) -> bool {
        !self.limits.rates.is_empty() || self.limits.has_budgets()
    }

    /// Lets a wish through, gives it a time, or refuses it. What it may use is set aside until [`Meter::settle`]: of a wish with a
    /// key of its own too, because the fleet's local AI may answer it; where the budget does not hold that, see
    /// [`Meter::own_key_only`].
    pub fn ask(&mut self, now: Timestamp, wish: &Wish<'_>) -> Turn {
        // Of an earlier attempt of the same.
        self.reserved.remove(&wish.seq);
        let Cost { tokens, micros } = self.cost(wish);
        let over = self.over_budget(now, wish);
        let own_key_only = over.is_some();
        if let Some(error) = over.filter(|_| !wish.own_key) {
            return Turn::Refuse(error);
        }
        let buckets = self.buckets_of(wish);
        let (start, by) = self.earliest(now, &buckets, tokens);
        for (of, _) in &buckets {
            self.take(of, start, tokens);
        }
        let buckets = buckets.into_iter().map(|(of, _)| (of, tokens)).collect();
        let reserved = Reserved { owner: wish.owner.clone(), own_key_only, tokens, micros, buckets };
        self.reserved.insert(wish.seq, reserved);
        match by {
            Some(by) => Turn::Wait(Timestamp(start.div_ceil(1_000)), by),
            None => Turn::Go,
        }
    }

    /// Whether a question with a key of its own may be asked with that only, because its owner's budget holds nothing else.
    pub fn own_key_only(&self, seq: Seq) -> bool {
        self.limits.has_budgets() && self.reserved.get(&seq).is_none_or(|reserved| reserved.own_key_only)
    }

    /// What a question may use, as far as that can be said before it was asked.
    fn cost(&self, wish: &Wish<'_>) -> Cost {
        let output = wish.output_tokens_max.unwrap_or(OUTPUT_TOKENS);
        // Who answers a question that names no model is not known: it may be the dearest.
        let price = match wish.model {
            Some(model) if !["small", "large"].contains(&model) => self.limits.price(model),
            _ => self.limits.dearest(),
        };
        let micros = price.map_or(0, |price| price.micros(wish.tokens, output));
        Cost { tokens: wish.tokens.saturating_add(output), micros }
    }

    /// Why the budget of its owner does not hold a wish today.
    pub fn over_budget(&mut self, now: Timestamp, wish: &Wish<'_>) -> Option<JobError> {
        self.turn_day(now);
        let (owner, Cost { tokens, micros }) = (wish.owner, self.cost(wish));
        let budget = self.limits.budget(owner);
        let used = self.spent.get(owner).copied().unwrap_or_default();
        let waits = |part: fn(&Reserved) -> u64| -> u64 {
            self.reserved.values().filter(|r| r.owner == *owner && !r.own_key_only).map(part).sum()
        };
        let over = |limit: Option<u64>, used: u64, more: u64| limit.filter(|limit| used.saturating_add(more) > *limit);
        let used_tokens = used.tokens.saturating_add(waits(|reserved| reserved.tokens));
        let used_micros = used.micros.saturating_add(waits(|reserved| reserved.micros));
        let what = if let Some(limit) = over(budget.tokens, used_tokens, tokens) {
            format!("{used_tokens} of {limit} tokens are used or set aside, and this may take {tokens}")
        } else if let Some(limit) = over(budget.micros, used_micros, micros) {
            let money = |micros: u64| ledger::money(micros, &self.limits.currency);
            format!(
                "{} of {} is used or set aside, and this may take {}",
                money(used_micros),
                money(limit),
                money(micros)
            )
        } else {
            return None;
        };
        let message = format!(
            "the budget of '{owner}' for today does not hold this: {what}; it is new at {}. A question with an API key of \
             its own does not count",
            ledger::day_begin(self.day + 1).to_rfc3339()
        );
        Some(JobError { code: "budget_spent".into(), message })
    }

    fn buckets_of(&self, wish: &Wish<'_>) -> Vec<(Of, &'static str)> {
        let all = [
            (Of::Owner(wish.owner.clone()), "owner"),
            (Of::Model(wish.model.unwrap_or("(default)").to_owned()), "model"),
            (Of::Key(if wish.own_key { Some(wish.key.unwrap_or(0)) } else { None }), "key"),
        ];
        all.into_iter().filter(|(_, name)| self.limits.rates.contains_key(*name)).collect()
    }

    /// When all buckets hold enough, and which of them is the last.
    fn earliest(&self, now: Timestamp, buckets: &[(Of, &'static str)], tokens: u64) -> (u64, Option<JobError>) {
        let mut start = now.0.saturating_mul(1_000);
        let mut by = None;
        for (of, name) in buckets {
            for (what, cost, per_minute) in self.costs(name, tokens) {
                let full_at = self.full_at.get(&(of.clone(), what)).copied().unwrap_or(0);
                // What takes more than a whole bucket waits for a full one.
                let at = full_at.saturating_add(cost.min(MINUTE)).saturating_sub(MINUTE);
                if at > start {
                    start = at;
                    by = Some(limited(of, what, per_minute));
                }
            }
        }
        (start, by)
    }

    /// What a wish takes of the buckets named so: microseconds of a minute's worth.
    fn costs(&self, name: &str, tokens: u64) -> Vec<(What, u64, u64)> {
        let Some(rate) = self.limits.rates.get(name) else { return Vec::new() };
        let requests = rate.requests.map(|limit| (What::Requests, MINUTE / limit.max(1), limit));
        let tokens = rate.tokens.map(|limit| (What::Tokens, tokens.saturating_mul(MINUTE) / limit.max(1), limit));
        requests.into_iter().chain(tokens).collect()
    }

    fn take(&mut self, of: &Of, start: u64, tokens: u64) {
        let name = name_of(of);
        for (what, cost, _) in self.costs(name, tokens) {
            let full_at = self.full_at.entry((of.clone(), what)).or_insert(0);
            *full_at = (*full_at).max(start).saturating_add(cost);
        }
        if self.full_at.len() > BUCKETS_MAX {
            self.full_at.retain(|_, full_at| *full_at > start);
        }
    }

    /// Counts a question that another master let through at `at`, with the tokens that it used, where that is known.
    pub fn recall(&mut self, at: Timestamp, wish: &Wish<'_>, used: Option<u64>) {
        let estimate = self.cost(wish).tokens;
        for (of, _) in self.buckets_of(wish) {
            // Of questions that have ended nobody knows with which key they came.
            let unknown = wish.own_key && wish.key.is_none() && matches!(of, Of::Key(_));
            if !unknown {
                self.take(&of, at.0.saturating_mul(1_000), used.unwrap_or(estimate));
            }
        }
    }

    /// A question has ended: what was set aside for it is free again, what it used is not, unless its own key paid that.
    pub fn settle(&mut self, now: Timestamp, seq: Seq, owner: &Arc<str>, own_key: bool, used: Spent) {
        self.turn_day(now);
        if let Some(reserved) = self.reserved.remove(&seq) {
            for (of, tokens) in reserved.buckets {
                self.correct(of, tokens, used.tokens);
            }
        }
        if !own_key && (used.tokens > 0 || used.micros > 0) {
            let spent = self.spent.entry(owner.clone()).or_default();
            spent.tokens = spent.tokens.saturating_add(used.tokens);
            spent.micros = spent.micros.saturating_add(used.micros);
        }
    }

    /// The bucket of tokens was charged an estimate.
    fn correct(&mut self, of: Of, estimated: u64, used: u64) {
        let Some(limit) = self.limits.rates.get(name_of(&of)).and_then(|rate| rate.tokens) else { return };
        let cost = |tokens: u64| tokens.saturating_mul(MINUTE) / limit.max(1);
        if let Some(full_at) = self.full_at.get_mut(&(of, What::Tokens)) {
            *full_at = full_at.saturating_add(cost(used)).saturating_sub(cost(estimated));
        }
    }

    /// What an owner may use a day, and has used of it.
    pub fn standing(&mut self, now: Timestamp, owner: &str) -> (Budget, Spent) {
        self.turn_day(now);
        (self.limits.budget(owner), self.spent.get(owner).copied().unwrap_or_default())
    }

    /// The clock was set: buckets fill as fast as before, and the day is what the clock says.
    pub fn clock_set(&mut self, now: Timestamp, by_ms: i64) {
        for full_at in self.full_at.values_mut() {
            *full_at = full_at.saturating_add_signed(by_ms.saturating_mul(1_000));
        }
        self.day = self.day.min(ledger::day_of(now));
    }

    fn turn_day(&mut self, now: Timestamp) {
        let day = ledger::day_of(now);
        if day > self.day {
            self.day = day;
            self.spent.clear();
        }
    }
}

fn name_of(of: &Of) -> &'static str {
    match of {
        Of::Owner(_) => "owner",
        Of::Model(_) => "model",
        Of::Key(_) => "key",
    }
}

fn limited(of: &Of, what: What, per_minute: u64) -> JobError {
    let whose = match of {
        Of::Owner(owner) => format!("owner '{owner}'"),
        Of::Model(model) => format!("the model '{model}'"),
        Of::Key(Some(_)) => "this API key".to_owned(),
        Of::Key(None) => "the fleet's API key".to_owned(),
    };
    let what = match what {
        What::Requests => "requests",
        What::Tokens => "tokens",
    };
    JobError {
        code: "rate_limit".into(),
        message: format!("the fleet's limit for {whose} is {per_minute} {what} a minute"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Price, Rate};

    const NOW: Timestamp = Timestamp(1_795_254_600_000);

    fn limits(name: &str, requests: Option<u64>, tokens: Option<u64>) -> AiLimits {
        AiLimits { rates: BTreeMap::from([(name.to_owned(), Rate { requests, tokens })]), ..AiLimits::default() }
    }

    fn wish(seq: Seq, owner: &Arc<str>) -> Wish<'_> {
        Wish { seq, owner, model: Some("m"), key: None, own_key: false, tokens: 100, output_tokens_max: Some(0) }
    }

    fn waits(turn: &Turn) -> u64 {
        match turn {
            Turn::Go => 0,
            Turn::Wait(at, _) => at.since_ms(NOW),
            Turn::Refuse(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn a_minutes_worth_goes_at_once_and_the_rest_has_its_time_each() {
        let mut meter = Meter::new(limits("owner", Some(60), None), 0, Vec::new());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let turns: Vec<u64> = (0..63).map(|seq| waits(&meter.ask(NOW, &wish(seq, &ann)))).collect();
        assert!(turns[..60].iter().all(|wait| *wait == 0), "{turns:?}");
        assert_eq!(turns[60..], [1_000, 2_000, 3_000]);
        assert_eq!(meter.ask(NOW, &wish(100, &bob)), Turn::Go, "another owner has a bucket of its own");
        let later = NOW.after_ms(10_000);
        let turn = meter.ask(later, &wish(101, &ann));
        assert_eq!(turn, Turn::Go, "ten seconds refill ten, of which three were given away");
    }

    #[test]
    fn tokens_are_charged_as_estimated_and_corrected_by_what_was_used() {
        let mut meter = Meter::new(limits("model", None, Some(600)), 0, Vec::new());
        let ann: Arc<str> = "ann".into();
        for seq in 0..6 {
            assert_eq!(meter.ask(NOW, &wish(seq, &ann)), Turn::Go);
        }
        assert_eq!(waits(&meter.ask(NOW, &wish(6, &ann))), 10_000);
        // The first used ten times as much as estimated, the second nothing.
        meter.settle(NOW, 0, &ann, false, Spent { tokens: 1_000, micros: 0 });
        meter.settle(NOW, 1, &ann, false, Spent::default());
        assert_eq!(waits(&meter.ask(NOW, &wish(7, &ann))), 10_000 + 10_000 + 90_000 - 10_000);
        let large = Wish { tokens: 1_000_000, ..wish(8, &ann) };
        let mut fresh = Meter::new(limits("model", None, Some(600)), 0, Vec::new());
        assert_eq!(fresh.ask(NOW, &large), Turn::Go, "what is larger than the bucket needs a full one");
    }

    #[test]
    fn what_was_asked_before_a_restart_still_counts_for_its_minute() {
        let mut both = limits("owner", Some(2), None);
        both.rates.insert("model".into(), Rate { requests: None, tokens: Some(600) });
        both.rates.insert("key".into(), Rate { requests: Some(1), tokens: None });
        let mut meter = Meter::new(both, 0, Vec::new());
        let ann: Arc<str> = "ann".into();
        let own = |seq, key| Wish { own_key: true, key, ..wish(seq, &ann) };
        meter.recall(Timestamp(NOW.0 - 30_000), &own(1, None), Some(300));
        meter.recall(Timestamp(NOW.0 - 10_000), &own(2, Some(7)), None);
        // 300 and 100 of 600 tokens were taken, and half a minute has given back 300 of them.
        assert_eq!(meter.ask(NOW, &Wish { tokens: 500, ..own(3, Some(8)) }), Turn::Go);
        let next = Wish { tokens: 0, ..own(4, Some(9)) };
        assert_eq!(waits(&meter.ask(NOW, &next)), 30_000, "the owner has asked twice, and got one back");
        let bob: Arc<str> = "bob".into();
        let again = Wish { own_key: true, key: Some(7), tokens: 0, ..wish(5, &bob) };
        assert_eq!(waits(&meter.ask(NOW, &again)), 50_000, "the same key");
    }

    #[test]
    fn all_limits_hold_together_and_each_key_has_its_own() {
        let mut both = limits("owner", Some(60), None);
        both.rates.insert("key".into(), Rate { requests: Some(6), tokens: None });
        let mut meter = Meter::new(both, 0, Vec::new());
        let ann: Arc<str> = "ann".into();
        let with = |seq, key| Wish { key: Some(key), own_key: true, ..wish(seq, &ann) };
        for seq in 0..6 {
            assert_eq!(meter.ask(NOW, &with(seq, 1)), Turn::Go);
        }
        assert_eq!(waits(&meter.ask(NOW, &with(6, 1))), 10_000);
        assert_eq!(meter.ask(NOW, &with(7, 2)), Turn::Go);
        assert_eq!(meter.ask(NOW, &wish(8, &ann)), Turn::Go);
    }

    #[test]
    fn a_budget_counts_what_is_used_and_what_is_under_way_until_the_day_ends() {
        let budget = Budget { tokens: Some(1_000), micros: None };
        let limits = AiLimits { budgets: BTreeMap::from([(String::new(), budget)]), ..AiLimits::default() };
        let mut meter = Meter::new(limits, ledger::day_of(NOW), vec![("ann".into(), Spent { tokens: 750, micros: 0 })]);
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        assert_eq!(meter.ask(NOW, &wish(1, &ann)), Turn::Go);
        assert_eq!(meter.ask(NOW, &wish(2, &ann)), Turn::Go);
        let Turn::Refuse(error) = meter.ask(NOW, &wish(3, &ann)) else { panic!("950 of 1000 and 100 more") };
        assert_eq!(error.code, "budget_spent");
        assert!(error.message.contains("950 of 1000 tokens"), "{}", error.message);
        assert_eq!(meter.ask(NOW, &wish(4, &bob)), Turn::Go);
        let own = Wish { own_key: true, ..wish(5, &ann) };
        assert_eq!(meter.ask(NOW, &own), Turn::Go, "a key of one's own is one's own money");
        assert!(meter.own_key_only(5), "but nobody else's then");
        meter.settle(NOW, 1, &ann, false, Spent { tokens: 20, micros: 0 });
        assert_eq!(meter.ask(NOW, &wish(6, &ann)), Turn::Go, "less was used than set aside");
        assert_eq!(meter.standing(NOW, "ann").1.tokens, 770);
        let tomorrow = NOW.after_ms(86_400_000);
        for seq in [2, 6] {
            meter.settle(tomorrow, seq, &ann, false, Spent::default());
        }
        assert_eq!(meter.ask(tomorrow, &wish(7, &ann)), Turn::Go);
        assert_eq!(meter.standing(tomorrow, "ann").1, Spent::default());
    }

    #[test]
    fn who_brings_a_key_uses_nothing_of_the_fleets_that_was_not_set_aside() {
        let budget = Budget { tokens: Some(250), micros: None };
        let limits = AiLimits { budgets: BTreeMap::from([(String::new(), budget)]), ..AiLimits::default() };
        let mut meter = Meter::new(limits, ledger::day_of(NOW), Vec::new());
        let ann: Arc<str> = "ann".into();
        let own = |seq| Wish { own_key: true, key: Some(seq), ..wish(seq, &ann) };
        assert!(meter.own_key_only(1), "it was not asked for");
        for seq in 1..=3 {
            assert_eq!(meter.ask(NOW, &own(seq)), Turn::Go);
        }
        assert_eq!([1, 2, 3].map(|seq| meter.own_key_only(seq)), [false, false, true]);
        assert!(matches!(meter.ask(NOW, &wish(4, &ann)), Turn::Refuse(_)));
        assert_eq!(meter.ask(NOW, &own(2)), Turn::Go, "another attempt takes the place of the one before");
        assert!(!meter.own_key_only(2));
        // The local AI answered the first, its own key the second.
        meter.settle(NOW, 1, &ann, false, Spent { tokens: 90, micros: 0 });
        meter.settle(NOW, 2, &ann, true, Spent { tokens: 90, micros: 0 });
        assert_eq!(meter.standing(NOW, "ann").1.tokens, 90);
        assert!(!Meter::default().own_key_only(1), "without budgets nothing has to be set aside");
    }

    #[test]
    fn money_is_set_aside_by_the_price_of_the_model() {
        let budget = Budget { tokens: None, micros: Some(1_000) };
        let limits = AiLimits {
            budgets: BTreeMap::from([("ann".into(), budget)]),
            prices: vec![("m".into(), Price { input: 2_000_000, output: 8_000_000 })],
            ..AiLimits::default()
        };
        let mut meter = Meter::new(limits, ledger::day_of(NOW), Vec::new());
        let ann: Arc<str> = "ann".into();
        // 100 tokens of input cost 200 micros, 50 of output 400.
        let question = |seq| Wish { output_tokens_max: Some(50), ..wish(seq, &ann) };
        assert_eq!(meter.ask(NOW, &question(1)), Turn::Go);
        assert!(matches!(meter.ask(NOW, &question(2)), Turn::Refuse(_)));
        let free = Wish { model: Some("local-model"), ..question(3) };
        assert_eq!(meter.ask(NOW, &free), Turn::Go, "what has no price is free");
    }
}
