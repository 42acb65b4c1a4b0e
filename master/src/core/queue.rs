//! The order of what waits: by priority, within a priority fair between owners, then by age. Jobs are sorted into
//! shapes (which workers can take them), so that finding the next job for a worker does not depend on how many wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use flota_proto::rest::Requires;
use flota_proto::{Class, Kind};

use super::job::Seq;

/// Stands for a shape.
pub type ShapeId = u32;

/// What decides which workers can take a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// What it asks for.
    pub kind: Kind,
    /// What a worker must have.
    pub requires: Requires,
    /// The model that is asked for.
    pub model: Option<String>,
    /// It comes with a key of the user's, so it needs a worker that can lease it.
    pub credential: bool,
    /// The RandomX key, hex, so that warm workers are preferred.
    pub randomx_key: Option<Arc<str>>,
}

/// A waiting thing: a unit that was cut before, or with [`REMAINDER`] what is still to be cut of a job.
pub type Entry = (Seq, u32);
/// The index that stands for what is not cut yet; sorts after all units of the job.
pub const REMAINDER: u32 = u32::MAX;

/// Where an entry stands: priority, the owner's place in the round, age. Better ranks are smaller.
pub type Rank = (Reverse<u8>, u64, Seq, u32);

/// What one owner has waiting at one level.
#[derive(Debug, Default)]
struct Waiting {
    entries: BTreeSet<Entry>,
    /// Where it stands in [`Level::order`].
    key: Option<(u64, Entry)>,
}

#[derive(Debug, Default)]
struct Level {
    owners: BTreeMap<Arc<str>, Waiting>,
    /// `(place in the round when it was put here, its oldest entry, owner)`; the place may lag behind, see [`Queue::top`].
    order: BTreeSet<(u64, Entry, Arc<str>)>,
}

impl Level {
    /// Puts an owner where `place` and its oldest entry say.
    fn put(&mut self, owner: &Arc<str>, place: u64) {
        let Some(waiting) = self.owners.get_mut(owner) else { return };
        if let Some((place, entry)) = waiting.key.take() {
            self.order.remove(&(place, entry, owner.clone()));
        }
        match waiting.entries.first() {
            Some(entry) => {
                waiting.key = Some((place, *entry));
                self.order.insert((place, *entry, owner.clone()));
            }
            None => {
                self.owners.remove(owner);
            }
        }
    }
}

/// An owner's place among those who wait at one class and priority. They take turns in a round: who begins to wait and who
/// had a turn goes to its end, so while one waits, each other has one turn at most, however long nobody could serve the one.
#[derive(Debug)]
struct Turn {
    /// Smaller places come first.
    place: u64,
    /// Entries waiting; never 0.
    waiting: u64,
}

#[derive(Debug)]
struct Slot {
    shape: Shape,
    users: u64,
}

/// All that waits for a worker.
#[derive(Debug, Default)]
pub struct Queue {
    shapes: BTreeMap<ShapeId, Slot>,
    shape_ids: HashMap<Shape, ShapeId>,
    next_shape: ShapeId,
    levels: BTreeMap<(ShapeId, Reverse<u8>), Level>,
    active: BTreeMap<Class, BTreeSet<ShapeId>>,
    /// Shapes with something waiting that no worker known can take: they cost nothing until one comes that can.
    parked: BTreeMap<Class, BTreeSet<ShapeId>>,
    turns: BTreeMap<(Class, u8, Arc<str>), Turn>,
    /// The last place in the round.
    last_place: u64,
    depth: BTreeMap<(Class, u8), u64>,
}

impl Queue {
    /// The number that stands for `shape`, kept until as many [`Queue::release`] it.
    pub fn acquire(&mut self, shape: Shape) -> ShapeId {
        let next = self.next_shape;
        let id = *self.shape_ids.entry(shape.clone()).or_insert(next);
        if id == next {
            self.next_shape = self.next_shape.wrapping_add(1);
        }
        self.shapes.entry(id).or_insert(Slot { shape, users: 0 }).users += 1;
        id
    }

    /// One job less has the shape.
    pub fn release(&mut self, id: ShapeId) {
        let Some(slot) = self.shapes.get_mut(&id) else { return };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0
            && let Some(slot) = self.shapes.remove(&id)
        {
            self.shape_ids.remove(&slot.shape);
        }
    }

    /// The shape that a number stands for.
    ///
    /// # Panics
    /// When nobody has acquired it: a defect of the core.
    pub fn shape(&self, id: ShapeId) -> &Shape {
        &self.shapes[&id].shape
    }

    /// The shape that a number stands for, where anybody still has it.
    pub fn try_shape(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(&id).map(|slot| &slot.shape)
    }

    /// Shapes of a class that have something waiting.
    pub fn active(&self, class: Class) -> impl Iterator<Item = ShapeId> + '_ {
        self.active.get(&class).into_iter().flatten().copied()
    }

    /// Sets a shape aside that no worker known can take.
    pub fn park(&mut self, class: Class, shape: ShapeId) {
        if self.active.get_mut(&class).is_some_and(|active| active.remove(&shape)) {
            self.parked.entry(class).or_default().insert(shape);
        }
    }

    /// Shapes that are set aside.
    pub fn parked(&self) -> impl Iterator<Item = &Shape> {
        self.parked.values().flatten().map(|id| self.shape(*id))
    }

    /// Brings back those shapes that `fits`.
    pub fn unpark(&mut self, fits: impl Fn(&Shape) -> bool) {
        for (class, parked) in &mut self.parked {
            let shapes = &self.shapes;
            let back = parked.extract_if(.., |id| shapes.get(id).is_some_and(|slot| fits(&slot.shape)));
            self.active.entry(*class).or_default().extend(back);
        }
    }

    /// How many entries of a class wait at `priority` or above.
    pub fn depth_from(&self, class: Class, priority: u8) -> u64 {
        self.depth.range((class, priority)..=(class, u8::MAX)).map(|(_, depth)| depth).sum()
    }

    /// All that waits; that the depths agree with it is checked on the way.
    pub fn entries(&self) -> BTreeSet<Entry> {
        let entries: BTreeSet<Entry> = self
            .levels
            .values()
            .flat_map(|level| level.owners.values().flat_map(|w| w.entries.iter()))
            .copied()
            .collect();
        debug_assert_eq!(entries.len() as u64, self.depth.values().sum::<u64>(), "depth of the queue");
        entries
    }

    /// Priority and owner of all that waits in a class with a shape that `fits`, for audits.
    pub fn waiting(&self, class: Class, fits: impl Fn(&Shape) -> bool) -> BTreeSet<(u8, Arc<str>)> {
        let fits = |slot: &Slot| slot.shape.kind.class() == class && fits(&slot.shape);
        let fitting = |id: &ShapeId| self.shapes.get(id).is_some_and(&fits);
        let levels = self.levels.iter().filter(|((shape, _), _)| fitting(shape));
        levels
            .flat_map(|((_, Reverse(priority)), level)| level.owners.keys().map(|owner| (*priority, owner.clone())))
            .collect()
    }

    /// Puts an entry in its place.
    pub fn insert(&mut self, shape: ShapeId, priority: u8, owner: &Arc<str>, entry: Entry) {
        let class = self.shape(shape).kind.class();
        let level = self.levels.entry((shape, Reverse(priority))).or_default();
        let waiting = level.owners.entry(owner.clone()).or_default();
        if !waiting.entries.insert(entry) {
            return;
        }
        let turn = self.turns.entry((class, priority, owner.clone())).or_insert_with(|| {
            self.last_place += 1;
            Turn { place: self.last_place, waiting: 0 }
        });
        turn.waiting += 1;
        if waiting.key.is_none_or(|(_, head)| entry < head) {
            level.put(owner, turn.place);
        }
        *self.depth.entry((class, priority)).or_default() += 1;
        if !self.parked.get(&class).is_some_and(|parked| parked.contains(&shape)) {
            self.active.entry(class).or_default().insert(shape);
        }
    }

    /// Takes an entry out. Answers whether it was there.
    pub fn remove(&mut self, shape: ShapeId, priority: u8, owner: &Arc<str>, entry: Entry) -> bool {
        let class = self.shape(shape).kind.class();
        let key = (shape, Reverse(priority));
        let Some(level) = self.levels.get_mut(&key) else { return false };
        let Some(waiting) = level.owners.get_mut(owner) else { return false };
        if !waiting.entries.remove(&entry) {
            return false;
        }
        if let Some((place, head)) = waiting.key
            && head == entry
        {
            level.put(owner, place);
        }
        let of = (class, priority, owner.clone());
        if let Some(turn) = self.turns.get_mut(&of) {
            turn.waiting -= 1;
            if turn.waiting == 0 {
                self.turns.remove(&of);
            }
        }
        if let Some(depth) = self.depth.get_mut(&(class, priority)) {
            *depth = depth.saturating_sub(1);
        }
        self.prune(class, key);
        true
    }

    /// An owner had a turn at a shape and priority: the others come before its next one.
    pub fn served(&mut self, shape: ShapeId, priority: u8, owner: &Arc<str>) {
        let class = self.shape(shape).kind.class();
        if let Some(turn) = self.turns.get_mut(&(class, priority, owner.clone())) {
            self.last_place += 1;
            turn.place = self.last_place;
        }
    }

    fn prune(&mut self, class: Class, key: (ShapeId, Reverse<u8>)) {
        if self.levels.get(&key).is_some_and(|level| level.owners.is_empty()) {
            self.levels.remove(&key);
            let (shape, _) = key;
            if self.levels.range((shape, Reverse(u8::MAX))..=(shape, Reverse(0))).next().is_none() {
                for shapes in [&mut self.active, &mut self.parked] {
                    shapes.entry(class).or_default().remove(&shape);
                }
            }
        }
    }

    /// The best entry of a shape with its rank.
    pub fn top(&mut self, shape: ShapeId) -> Option<(Rank, Entry)> {
        let class = self.shape(shape).kind.class();
        let (key, level) = self.levels.range_mut((shape, Reverse(u8::MAX))..=(shape, Reverse(0))).next()?;
        let Reverse(priority) = key.1;
        loop {
            let (place, entry, owner) = level.order.first()?.clone();
            // The owner may have had turns since, at this shape or another: it only moves back.
            let now = self.turns.get(&(class, priority, owner.clone())).map_or(place, |turn| turn.place);
            if now <= place {
                return Some(((Reverse(priority), place, entry.0, entry.1), entry));
            }
            level.put(&owner, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { kind: Kind::Echo, requires: Requires::default(), model: None, credential: false, randomx_key: None }
    }

    fn drain(queue: &mut Queue, shape: ShapeId, owners: &[(Seq, &Arc<str>, u8)]) -> Vec<Seq> {
        let mut order = Vec::new();
        while let Some((_, entry)) = queue.top(shape) {
            let (_, owner, priority) = owners.iter().find(|(seq, ..)| *seq == entry.0).unwrap();
            assert!(queue.remove(shape, *priority, owner, entry));
            queue.served(shape, *priority, owner);
            order.push(entry.0);
        }
        assert!(queue.entries().is_empty());
        assert_eq!(queue.active(Class::Echo).count(), 0);
        order
    }

    #[test]
    fn priority_comes_before_fairness_and_fairness_before_age() {
        let mut queue = Queue::default();
        let id = queue.acquire(shape());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        let jobs = [(1, &ann, 5), (2, &ann, 5), (3, &ann, 5), (4, &bob, 5), (5, &bob, 9)];
        for (seq, owner, priority) in jobs {
            queue.insert(id, priority, owner, (seq, REMAINDER));
        }
        assert_eq!(drain(&mut queue, id, &jobs), [5, 1, 4, 2, 3]);
    }

    #[test]
    fn who_comes_late_does_not_get_the_turns_that_it_missed() {
        let mut queue = Queue::default();
        let id = queue.acquire(shape());
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        for seq in 1..=100 {
            queue.insert(id, 5, &ann, (seq, REMAINDER));
            queue.remove(id, 5, &ann, (seq, REMAINDER));
            queue.served(id, 5, &ann);
        }
        let jobs = [(101, &ann, 5), (102, &bob, 5), (103, &ann, 5), (104, &bob, 5), (105, &bob, 5)];
        for (seq, owner, priority) in jobs {
            queue.insert(id, priority, owner, (seq, REMAINDER));
        }
        let order = drain(&mut queue, id, &jobs);
        let bobs_first_two = order.iter().take(4).filter(|seq| [102, 104, 105].contains(seq)).count();
        assert_eq!(bobs_first_two, 2, "{order:?}");
    }

    #[test]
    fn who_waited_long_for_a_worker_has_one_turn_and_not_all_that_it_missed() {
        let mut queue = Queue::default();
        let (common, rare) = (queue.acquire(shape()), queue.acquire(Shape { model: Some("rare".into()), ..shape() }));
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        for seq in 1..=10 {
            queue.insert(rare, 5, &ann, (seq, REMAINDER));
        }
        for seq in 11..=120 {
            queue.insert(common, 5, &bob, (seq, REMAINDER));
        }
        for seq in 11..=100 {
            queue.remove(common, 5, &bob, (seq, REMAINDER));
            queue.served(common, 5, &bob);
        }
        let mut served = Vec::new();
        for _ in 0..6 {
            let (first, second) = (queue.top(rare).unwrap(), queue.top(common).unwrap());
            let (shape, owner, entry) =
                if first.0 < second.0 { (rare, &ann, first.1) } else { (common, &bob, second.1) };
            queue.remove(shape, 5, owner, entry);
            queue.served(shape, 5, owner);
            served.push(owner.to_string());
        }
        assert_eq!(served, ["ann", "bob", "ann", "bob", "ann", "bob"]);
    }

    #[test]
    fn an_older_entry_that_comes_back_is_first_again() {
        let mut queue = Queue::default();
        let id = queue.acquire(shape());
        let ann: Arc<str> = "ann".into();
        let jobs = [(2, &ann, 5), (1, &ann, 5)];
        for (seq, owner, priority) in jobs {
            queue.insert(id, priority, owner, (seq, REMAINDER));
        }
        assert_eq!(drain(&mut queue, id, &jobs), [1, 2]);
    }
}
